//! The runtime folder and what is in it.

use super::fails;

#[test]
fn reports_an_open_runtime_folder() {
    fails(|world| world.folder("run/wandb-cred", 0o755), &["folders"], 78, &["mode 0755", "chmod 700"]);
}

#[test]
fn reports_a_profile_folder_that_is_a_symlink() {
    fails(
        |world| {
            world.folder("run/wandb-cred/profiles", 0o700);
            std::os::unix::fs::symlink("/tmp", world.path("run/wandb-cred/profiles/work")).expect("linked");
        },
        &["folders"],
        78,
        &["is not a folder", "rm /"],
    );
}

#[test]
fn reports_a_socket_path_that_is_too_long() {
    fails(
        |world| {
            drop(
                world.env.insert(
                    "XDG_RUNTIME_DIR",
                    format!("{}/{}", world.home.path().display(), "x".repeat(100)),
                ),
            );
        },
        &["configuration"],
        78,
        &["a socket's path can have", "WANDB_CRED_SOCKET"],
    );
}

#[test]
fn reports_a_folder_that_cannot_be_made() {
    fails(
        |world| drop(world.env.insert("XDG_RUNTIME_DIR", "/proc/nobody".into())),
        &["folders"],
        78,
        &["cannot be made", "unset XDG_RUNTIME_DIR"],
    );
}

#[test]
fn reports_a_folder_below_a_file() {
    fails(
        |world| {
            let file = world.write("file", "");
            world.env.insert("XDG_RUNTIME_DIR", file);
        },
        &["folders"],
        78,
        &["no folder can be made in", "unset XDG_RUNTIME_DIR"],
    );
}
