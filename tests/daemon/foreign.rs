//! Another user at the socket. The socket's folder keeps everybody else out already, so the daemon's own
//! check is met through a listener in an open folder, passed as a service manager passes it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use crate::setup::{COMMAND, DAEMON, Daemon, Home, Ran, Sandbox, is_root, ran};

/// `nobody`.
const STRANGER: u32 = 65534;

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
}

/// A daemon on a listener that every user can reach.
pub(crate) fn daemon_in_the_open(home: &Home) -> Daemon {
    let folder = home.path("run");
    fs::create_dir(&folder).expect("made");
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).expect("chmod");
    open_to_all(&folder);
    let listener = UnixListener::bind(home.socket()).expect("bound");
    open_to_all(&home.socket());
    home.copy_of(COMMAND);
    let pass = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let mut command = home.program("/bin/sh", &["-c", pass, "sh", DAEMON, "run"]);
    home.daemon_of(command.stdin(OwnedFd::from(listener)))
}

fn as_stranger(home: &Home) -> Ran {
    stranger_runs(home, &["token"])
}

pub(crate) fn stranger_runs(home: &Home, arguments: &[&str]) -> Ran {
    let mut command = home.program(home.path("wandb-cred").to_str().expect("text"), arguments);
    ran(command.uid(STRANGER).gid(STRANGER).current_dir("/"))
}

#[test]
fn another_user_is_refused_with_a_reason_and_served_once_the_configuration_names_it() {
    if !is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = daemon_in_the_open(&home);
    let refused = as_stranger(&home);
    assert_eq!((refused.code, refused.out.as_str()), (Some(69), ""), "{}", refused.err);
    assert!(refused.err.contains(&format!("you are uid {STRANGER}")), "{}", refused.err);
    assert!(refused.err.contains(&format!("allow-uids = [{STRANGER}]")), "{}", refused.err);
    assert_eq!(sandbox.exchanges(), 0, "a stranger caused an exchange");
    assert!(daemon.token("").starts_with("wb_at_"));
    assert!(daemon.log().contains("refused a request of another user"), "{}", daemon.log());
    drop(daemon);

    fs::remove_dir_all(home.path("run")).expect("removed");
    home.write_config(&format!("allow-uids = [{STRANGER}]\n{}", sandbox.profile("work")));
    let _daemon = daemon_in_the_open(&home);
    let served = as_stranger(&home);
    assert_eq!(served.code, Some(0), "{}", served.err);
}

#[test]
fn another_user_who_is_allowed_gets_tokens_and_nothing_else() {
    if !is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    for allow in ["allow-uids", "allow-gids"] {
        let sandbox = Sandbox::start(&[]);
        let home = Home::new(&format!("{allow} = [{STRANGER}]\n{}", sandbox.profile("work")));
        let daemon = daemon_in_the_open(&home);
        assert_eq!(as_stranger(&home).code, Some(0), "{allow}");
        for arguments in [
            &["lock"][..],
            &["unlock"],
            &["refresh"],
            &["status"],
            &["env"],
            &["logout"],
            &["exec", "--", "true"],
        ] {
            let refused = stranger_runs(&home, arguments);
            assert_eq!(
                (refused.code, refused.out.as_str()),
                (Some(69), ""),
                "{arguments:?}: {}",
                refused.err
            );
            assert!(refused.err.contains("is for the daemon's owner"), "{arguments:?}: {}", refused.err);
        }
        assert!(daemon.token("").starts_with("wb_at_"), "it was locked");
        assert_eq!((sandbox.exchanges(), daemon.profile("work")["jobs"].as_u64()), (1, Some(0)), "{allow}");
    }
}

#[test]
fn a_guest_comes_in_by_the_guest_socket_while_the_folder_with_the_files_stays_closed() {
    if !is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new("");
    let guests = home.path("guests/wandb-cred.sock");
    let configure = |allow: &str| {
        let guest_socket = format!("guest-socket = \"{}\"\n", guests.display());
        home.write_config(&format!("{allow}{guest_socket}{}", sandbox.profile("work")));
    };
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::copy(COMMAND, home.path("wandb-cred")).expect("copied");
    let ask = |socket: &Path| {
        let mut command = home.program(home.path("wandb-cred").to_str().expect("text"), &["token"]);
        command.env("WANDB_CRED_SOCKET", socket).env("WANDB_CRED_SOCKET_UID", "0").current_dir("/");
        ran(command.uid(STRANGER).gid(STRANGER))
    };
    configure(&format!("allow-gids = [{STRANGER}]\n"));
    let daemon = home.daemon();
    assert_eq!(ask(&guests).code, Some(0), "{}", ask(&guests).err);
    assert_eq!(ask(&home.socket()).code, Some(69), "the other folder is open");
    assert!(daemon.token("").starts_with("wb_at_"));
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&home.path("guests")), mode(&guests), mode(&home.path("run"))), (0o711, 0o666, 0o700));
    drop(daemon);

    // Strangers are refused there, and can take no place of others by staying.
    configure("");
    let daemon = home.daemon();
    let refused = ask(&guests);
    assert_eq!((refused.code, refused.out.as_str()), (Some(69), ""), "{}", refused.err);
    assert!(refused.err.contains(&format!("you are uid {STRANGER}")), "{}", refused.err);
    drop(daemon);

    for (place, why) in [("run/s2", "a folder of its own"), ("loose/s", "others can write to it")] {
        fs::create_dir_all(home.path("loose")).expect("made");
        open_to_all(&home.path("loose"));
        let key = format!("guest-socket = \"{}\"\n", home.path(place).display());
        home.write_config(&format!("{key}{}", sandbox.profile("work")));
        let refused = home.refused();
        assert_eq!(refused.code, Some(78), "{place}: {}", refused.err);
        assert!(refused.err.contains(why), "{place}: {}", refused.err);
    }
}

#[test]
fn the_command_asks_nobody_elses_daemon_unless_it_is_told_to() {
    if !is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&format!("allow-uids = [0]\n{}", sandbox.profile("work")));
    let program = home.copy_of(DAEMON);
    for path in [home.path(""), home.config()] {
        std::os::unix::fs::chown(path, Some(STRANGER), Some(STRANGER)).expect("chown");
    }
    let mut command = home.program(program.to_str().expect("text"), &["run"]);
    let _daemon = home.daemon_of(command.uid(STRANGER).gid(STRANGER).current_dir("/"));
    let refused = home.run(&["status"]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(69), ""), "{}", refused.err);
    assert!(refused.err.contains(&format!("is served by uid {STRANGER}")), "{}", refused.err);
    // For a token it would start one of its own, which does not take a configuration of that user's.
    let refused = home.run(&["token"]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(78), ""), "{}", refused.err);
    assert_eq!(sandbox.exchanges(), 0, "something was sent");
    let with = |uid: &str| ran(home.program(COMMAND, &["token"]).env("WANDB_CRED_SOCKET_UID", uid));
    assert_eq!(with("1").code, Some(78));
    assert_eq!(with("nobody").code, Some(78));
    let served = with(&STRANGER.to_string());
    assert_eq!(served.code, Some(0), "{}", served.err);
}

#[test]
fn another_user_cannot_reach_the_usual_socket_or_files() {
    if !is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    daemon.token("");
    home.copy_of(COMMAND);
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).expect("chmod");
    let refused = stranger_runs(&home, &["status"]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(69), ""), "{}", refused.err);
    assert!(refused.err.contains("permission"), "{}", refused.err);
}

#[test]
fn a_passed_socket_outlives_the_daemon() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut daemon = daemon_in_the_open(&home);
    assert!(daemon.token("").starts_with("wb_at_"));
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.ended(10).success());
    assert!(home.socket().exists(), "the service manager's socket was removed");
}
