//! `init` and `check`, which run the daemon's program; and the files that are generated and committed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::fake_daemon::{Ran, bare, program, ran};

struct Home {
    folder: tempfile::TempDir,
    credd: PathBuf,
}

impl Home {
    /// With a stand-in for the daemon's program.
    fn with(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("temp dir");
        let credd = folder.path().join("wandb-credd");
        program(&credd, script);
        Self { folder, credd }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        ran(bare(self.folder.path(), arguments)
            .env("WANDB_CREDD", &self.credd)
            .env("WANDB_CRED_CONFIG", self.config()))
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("conf/config.toml")
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("exists").permissions().mode() & 0o777
}

/// `init` where the environment names an identity token file.
fn init(home: &Home, arguments: &[&str]) -> Ran {
    let jwt = home.folder.path().join("jwt");
    std::fs::write(&jwt, "a.b.c").expect("written");
    ran(bare(home.folder.path(), &[&["init"], arguments].concat())
        .env("WANDB_CREDD", env!("CARGO_BIN_EXE_wandb-credd"))
        .env("WANDB_CRED_CONFIG", home.config())
        .env("WANDB_IDENTITY_TOKEN_FILE", jwt))
}

#[test]
fn init_writes_what_was_found_for_us_alone() {
    let home = Home::with("exit 1");
    let ran = init(&home, &[]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let config = home.config();
    let written = std::fs::read_to_string(&config).expect("written");
    let path = home.folder.path().join("jwt");
    assert!(
        written.ends_with(&format!("[profile.default.provider.file]\npath = \"{}\"\n", path.display())),
        "{written}"
    );
    let shown: String = written
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") })
        .collect();
    assert_eq!(
        ran.out,
        format!(
            "wrote {}:\n\n{shown}\n\
             next: wandb-cred check, then wandb-cred exec -- CMD or wandb-cred service install\n",
            config.display()
        )
    );
    assert_eq!((mode(&config), mode(config.parent().expect("a folder"))), (0o600, 0o700));
}

#[test]
fn init_replaces_nothing_unless_told_to() {
    let home = Home::with("exit 1");
    let config = home.config();
    std::fs::create_dir(config.parent().expect("a folder")).expect("made");
    std::fs::write(&config, "mine").expect("written");
    let refused = init(&home, &[]);
    assert_eq!((refused.code, refused.out.as_str()), (78, ""));
    assert!(
        refused.err.contains("already exists, and was not changed\n  next: wandb-cred check"),
        "{}",
        refused.err
    );
    // Linux has it, macOS has not.
    if let Ok(full) = std::fs::File::options().write(true).open("/dev/full") {
        let mut command = bare(home.folder.path(), &["init", "--dry-run"]);
        command.env("WANDB_CREDD", env!("CARGO_BIN_EXE_wandb-credd"));
        command.env("WANDB_IDENTITY_TOKEN_FILE", &config);
        assert_eq!(command.stdout(full).status().expect("runs").code(), Some(74));
    }
    let dry = init(&home, &["--dry-run"]);
    assert_eq!(dry.code, 0);
    assert!(dry.out.contains("[profile.default.provider.file]\n"), "{}", dry.out);
    assert_eq!(std::fs::read_to_string(&config).expect("there"), "mine");

    let real = home.folder.path().join("dotfiles.toml");
    std::fs::rename(&config, &real).expect("moved");
    std::os::unix::fs::symlink(&real, &config).expect("linked");
    assert_eq!(init(&home, &["--force"]).code, 0);
    assert!(config.symlink_metadata().expect("there").is_symlink(), "a link into dotfiles is gone");
    assert!(std::fs::read_to_string(&real).expect("there").contains("[profile"));
}

#[test]
fn init_passes_on_why_nothing_was_found() {
    let home = Home::with("echo 'wandb-credd: nothing here vouches for you' >&2; exit 78");
    let ran = home.run(&["init"]);
    assert_eq!((ran.code, ran.out.as_str()), (78, ""));
    assert_eq!(ran.err, "wandb-credd: nothing here vouches for you\n");
    assert!(!home.config().exists());
}

#[test]
fn check_is_the_daemons_check() {
    let home = Home::with(r#"echo "$*"; exit 78"#);
    let ran = home.run(&["check"]);
    assert_eq!((ran.code, ran.out.as_str()), (78, "check\n"));
    let missing = crate::ran(&mut bare(home.folder.path(), &["check"]));
    assert_eq!(missing.code, 69);
    assert!(missing.err.contains("cannot run /nonexistent/wandb-credd: No such file"), "{}", missing.err);
}

#[test]
fn completions_are_scripts_their_shells_accept() {
    let home = tempfile::tempdir().expect("temp dir");
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let script = ran(&mut bare(home.path(), &["completions", shell]));
        assert_eq!(script.code, 0, "{shell}");
        assert!(script.out.contains("WANDB_CRED_COMPLETE"), "{shell} does not ask us");
        let file = home.path().join(shell);
        std::fs::write(&file, script.out).expect("written");
        // Only where that shell is installed; bash always is where these tests run.
        if let Ok(output) = std::process::Command::new(shell).arg("-n").arg(&file).output() {
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[path = "../../examples/man.rs"]
#[expect(dead_code, reason = "its main is not for tests")]
mod man;

#[test]
fn the_committed_manual_pages_are_those_of_this_command_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    for (name, page) in man::pages().expect("rendered") {
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(committed == page, "man/{name} is stale; run: cargo run --example man -- man");
    }
}

/// A subcommand that the daemon's program runs, with standard output as given.
fn daemon_program(home: &Home, arguments: &[&str], stdout: impl Into<std::process::Stdio>) -> Ran {
    let jwt = home.folder.path().join("jwt");
    std::fs::write(&jwt, "a.b.c").expect("written");
    std::fs::create_dir_all(home.config().parent().expect("a folder")).expect("made");
    let config = format!("[profile.p.provider.file]\npath = \"{}\"\n", jwt.display());
    std::fs::write(home.config(), config).expect("written");
    let child = bare(home.folder.path(), arguments)
        .env("WANDB_CREDD", env!("CARGO_BIN_EXE_wandb-credd"))
        .env("WANDB_CRED_CONFIG", home.config())
        .env("WANDB_IDENTITY_TOKEN_FILE", jwt)
        .stdout(stdout)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    crate::fake_daemon::of(child.wait_with_output().expect("ends"))
}

#[test]
fn the_daemons_program_ends_quietly_when_its_reader_goes_away() {
    let home = Home::with("exit 1");
    // The profile that does not exist keeps the doctor off the network.
    for (arguments, code) in
        [(&["check"][..], 0), (&["init", "--dry-run"], 0), (&["doctor", "--profile", "nobody"], 78)]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ran = daemon_program(&home, arguments, writer);
        assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_daemons_program_says_when_its_output_could_not_be_written() {
    let home = Home::with("exit 1");
    for arguments in [&["check"][..], &["init", "--dry-run"], &["doctor", "--profile", "nobody"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("exists on Linux");
        let ran = daemon_program(&home, arguments, full);
        assert_eq!(ran.code, 74, "{arguments:?}: {}", ran.err);
        assert!(
            ran.err.starts_with("wandb-credd: cannot write to standard output: No space left"),
            "{arguments:?}: {}",
            ran.err
        );
    }
}

#[test]
fn init_says_that_a_token_file_is_not_there_and_takes_the_audience() {
    let home = Home::with("exit 1");
    let ran = ran(bare(home.folder.path(), &["init", "--audience", "acme", "--dry-run"])
        .env("WANDB_CREDD", env!("CARGO_BIN_EXE_wandb-credd"))
        .env("WANDB_IDENTITY_TOKEN_FILE", "/nonexistent/jwt"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("# note: /nonexistent/jwt is not there (yet)\n"), "{}", ran.out);
    assert!(ran.out.contains("\naudience = \"acme\"\n"), "{}", ran.out);
}

/// GitHub makes a token for an audience only.
#[test]
fn init_writes_nothing_that_check_refuses() {
    let home = Home::with("exit 1");
    let init = |more: &[(&str, &str)], arguments: &[&str]| {
        ran(bare(home.folder.path(), &[&["init"], arguments].concat())
            .env("WANDB_CREDD", env!("CARGO_BIN_EXE_wandb-credd"))
            .env("WANDB_CRED_CONFIG", home.config())
            .env("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example/x")
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t")
            .envs(more.iter().copied()))
    };
    let without = init(&[], &[]);
    assert_eq!((without.code, home.config().exists()), (78, false), "{}", without.out);
    assert!(without.err.ends_with("next: wandb-cred init --audience NAME\n"), "{}", without.err);
    let bad_url = init(&[("WANDB_BASE_URL", "http://wandb.example")], &["--audience", "acme"]);
    assert_eq!((bad_url.code, home.config().exists()), (78, false), "{}", bad_url.out);
    assert!(bad_url.err.contains("https"), "{}", bad_url.err);
    assert_eq!(init(&[], &["--audience", "acme"]).code, 0);
    let checked = ran(bare(home.folder.path(), &["check"])
        .env("WANDB_CREDD", env!("CARGO_BIN_EXE_wandb-credd"))
        .env("WANDB_CRED_CONFIG", home.config())
        .env("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example/x")
        .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"));
    assert_eq!(checked.code, 0, "{}", checked.err);
}
