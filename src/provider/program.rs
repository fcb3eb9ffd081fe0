//! Runs a program for the token or the credentials that it prints.
//!
//! No shell. The program gets this user's environment without what is ours, its own process group, a
//! deadline and a bound on its output; if it takes too long, the whole group is killed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use crate::error::{Error, ProgramFault, Reason};
use crate::process;
use crate::redact::redact;

/// What a program that succeeded has written.
pub(crate) struct Output {
    /// On standard output; at most 128 KiB.
    pub(crate) printed: Zeroizing<Vec<u8>>,
    stderr: Zeroizing<Vec<u8>>,
}

impl Output {
    /// Adds to an error about the output what the program said on standard error: some fail with status 0.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match summary(&self.stderr) {
            empty if empty.is_empty() => error,
            said => error.hint(format_args!("its standard error says: {said}")),
        }
    }
}

/// Runs `argv` to its end.
///
/// A program that cannot be started is misconfigured, unless the system lacks something just now; one that fails or
/// takes too long is transient; one that prints too much is refused. The message has the gist of its standard error,
/// redacted.
pub(crate) async fn run(
    argv: &[String],
    env: &BTreeMap<String, String>,
    timeout: Duration,
) -> Result<Output, Error> {
    let program = &argv[0];
    let mut process = Command::new(program);
    process
        .args(&argv[1..])
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for name in NOT_INHERITED.iter().filter(|name| !env.contains_key(**name)) {
        process.env_remove(name);
    }
    let fault = |fault| Reason::Program { program: program.clone(), fault };
    let child = process.spawn().map_err(|error| {
        if process::may_start_later(&error) {
            let message = format!("cannot run {program} just now: {error}");
            return Error::transient(message).because(fault(ProgramFault::NotStarted));
        }
        let message = format!("cannot run {program}: {error}; check argv[0] and PATH");
        let fault = fault(match error.kind() {
            ErrorKind::NotFound => ProgramFault::NotFound,
            ErrorKind::PermissionDenied => ProgramFault::NotExecutable,
            _ => ProgramFault::NotStarted,
        });
        Error::misconfigured(message).because(fault)
    })?;
    let mut group = Group(child);
    let mut stdout = group.0.stdout.take().expect("stdout is piped");
    let mut stderr = group.0.stderr.take().expect("stderr is piped");

    let (mut printed, mut complaint) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    let outcome = tokio::time::timeout(timeout, async {
        let reading = async {
            // Ends at once when there is too much: the program may never end by itself.
            tokio::try_join!(
                read_bounded(&mut stdout, &mut printed, MAX_OUTPUT),
                drain(&mut stderr, &mut complaint, MAX_STDERR),
            )
        };
        tokio::pin!(reading);
        // A background child may keep the pipes open after the program has ended: wait for it only a little.
        tokio::select! {
            read = &mut reading => match read {
                Ok(_) => Some(group.0.wait().await),
                Err(TooMuch) => None,
            },
            status = group.0.wait() => match tokio::time::timeout(LINGER, &mut reading).await {
                Ok(Err(TooMuch)) => None,
                _ => Some(status),
            },
        }
    })
    .await;
    match outcome {
        Err(_) => {
            group.kill();
            let message = format!(
                "{program} did not end within {} s and was killed{}",
                timeout.as_secs(),
                said(&complaint)
            );
            Err(Error::transient(message).because(fault(ProgramFault::TimedOut)))
        }
        Ok(None) => {
            group.kill();
            let message =
                format!("{program} printed more than {MAX_OUTPUT} bytes and was killed{}", said(&complaint));
            Err(Error::rejected(message).because(fault(ProgramFault::TooMuchOutput)))
        }
        Ok(Some(Err(error))) => Err(Error::transient(format!("lost track of {program}: {error}"))
            .because(fault(ProgramFault::Killed))),
        Ok(Some(Ok(status))) if status.success() => Ok(Output { printed, stderr: complaint }),
        Ok(Some(Ok(status))) => {
            let message = format!("{program} failed ({status}){}", said(&complaint));
            Err(Error::transient(message).because(fault(ended(status))))
        }
    }
}

fn ended(status: ExitStatus) -> ProgramFault {
    match (status.code(), status.signal()) {
        (Some(status), _) => ProgramFault::Exit { status },
        _ => ProgramFault::Killed,
    }
}

/// Kills the whole process group unless the program ended by itself, also when the future is dropped.
struct Group(Child);

impl Group {
    fn kill(&mut self) {
        if let Some(pid) = self.0.id().and_then(|id| Pid::from_raw(id as i32)) {
            // An error means that the group is gone already.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // `id` is None once the child was waited for: then nothing is killed.
        self.kill();
    }
}

/// More output than a token can have.
struct TooMuch;

/// Reads to the end, or to one byte more than `most`.
async fn read_bounded(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut Vec<u8>,
    most: usize,
) -> Result<(), TooMuch> {
    // Reserved at once, so that no half-grown copy of a token is left behind in freed memory.
    into.reserve(most + 1);
    let _ = from.take(most as u64 + 1).read_to_end(into).await;
    if into.len() > most { Err(TooMuch) } else { Ok(()) }
}

/// Reads to the end, keeping the first and the last `most` bytes: a full pipe would stop the program.
async fn drain(from: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>, most: usize) -> Result<(), TooMuch> {
    let mut chunk = [0; 2048];
    while let Ok(n) = from.read(&mut chunk).await
        && n > 0
    {
        into.extend_from_slice(&chunk[..n]);
        if into.len() > 2 * most {
            into.drain(most..into.len() - most);
        }
    }
    Ok(())
}

/// The gist of standard error, to follow a statement.
pub fn said(stderr: &[u8]) -> String {
    match summary(stderr) {
        empty if empty.is_empty() => empty,
        summary => format!(": {summary}"),
    }
}

/// The lines that call themselves errors; else the first line and the last: usage texts and stack traces are long.
fn summary(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_error = |line: &&&str| {
        let start = line.trim_start_matches('[').get(..5).unwrap_or_default();
        start.eq_ignore_ascii_case("error") || start.eq_ignore_ascii_case("fatal")
    };
    let mut chosen: Vec<&str> = lines.iter().filter(is_error).take(3).copied().collect();
    if chosen.is_empty() {
        chosen.extend(lines.first());
        chosen.extend(lines.last().filter(|_| lines.len() > 1));
    }
    redact(&chosen.join(" "), 300)
}

/// The service manager's channels are for the daemon alone; a W&B key has no business in a provider.
const NOT_INHERITED: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WANDB_API_KEY",
];

/// How long pipes may stay open after the program has ended.
const LINGER: Duration = Duration::from_millis(500);

const MAX_OUTPUT: usize = 128 * 1024;
const MAX_STDERR: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    async fn sh(script: &str, timeout: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let output = run(&argv, &BTreeMap::new(), Duration::from_millis(timeout)).await;
        output.map(|output| output.printed)
    }

    #[test]
    fn errors_and_the_first_line_are_the_gist_of_standard_error() {
        for (stderr, gist) in [
            ("", ""),
            ("one\n", "one"),
            ("first\nsecond\nusage: a\nusage: b\nlast", "first last"),
            (
                "WARNING: old\nERROR: (gcloud) no account\nTo fix:\n  run x\n  run y\n  run z",
                "ERROR: (gcloud) no account",
            ),
            ("[error] a\nx\nError: b\nfatal: c\nerror: d", "[error] a Error: b fatal: c"),
            (
                "Traceback (most recent call last):\n  File x\nKeyError: 'y'",
                "Traceback (most recent call last): KeyError: 'y'",
            ),
        ] {
            assert_eq!(summary(stderr.as_bytes()), gist);
        }
    }

    #[tokio::test]
    async fn a_program_that_is_being_written_is_transient() {
        use std::os::unix::fs::OpenOptionsExt as _;
        let dir = tempfile::tempdir().expect("temp dir");
        let program = dir.path().join("helper");
        let writer =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&program);
        let _writer = writer.expect("created");
        let argv = [program.to_str().expect("plain").to_owned()];
        let error = run(&argv, &BTreeMap::new(), Duration::from_secs(5)).await.err().expect("busy");
        assert_eq!(error.kind, Kind::Transient, "{error}");
        let fault = ProgramFault::NotStarted;
        assert_eq!(error.reason, Reason::Program { program: argv[0].clone(), fault });
    }

    #[tokio::test]
    async fn the_first_and_the_last_of_a_long_complaint_are_kept() {
        let error =
            sh("echo first >&2; seq 100000 >&2; echo last >&2; exit 1", 5000).await.expect_err("fails");
        assert!(error.message.ends_with(": first last"), "{error}");
    }

    #[tokio::test]
    async fn output_is_returned_and_a_lingering_child_does_not_hold_it_up() {
        let out = sh("sleep 60 & echo token", 5000).await.expect("succeeds");
        assert_eq!(out.as_slice(), b"token\n");
    }

    #[tokio::test]
    async fn failure_shows_redacted_stderr() {
        let error = sh("echo 'no session for eyJhbGciOiJSUzI1NiJ9.e30.x' >&2; exit 3", 5000).await;
        let error = error.expect_err("fails");
        let fault = ProgramFault::Exit { status: 3 };
        assert_eq!(error.reason, Reason::Program { program: "/bin/sh".to_owned(), fault });
        let message = error.message;
        assert!(
            message.contains("exit status: 3") && message.contains("no session for [redacted]"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed_with_its_whole_group() {
        let dir = tempfile::tempdir().expect("temp dir");
        let pidfile = dir.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", pidfile.display());
        let error = sh(&script, 500).await.expect_err("killed");
        assert!(error.to_string().contains("did not end"), "{error}");
        let pid: i32 = std::fs::read_to_string(&pidfile).expect("written").trim().parse().expect("a pid");
        let pid = Pid::from_raw(pid).expect("not zero");
        for _ in 0..500 {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            let gone = rustix::process::test_kill_process(pid).is_err();
            if gone || stat.is_ok_and(|stat| stat.contains(") Z ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the grandchild outlived its group");
    }

    #[tokio::test]
    async fn endless_output_is_cut() {
        let error = sh("yes", 5000).await.expect_err("too much");
        assert!(error.to_string().contains("more than"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_misconfigured() {
        let argv = ["/nonexistent/program".to_owned()];
        let error = run(&argv, &BTreeMap::new(), Duration::from_secs(5)).await.err().expect("cannot start");
        assert_eq!(error.kind, Kind::Misconfigured);
        let program = argv[0].clone();
        assert_eq!(error.reason, Reason::Program { program, fault: ProgramFault::NotFound });
    }
}
