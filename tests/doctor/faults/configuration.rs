//! The configuration file.

use super::fails;
use crate::world::mode;

#[test]
fn reports_no_file() {
    fails(
        |world| drop(world.env.insert("WANDB_CRED_CONFIG", "/nonexistent/config.toml".into())),
        &["configuration"],
        78,
        &["/nonexistent/config.toml", "wandb-cred init"],
    );
}

#[test]
fn reports_a_misspelled_key() {
    fails(
        |world| {
            world.config = Some(
                "[profile.work]\naudeince = \"acme\"\n[profile.work.provider.file]\npath = \"/x\"\n".into(),
            );
        },
        &["configuration"],
        78,
        &[":2:1", "did you mean `audience`?", "fix that line"],
    );
}

#[test]
fn reports_plain_http() {
    fails(
        |world| world.base_url = Some("http://wandb.example".into()),
        &["configuration"],
        78,
        &["https", "wandb-cred check"],
    );
}

#[test]
fn reports_an_unknown_profile() {
    fails(|world| world.arguments = vec!["--profile", "wrok"], &["configuration"], 78, &["wrok", "work"]);
}

#[test]
fn reports_several_profiles_without_a_default() {
    fails(
        |world| {
            let wandb = world.own_wandb();
            let path = world.path("jwt");
            world.provider += &format!(
                "[profile.lab]\nbase-url = \"{}\"\n[profile.lab.provider.file]\npath = \"{}\"\n",
                wandb.url,
                path.display()
            );
        },
        &["configuration"],
        78,
        &["default-profile", "export WANDB_CRED_PROFILE=lab", "lab, work"],
    );
}

#[test]
fn reports_a_file_that_others_can_write() {
    fails(
        |world| {
            world.set_up();
            mode(&world.path("config.toml"), 0o666);
        },
        &["configuration"],
        78,
        &["mode 0666", "chmod go-w"],
    );
}
