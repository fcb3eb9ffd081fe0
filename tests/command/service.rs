//! `service`, with stand-ins for the service manager; and the shipped service files.

// On macOS only the files are tested.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fake_daemon::{FakeDaemon, bare, on, program, ran};
use crate::status;

/// A home with a user manager's socket, and a `systemctl` that writes down what it is told.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temp dir");
        let home = folder.path();
        std::fs::create_dir_all(home.join("run/systemd")).expect("made");
        std::fs::write(home.join("run/systemd/private"), "").expect("made");
        std::fs::create_dir(home.join("bin")).expect("made");
        program(
            &home.join("bin/systemctl"),
            &format!("echo \"$@\" >>{}/calls; [ $2 != is-active ]", home.display()),
        );
        program(&home.join("bin/wandb-credd"), "exit 0");
        Self { folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(self.folder.path(), arguments);
        let bin = self.folder.path().join("bin");
        command.env("PATH", &bin).env("WANDB_CREDD", bin.join("wandb-credd"));
        command
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.folder.path().join(".config/systemd/user").join(name)
    }
}

#[cfg(target_os = "linux")]
#[test]
fn install_from_a_projects_python_environment_says_that_it_may_go() {
    for (marks, warned) in [
        (&["pyvenv.cfg"][..], true),
        (&["pyvenv.cfg", "uv-receipt.toml"], false),
        (&["pyvenv.cfg", "pipx_metadata.json"], false),
        (&[], false),
    ] {
        let home = Home::new();
        for mark in marks {
            std::fs::write(home.folder.path().join(mark), "").expect("written");
        }
        let ran = ran(&mut home.command(&["service", "install", "--dry-run"]));
        assert_eq!(
            (ran.code, ran.out.contains("note: the service runs")),
            (0, warned),
            "{marks:?}: {}",
            ran.out
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn install_writes_the_units_and_starts_the_socket_and_uninstall_takes_them_away() {
    let home = Home::new();
    let dry = ran(&mut home.command(&["service", "install", "--dry-run"]));
    assert_eq!((dry.code, dry.err.as_str()), (0, ""));
    assert!(
        dry.out.contains("ExecStart=")
            && dry.out.contains("systemctl --user enable --now wandb-cred.socket\n")
    );
    assert_eq!(
        (home.calls(), home.unit("wandb-cred.socket").exists()),
        (String::new(), false),
        "a dry run did something"
    );

    let installed = ran(&mut home.command(&["service", "install"]));
    assert_eq!((installed.code, installed.err.as_str()), (0, ""));
    assert!(installed.out.contains("loginctl enable-linger"), "{}", installed.out);
    let service = std::fs::read_to_string(home.unit("wandb-cred.service")).expect("written");
    let daemon = home.folder.path().join("bin/wandb-credd");
    assert!(service.contains(&format!("\nExecStart={} run\n", daemon.display())), "{service}");
    assert!(home.unit("wandb-cred.socket").exists());
    assert!(
        home.calls().ends_with(
            "--user daemon-reload\n--user enable --now wandb-cred.socket\n--user try-restart wandb-cred.service\n"
        ),
        "{}",
        home.calls()
    );

    let removed = ran(&mut home.command(&["service", "uninstall"]));
    assert_eq!((removed.code, removed.err.as_str()), (0, ""));
    assert!(home.calls().ends_with(
        "--user disable --now wandb-cred.socket\n--user stop wandb-cred.service\n--user daemon-reload\n"
    ));
    assert!(!home.unit("wandb-cred.socket").exists() && !home.unit("wandb-cred.service").exists());
    let again = ran(&mut home.command(&["service", "uninstall"]));
    assert_eq!(
        (again.code, again.out.as_str()),
        (0, "the service is not installed, so nothing was changed\n")
    );
}

/// A home with a profile, and a shell that has a network of its own.
#[cfg(target_os = "linux")]
fn in_a_company(home: &Home) -> (PathBuf, impl Fn(&[&str]) -> Command) {
    let config = home.folder.path().join(".config/wandb-cred/config.toml");
    std::fs::create_dir_all(config.parent().expect("a folder")).expect("made");
    let text = "# mine\n[profile.work.provider.file]\npath = \"/x\"\n\n[profile.lab]\nproxy = \"none\" # here\n[profile.lab.provider.file]\npath = \"/y\"\n";
    std::fs::write(&config, format!("default-profile = \"work\"\n{text}")).expect("written");
    let install = |arguments: &[&str]| {
        let mut command = home.command(&[&["service", "install"][..], arguments].concat());
        command.env("WANDB_CREDD", env!("CARGO_BIN_EXE_wandb-credd"));
        command.env("https_proxy", "proxy.corp:3128").env("NO_PROXY", "localhost,.corp");
        command.env("SSL_CERT_FILE", "/etc/hostname");
        command
    };
    (config, install)
}

#[cfg(target_os = "linux")]
#[test]
fn install_says_what_the_shell_has_and_records_it_when_told_to() {
    let home = Home::new();
    let (config, install) = in_a_company(&home);
    let before = std::fs::read_to_string(&config).expect("written");
    let offered = [
        "  https_proxy: proxy = \"http://proxy.corp:3128\"\n",
        "  NO_PROXY: no-proxy = \"localhost,.corp\"\n",
        "  SSL_CERT_FILE: ca-file = \"/etc/hostname\"\n",
    ];
    for arguments in [&[][..], &["--dry-run"], &["--dry-run", "--yes"]] {
        let ran = ran(&mut install(arguments));
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(offered.iter().all(|line| ran.out.contains(line)), "{}", ran.out);
        assert!(
            ran.out.contains("not recorded; to have it recorded: wandb-cred service install --yes"),
            "{}",
            ran.out
        );
        assert_eq!(std::fs::read_to_string(&config).expect("there"), before);
    }
    let done = ran(&mut install(&["--yes"]));
    assert_eq!(done.code, 0, "{}", done.err);
    let after = std::fs::read_to_string(&config).expect("there");
    assert!(
        after.starts_with("default-profile = \"work\"\n# mine\n")
            && after.contains("proxy = \"none\" # here"),
        "{after}"
    );
    assert!(
        after
            .contains("[profile.work]\nproxy = \"http://proxy.corp:3128\"\nno-proxy = \"localhost,.corp\"\n"),
        "{after}"
    );
    assert_eq!(after.matches("http://proxy.corp:3128").count(), 1, "the other has its own word: {after}");
    assert_eq!(after.matches("ca-file").count(), 2, "{after}");
    let again = ran(&mut install(&[]));
    assert!(!again.out.contains("https_proxy"), "nothing is left to record: {}", again.out);
}

#[cfg(target_os = "linux")]
#[test]
fn install_asks_a_person() {
    let home = Home::new();
    let (config, install) = in_a_company(&home);
    let line = format!("exec {} service install", env!("CARGO_BIN_EXE_wandb-cred"));
    for (answer, recorded) in [("n\r", false), ("\r", true)] {
        let mut command = install(&[]);
        let bin = home.folder.path().join("bin");
        command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH")));
        let mut terminal = crate::terminal::Terminal::start(&command, 100, &line);
        terminal.shows("[Y/n] ");
        terminal.keys(answer);
        assert_eq!(terminal.ends(), 0, "{}", terminal.text());
        assert_eq!(std::fs::read_to_string(&config).expect("there").contains("proxy.corp"), recorded);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn where_no_user_manager_runs_install_says_what_to_do_instead() {
    let home = tempfile::tempdir().expect("temp dir");
    let ran = ran(bare(home.path(), &["service", "install"]).env("WANDB_CREDD", "/bin/true"));
    assert_eq!((ran.code, ran.out.as_str()), (69, ""));
    assert!(ran.err.contains("no systemd --user runs for this user"), "{}", ran.err);
    assert!(ran.err.contains("next: wandb-cred exec -- CMD"), "{}", ran.err);
}

#[cfg(target_os = "linux")]
#[test]
fn install_does_not_take_the_socket_from_a_daemon_that_runs() {
    let home = Home::new();
    let daemon = FakeDaemon::start(vec![on("GET /v1/status", 200, status::answer(&[]))]);
    let ran = ran(home.command(&["service", "install"]).env("WANDB_CRED_SOCKET", daemon.socket()));
    assert_eq!(ran.code, 75);
    assert!(
        ran.err.contains("a daemon that systemd did not start answers at /s")
            && ran.err.contains("next: kill 7"),
        "{}",
        ran.err
    );
    assert!(!home.unit("wandb-cred.socket").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn the_next_command_fits_what_is_installed() {
    let home = Home::new();
    let next =
        |home: &Home| ran(&mut home.command(&["token"])).err.lines().nth(1).expect("two lines").to_owned();
    assert_eq!(next(&home), "  next: wandb-cred service install");
    ran(&mut home.command(&["service", "install"]));
    assert_eq!(next(&home), "  next: systemctl --user restart wandb-cred.socket");
}

#[cfg(target_os = "linux")]
#[test]
fn service_status_shows_units_and_daemon() {
    let home = Home::new();
    let daemon = FakeDaemon::start(vec![on("GET /v1/status", 200, status::answer(&[]))]);
    let answers = ran(home.command(&["service", "status"]).env("WANDB_CRED_SOCKET", daemon.socket()));
    assert_eq!(answers.code, 0, "{}", answers.err);
    assert!(answers.out.contains("units    not installed in"), "{}", answers.out);
    assert!(answers.out.contains("daemon   answers at /s: version 0.1.0, pid 7, up "), "{}", answers.out);
    let silent = ran(&mut home.command(&["service", "status"]));
    assert_eq!(silent.code, 69);
}

/// `systemd-analyze verify` exits 0 whatever it finds, so that any word from it is a failure.
#[cfg(target_os = "linux")]
#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let folder = tempfile::tempdir().expect("temp dir");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for name in ["wandb-cred.socket", "wandb-cred.service"] {
        let text = std::fs::read_to_string(root.join(name)).expect("shipped");
        let text = text.replace("/usr/bin/wandb-credd", env!("CARGO_BIN_EXE_wandb-credd"));
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--user", "--man=no", "./wandb-cred.socket", "./wandb-cred.service"])
        .current_dir(folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .output();
    let Ok(output) = output else {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing in CI");
        return;
    };
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
}

/// Python's parser is strict about the format; the keys are checked here, since nothing on Linux knows them.
#[test]
fn the_launch_agent_is_a_plist_of_known_keys() {
    let script = r#"
import plistlib, sys
agent = plistlib.load(open(sys.argv[1], "rb"), fmt=plistlib.FMT_XML)
known = {"Label": str, "ProgramArguments": list, "Sockets": dict, "KeepAlive": dict, "ProcessType": str,
         "Umask": int, "ExitTimeOut": int, "HardResourceLimits": dict, "StandardErrorPath": str}
for key, value in agent.items():
    assert isinstance(value, known[key]), key
assert agent["Label"] + ".plist" == sys.argv[1].rsplit("/", 1)[1]
assert agent["ProgramArguments"][1:] == ["run"]
assert set(agent["Sockets"]) == {"api"}
assert set(agent["Sockets"]["api"]) == {"SockPathName", "SockPathMode"}
assert agent["Sockets"]["api"]["SockPathMode"] == 0o600 and agent["Umask"] == 0o077
"#;
    let plist = Path::new(env!("CARGO_MANIFEST_DIR")).join("launchd/io.github.wandb-cred.plist");
    let output = Command::new("python3").args(["-c", script]).arg(plist).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
