//! The daemon that is started on demand: one for all who need the same, for as long as somebody needs it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::setup::{COMMAND, DAEMON, Home, Ran, Sandbox, now, ran, until};

/// Where daemons on demand are: next to the place that `WANDB_CRED_SOCKET` names.
pub(crate) fn folders(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.path("run")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// A command that waits until the file `go` is there.
fn waiting(home: &Home, go: &Path) -> Command {
    let script = format!(
        "cat \"$WANDB_IDENTITY_TOKEN_FILE\" \"$WANDB_CREDENTIALS_FILE\" > {0}.$$.tmp && mv {0}.$$.tmp {0}.$$.ready; \
         while [ ! -e {0} ]; do sleep 0.02; done; cat \"$WANDB_CREDENTIALS_FILE\" > /dev/null",
        go.display()
    );
    let mut command = home.program(COMMAND, &["exec", "--", "sh", "-c", &script]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn ready(home: &Home) -> usize {
    let entries = fs::read_dir(home.path("")).expect("there").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".ready")).count()
}

fn end(job: Child) -> Ran {
    Ran::of(&job.wait_with_output().expect("ends"))
}

/// Has the daemon leave soon after its last job.
pub(crate) fn with_grace(home: &Home, grace: &str) -> PathBuf {
    let script = home.path("wandb-credd");
    let text = format!(
        "#!/bin/bash\nargs=(\"$@\")\nfor i in \"${{!args[@]}}\"; do [ \"${{args[i]}}\" = --until-unneeded ] && args[i+1]={grace}; done\n\
         exec {DAEMON} \"${{args[@]}}\"\n"
    );
    fs::write(&script, text).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    script
}

fn daemon_pid(home: &Home) -> u32 {
    let status = home.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.out).expect("json");
    u32::try_from(status["pid"].as_u64().expect("a pid")).expect("a pid")
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn forty_eight_jobs_at_once_share_a_daemon_and_an_exchange() {
    let sandbox = Sandbox::start(&["--exchange-delay", "200"]);
    let home = Home::new(&sandbox.profile("work"));
    let began = now();
    let jobs: Vec<_> = (0..48)
        .map(|_| {
            home.program(COMMAND, &["exec", "--", "true"]).stderr(Stdio::piped()).spawn().expect("starts")
        })
        .collect();
    for job in jobs {
        let ended = end(job);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    }
    eprintln!("48 jobs: {} ms", (now() - began).as_millis());
    assert_eq!(sandbox.exchanges(), 1);
    assert_eq!(folders(&home).len(), 1);
}

#[test]
fn it_serves_everybody_and_leaves_nothing_behind() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let credd = with_grace(&home, "200ms");
    let shell = format!("eval \"$({COMMAND} env)\" && test -s \"$WANDB_CREDENTIALS_FILE\"");
    let mut commands: Vec<_> = [&["token"][..], &["refresh"], &["exec", "--", "true"]]
        .map(|arguments| home.program(COMMAND, arguments))
        .into();
    commands.push(home.program("sh", &["-c", &shell]));
    for mut command in commands {
        let answer = ran(command.env("WANDB_CREDD", &credd));
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{command:?}");
        let folder = folders(&home).pop().expect("a daemon's folder");
        assert_eq!(folder.metadata().expect("there").permissions().mode() & 0o777, 0o700);
        until("it leaves", 20, || (!folder.exists()).then_some(()));
    }
    until("nothing is left", 20, || {
        fs::read_dir(home.path("run")).expect("there").next().is_none().then_some(())
    });
}

#[test]
fn status_starts_none_and_says_that_one_starts_when_needed() {
    let home = Home::new("");
    let status = home.run(&["status"]);
    assert_eq!(status.code, Some(69));
    assert!(status.err.contains("start one when they need it"), "{}", status.err);
    assert!(!home.path("run").exists());
}

#[test]
fn a_second_job_keeps_it_when_the_first_is_killed() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let credd = with_grace(&home, "50ms");
    let go = home.path("go");
    let start = || waiting(&home, &go).env("WANDB_CREDD", &credd).spawn().expect("starts");
    let (mut first, second) = (start(), start());
    until("both have their files", 20, || (ready(&home) == 2).then_some(()));
    first.kill().expect("it runs");
    first.wait().expect("it ends");
    let folder = folders(&home).pop().expect("a folder");
    std::thread::sleep(Duration::from_millis(300));
    assert!(folder.join("profiles/work/credentials.json").exists());
    fs::write(&go, "").expect("written");
    assert_eq!(end(second).code, Some(0));
    until("it leaves", 20, || (!folder.exists()).then_some(()));
    assert_eq!(sandbox.exchanges(), 1);
}

#[test]
fn a_child_that_outlives_its_job_keeps_its_files() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let credd = with_grace(&home, "50ms");
    let go = home.path("go");
    let script = format!("(while [ ! -e {} ]; do sleep 0.02; done) > /dev/null 2>&1 &", go.display());
    let mut job = home.program(COMMAND, &["exec", "--", "sh", "-c", &script]);
    assert_eq!(ran(job.env("WANDB_CREDD", &credd)).code, Some(0));
    let folder = folders(&home).pop().expect("a folder");
    let until_left = now() + Duration::from_millis(500);
    while now() < until_left {
        assert!(folder.join("profiles/work/credentials.json").exists());
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::write(&go, "").expect("written");
    until("it leaves", 20, || (!folder.exists()).then_some(()));
}

#[test]
fn a_job_of_a_moment_leaves_no_files_until_the_grace_is_over() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let credd = with_grace(&home, "30s");
    for _ in 0..8 {
        // The second comes while the files of the first are being removed, and may be gone before anybody looks.
        for _ in 0..2 {
            let ended = ran(home.program(COMMAND, &["exec", "--", "true"]).env("WANDB_CREDD", &credd));
            assert_eq!(ended.code, Some(0), "{}", ended.err);
        }
        let file = folders(&home).pop().expect("a folder").join("profiles/work/identity-token");
        until("its files are gone", 8, || (!file.exists()).then_some(()));
    }
    kill_process(Pid::from_raw(daemon_pid(&home) as i32).expect("a pid"), Signal::TERM).expect("sent");
    until("it leaves", 20, || folders(&home).is_empty().then_some(()));
}

#[test]
fn who_uses_the_files_is_told() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let credd = with_grace(&home, "50ms");
    let go = home.path("go");
    let script = format!("(while [ ! -e {} ]; do sleep 0.02; done) > /dev/null 2>&1 &", go.display());
    let job = waiting(&home, &go).env("WANDB_CREDD", &credd).spawn().expect("starts");
    until("it has its files", 20, || (ready(&home) == 1).then_some(()));
    let mut second = home.program(COMMAND, &["exec", "--", "sh", "-c", &script]);
    assert_eq!(ran(second.env("WANDB_CREDD", &credd)).code, Some(0));
    let list = || {
        let status = home.run(&["status", "--jobs", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status.out).expect("json");
        status["job_list"].as_array().expect("a list").clone()
    };
    let jobs = until("the second has ended", 20, || Some(list()).filter(|jobs| jobs.len() == 1));
    assert_eq!((&jobs[0]["pid"], &jobs[0]["command"]), (&job.id().into(), &"sh".into()), "{jobs:?}");
    assert_eq!((&jobs[0]["by"], &jobs[0]["profile"]), (&"registered".into(), &"work".into()));
    assert_eq!(jobs[0]["uid"], rustix::process::geteuid().as_raw());
    assert!(jobs[0]["cgroup"].is_string() && jobs[0]["since"].is_string(), "{jobs:?}");

    // The first one is killed: its children go on, and so does the one of the second.
    kill_process(Pid::from_raw(job.id() as i32).expect("a pid"), Signal::KILL).expect("it runs");
    assert_eq!(end(job).code, None);
    let jobs = until("what is left is adopted", 20, || Some(list()).filter(|jobs| !jobs.is_empty()));
    assert!(jobs.iter().all(|job| job["by"] == "adopted"), "{jobs:?}");
    fs::write(&go, "").expect("written");
    until("it leaves", 20, || folders(&home).is_empty().then_some(()));
}

#[test]
fn a_signal_ends_it_only_after_its_jobs() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let go = home.path("go");
    let job = waiting(&home, &go).spawn().expect("starts");
    until("it has its files", 20, || (ready(&home) == 1).then_some(()));
    let folder = folders(&home).pop().expect("a folder");
    let pid = daemon_pid(&home);
    kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::TERM).expect("it runs");
    assert_eq!(home.run(&["token"]).code, Some(0));
    assert!(runs(pid));
    fs::write(&go, "").expect("written");
    assert_eq!(end(job).code, Some(0), "its files were there to the end");
    until("it leaves at once, without a grace", 5, || (!folder.exists() && !runs(pid)).then_some(()));
}

#[test]
fn one_that_was_killed_is_followed_by_another_that_takes_up_its_jobs() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let go = home.path("go");
    let job = waiting(&home, &go).spawn().expect("starts");
    until("it has its files", 20, || (ready(&home) == 1).then_some(()));
    let pid = daemon_pid(&home);
    kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::KILL).expect("it runs");
    until("it is gone", 20, || home.run(&["status"]).code.filter(|code| *code == 69));
    assert_eq!(home.run(&["token"]).code, Some(0));
    let status: serde_json::Value = serde_json::from_str(&home.run(&["status", "--json"]).out).expect("json");
    assert_eq!(status["profiles"][0]["jobs"], 1);
    assert_eq!(sandbox.exchanges(), 1, "it took over the token too");
    fs::write(&go, "").expect("written");
    assert_eq!(end(job).code, Some(0));
}

#[test]
fn what_a_killed_one_left_is_removed_by_whoever_starts_the_next() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    assert_eq!(home.run(&["token"]).code, Some(0));
    let left = folders(&home).pop().expect("a folder");
    kill_process(Pid::from_raw(daemon_pid(&home) as i32).expect("a pid"), Signal::KILL).expect("it runs");
    until("it is gone", 20, || home.run(&["status"]).code.filter(|code| *code == 69));
    // That of another machine, and one that lives.
    let foreign = home.path("run/user-0000000000000000");
    fs::create_dir(&foreign).expect("made");
    let lives = |share: &str| ran(home.program(COMMAND, &["token"]).env("WANDB_CRED_SHARE", share));
    assert_eq!(lives("a").code, Some(0));
    assert!(!left.exists());
    assert_eq!(lives("b").code, Some(0));
    assert!(foreign.exists());
    assert_eq!(folders(&home).len(), 3);
}

#[test]
fn starting_and_leaving_at_the_same_moment_never_costs_anybody_a_token() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let credd = with_grace(&home, "1ms");
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let script = "cat \"$WANDB_CREDENTIALS_FILE\"";
                    let mut job = home.program(COMMAND, &["exec", "--", "sh", "-c", script]);
                    let ended = ran(job.env("WANDB_CREDD", &credd));
                    if ended.code != Some(0) || !ended.out.contains("access_token") {
                        failed.lock().expect("no panic").push(ended);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{failed:?}");
    until("nothing is left", 20, || folders(&home).is_empty().then_some(()));
}

#[test]
fn two_identities_have_two_daemons() {
    let sandbox = Sandbox::start(&["--subject", "alice", "--subject", "bob"]);
    let mint = |subject: &str| sandbox.control().mint(&format!("audience=sandbox&subject={subject}"));
    let profile = format!(
        "[profile.work]\nbase-url = \"{}\"\naudience = \"sandbox\"\n[profile.work.provider.env]\nvariable = \"MY_JWT\"\n",
        sandbox.url
    );
    let home = Home::new(&profile);
    let read = "cat \"$WANDB_IDENTITY_TOKEN_FILE\"";
    for _ in 0..2 {
        for subject in ["alice", "bob"] {
            let jwt = mint(subject);
            let own = home.path(subject);
            let jwt = fs::read_to_string(&own).unwrap_or_else(|_| {
                fs::write(&own, &jwt).expect("written");
                jwt
            });
            let mut job = home.program(COMMAND, &["exec", "--", "sh", "-c", read]);
            assert_eq!(ran(job.env("MY_JWT", &jwt)).out, jwt, "{subject}");
        }
    }
    assert_eq!(sandbox.exchanges(), 2);
}

#[test]
fn folders_that_cannot_be_used_are_passed_over_with_one_line() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let temp = home.path("temp");
    fs::create_dir(&temp).expect("made");
    let credd = with_grace(&home, "1s");
    let loose = home.path("loose");
    fs::create_dir_all(loose.join("wandb-cred")).expect("made");
    fs::set_permissions(loose.join("wandb-cred"), fs::Permissions::from_mode(0o777)).expect("chmod");
    let file = home.write("file", "");
    let long = home.path(&"x".repeat(90));
    fs::create_dir(&long).expect("made");
    for (name, value, words) in [
        ("XDG_RUNTIME_DIR", home.path("nowhere"), "XDG_RUNTIME_DIR cannot be used"),
        ("XDG_RUNTIME_DIR", loose.clone(), "chmod 700"),
        ("XDG_RUNTIME_DIR", file, "XDG_RUNTIME_DIR cannot be used"),
        ("WANDB_CRED_SOCKET", home.path("nowhere/deep/wandb-cred.sock"), "no daemon answers at"),
        ("WANDB_CRED_SOCKET", long.join("wandb-cred.sock"), "bytes long"),
        ("WANDB_CRED_SOCKET", "relative/s".into(), "must be an absolute path"),
    ] {
        let mut job = home.program(COMMAND, &["exec", "--", "sh", "-c", "echo $WANDB_IDENTITY_TOKEN_FILE"]);
        job.env_remove("WANDB_CRED_SOCKET")
            .env_remove("XDG_RUNTIME_DIR")
            .env("WANDB_CREDD", &credd)
            .env("TMPDIR", &temp)
            .env(name, &value);
        // Not shared with another row, or with /run/user of whoever runs the tests.
        let ended = ran(job.env("WANDB_CRED_SHARE", format!("{name}{}", value.display())));
        assert_eq!(ended.code, Some(0), "{name}={}: {}", value.display(), ended.err);
        assert!(Path::new(ended.out.trim()).is_absolute(), "{}", ended.out);
        assert!(ended.err.contains(words), "{name}={}: {}", value.display(), ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    }
    let mut service = home.program(DAEMON, &["run"]);
    service.env_remove("WANDB_CRED_SOCKET").env("XDG_RUNTIME_DIR", home.path("nowhere/deep"));
    fs::write(home.path("nowhere"), "").expect("written");
    let refused = ran(&mut service);
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(refused.err.contains("XDG_RUNTIME_DIR"), "{}", refused.err);
}

#[test]
fn what_an_ended_job_left_in_the_environment_is_no_identity() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut job = home.program(COMMAND, &["exec", "--", "sh", "-c", "env | grep ^WANDB"]);
    let left = ran(&mut job).out;
    kill_process(Pid::from_raw(daemon_pid(&home) as i32).expect("a pid"), Signal::KILL).expect("it runs");
    until("it is gone", 20, || home.run(&["status"]).code.filter(|code| *code == 69));
    for folder in folders(&home) {
        fs::remove_dir_all(folder).expect("removed");
    }
    let variables = || left.lines().filter_map(|line| line.split_once('='));
    // The same configuration under another name of its profile, and none at all.
    home.write_config(&sandbox.profile("other"));
    let ended = ran(home.program(COMMAND, &["exec", "--", "true"]).envs(variables()));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("left behind by a job that has ended"), "{}", ended.err);
    let mut alone = home.program(COMMAND, &["token"]);
    alone.envs(variables()).env_remove("WANDB_CRED_CONFIG").env("NO_GCE_CHECK", "true");
    let refused = ran(alone.env("AWS_EC2_METADATA_DISABLED", "true"));
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("no identity was found here"), "{}", refused.err);
    let mut doctor = home.program(COMMAND, &["doctor", "--alone", "--json"]);
    doctor
        .envs(variables())
        .env_remove("WANDB_CRED_CONFIG")
        .env_remove("WANDB_CRED_PROFILE")
        .env("NO_GCE_CHECK", "true");
    let looked = ran(doctor.env("AWS_EC2_METADATA_DISABLED", "true"));
    assert!(looked.out.contains("wandb-cred writes itself"), "{}", looked.out);
    let refused = ran(home.program(COMMAND, &["token"]).env("WANDB_CRED_PROFILE", "work"));
    assert_eq!(refused.code, Some(78));
    assert!(refused.err.ends_with("next: unset WANDB_CRED_PROFILE\n"), "{}", refused.err);
}

#[test]
fn offline_runs_start_at_once_and_get_their_files_when_they_come() {
    let mut sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.file_profile("work", Path::new("/nonexistent")));
    let jwt = sandbox.control().mint("audience=sandbox");
    let path = home.write("jwt", &jwt);
    home.write_config(&sandbox.file_profile("work", &path));
    sandbox.stop();
    for (arguments, mode) in [
        (&["exec", "--", "true"][..], "offline"),
        (&["exec", "--", "true"], "dryrun"),
        (&["exec", "--", "true"], "disabled"),
        (&["exec", "--best-effort", "--", "true"], "online"),
    ] {
        let began = now();
        let ended = ran(home.program(COMMAND, arguments).env("WANDB_MODE", mode));
        assert_eq!((ended.code, ended.err.lines().count()), (Some(0), 1), "{mode}: {}", ended.err);
        assert!(now() - began < Duration::from_secs(5), "{mode}");
    }
    let wait =
        "while [ ! -s \"$WANDB_CREDENTIALS_FILE\" ]; do sleep 0.02; done; cat \"$WANDB_IDENTITY_TOKEN_FILE\"";
    let mut job = home.program(COMMAND, &["exec", "--best-effort", "--", "sh", "-c", wait]);
    let job = job.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    sandbox.start_again();
    home.write("jwt", &sandbox.control().mint("audience=sandbox"));
    assert_eq!(end(job).code, Some(0));
    // Not even a configuration is needed.
    home.write_config("not a configuration");
    let ended = ran(home.program(COMMAND, &["exec", "--", "echo", "ran"]).env("WANDB_MODE", "offline"));
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "ran\n"), "{}", ended.err);
}

/// Runs a script as the first process of a container: PID 1 of a namespace of its own. `None` where that is forbidden.
fn in_a_container(home: &Home, arguments: &[&str]) -> Option<Command> {
    let namespace = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    if !Command::new("unshare")
        .args(namespace)
        .arg("true")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("skipped: unshare(1) cannot make a PID namespace here");
        return None;
    }
    let mut command = home.program("unshare", &namespace);
    command.arg(COMMAND).args(arguments);
    Some(command)
}

#[test]
fn as_the_first_process_exec_reaps_forwards_and_cleans_up() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let wait = "import os, sys\ntry:\n    while True: os.wait()\nexcept ChildProcessError: sys.exit(7)";
    let Some(mut command) = in_a_container(&home, &["exec", "--", "python3", "-c", wait]) else { return };
    let ended = ran(&mut command);
    assert_eq!((ended.code, ended.err.as_str()), (Some(7), ""));
    assert_eq!(folders(&home), [] as [PathBuf; 0]);

    let script = "trap 'exit 9' TERM; (sleep 0.1 &) ; kill -TERM 1; while :; do sleep 0.05; done";
    let ended = ran(&mut in_a_container(&home, &["exec", "--", "sh", "-c", script]).expect("as above"));
    assert_eq!(ended.code, Some(9), "{}", ended.err);
    let ended =
        ran(&mut in_a_container(&home, &["exec", "--", "sh", "-c", "kill -KILL $$"]).expect("as above"));
    assert_eq!(ended.code, Some(137), "{}", ended.err);
    let ended = ran(&mut in_a_container(&home, &["exec", "--private", "--", "true"]).expect("as above"));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(folders(&home), [] as [PathBuf; 0]);
}

#[test]
fn a_command_that_adopts_orphans_does_not_adopt_the_daemon() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let wait = "import os\ntry:\n    while True: os.wait()\nexcept ChildProcessError: print('none')";
    let adopt = format!(
        "import ctypes, os\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\nos.execv({COMMAND:?}, ['wandb-cred', 'exec', '--', 'python3', '-c', {wait:?}])"
    );
    let ended = ran(&mut home.program("python3", &["-c", &adopt]));
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "none\n"), "{}", ended.err);
}

#[test]
fn nobody_waits_for_the_end_of_what_it_inherited() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    // The pipes of standard output and error end with the command, not with the daemon.
    let began = now();
    assert_eq!(ran(&mut home.program(COMMAND, &["exec", "--", "true"])).code, Some(0));
    assert!(now() - began < Duration::from_secs(8), "shorter than the daemon's grace");
    assert!(runs(daemon_pid(&home)));
}
