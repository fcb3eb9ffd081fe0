//! `command`: a program that prints the JWT, such as `gcloud auth print-identity-token`.
//!
//! No shell. The program gets this user's environment without what is ours, its own process group, a
//! deadline and a bound on its output; when it overstays, the whole group is killed.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command as Process};
use zeroize::Zeroizing;

use crate::config_types::Seconds;
use crate::error::Error;
use crate::provider::{Context, Provider};
use crate::redact::redact;
use crate::token::IdentityToken;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The program and its arguments. No shell reads them.
    pub argv: Vec<String>,
    /// For one run, as "30s" or "2m"; 30 s unless said otherwise, 100 s at most.
    #[serde(default)]
    pub timeout: Option<Seconds>,
    /// Variables to set for the program, on top of the daemon's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where the token is in JSON output, as "outer.inner"; the usual names are tried when absent.
    #[serde(default)]
    pub field: Option<String>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Command, Error> {
        if self.argv.first().is_none_or(|program| program.is_empty()) {
            return Err(Error::misconfigured(
                "provider command: argv is empty; give the program and its arguments",
            ));
        }
        let timeout = self.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            return Err(Error::misconfigured(format!(
                "provider command: timeout must be between 1s and {}s",
                MAX_TIMEOUT.as_secs()
            )));
        }
        Ok(Command { argv: self.argv, timeout, env: self.env, field: self.field, cx })
    }
}

pub struct Command {
    argv: Vec<String>,
    timeout: Duration,
    env: BTreeMap<String, String>,
    field: Option<String>,
    cx: Context,
}

#[async_trait]
impl Provider for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let stdout = run(&self.argv, &self.env, self.timeout).await?;
        let program = &self.argv[0];
        let raw = extract(&stdout, self.field.as_deref())
            .map_err(|why| Error::rejected(format!("the output of {program} {why}")))?;
        self.cx.parse(&raw, format_args!("the output of {program}"))
    }
}

/// Runs `argv` to its end and returns what it printed on standard output (at most 128 KiB).
///
/// A program that cannot be started is misconfigured; one that fails, overstays or prints too much is
/// transient, and the tail of its standard error, redacted, is in the message.
pub async fn run(
    argv: &[String],
    env: &BTreeMap<String, String>,
    timeout: Duration,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let program = &argv[0];
    let mut process = Process::new(program);
    process
        .args(&argv[1..])
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for ours in NOT_INHERITED.iter().filter(|name| !env.contains_key(**name)) {
        process.env_remove(ours);
    }
    let child = process.spawn().map_err(|error| {
        Error::misconfigured(format!("cannot run {program}: {error}; check argv[0] and PATH"))
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
                drain_keeping(&mut stderr, &mut complaint, MAX_STDERR),
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
            Err(Error::transient(format!(
                "{program} did not end within {} s and was killed{}",
                timeout.as_secs(),
                tail(&complaint)
            )))
        }
        Ok(None) => {
            group.kill();
            Err(Error::rejected(format!("{program} printed more than {MAX_OUTPUT} bytes and was killed")))
        }
        Ok(Some(Err(error))) => Err(Error::transient(format!("lost track of {program}: {error}"))),
        Ok(Some(Ok(status))) if status.success() => Ok(printed),
        Ok(Some(Ok(status))) => {
            Err(Error::transient(format!("{program} failed ({status}){}", tail(&complaint))))
        }
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

/// Reads to the end, keeping the last `most` bytes: a full pipe must not stop the program.
async fn drain_keeping(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut Vec<u8>,
    most: usize,
) -> Result<(), TooMuch> {
    let mut chunk = [0; 2048];
    while let Ok(n) = from.read(&mut chunk).await
        && n > 0
    {
        into.extend_from_slice(&chunk[..n]);
        if into.len() > most {
            into.drain(..into.len() - most);
        }
    }
    Ok(())
}

fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.drain(..lines.len().saturating_sub(3));
    match redact(&lines.join(" "), 300) {
        empty if empty.is_empty() => String::new(),
        shown => format!(": {shown}"),
    }
}

/// A bare JWT, or JSON that holds one.
fn extract(stdout: &[u8], field: Option<&str>) -> Result<Zeroizing<String>, String> {
    let text = std::str::from_utf8(stdout).map_err(|_| "is not text".to_owned())?.trim();
    if !text.starts_with('{') && field.is_none() {
        return Ok(Zeroizing::new(text.to_owned()));
    }
    let json: serde_json::Value = serde_json::from_str(text).map_err(|_| "is not valid JSON".to_owned())?;
    let found = match field {
        Some(field) => json.pointer(&format!("/{}", field.replace('.', "/"))),
        None => USUAL_FIELDS.iter().find_map(|pointer| json.pointer(pointer)),
    };
    let token = found.and_then(|value| value.as_str()).map(|token| Zeroizing::new(token.to_owned()));
    token.ok_or_else(|| match field {
        Some(field) => format!("is JSON without a string at `{field}`"),
        None => "is JSON without a token in any usual field; set `field` to where it is".to_owned(),
    })
}

/// `id_token` (AIP-4117 executables, OAuth answers), `token`, `access_token`, kubectl's ExecCredential.
const USUAL_FIELDS: [&str; 6] =
    ["/id_token", "/identity_token", "/token", "/access_token", "/status/token", "/value"];

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

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Below the keeper's own deadline for an attempt.
const MAX_TIMEOUT: Duration = Duration::from_secs(100);

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
        run(&argv, &BTreeMap::new(), Duration::from_millis(timeout)).await
    }

    #[tokio::test]
    async fn output_is_returned_and_a_lingering_child_does_not_hold_it_up() {
        let out = sh("sleep 60 & echo token", 5000).await.expect("succeeds");
        assert_eq!(out.as_slice(), b"token\n");
    }

    #[tokio::test]
    async fn failure_shows_redacted_stderr() {
        let error = sh("echo 'no session for eyJhbGciOiJSUzI1NiJ9.e30.x' >&2; exit 3", 5000).await;
        let message = error.expect_err("fails").to_string();
        assert!(
            message.contains("exit status: 3") && message.contains("no session for [redacted]"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn overstaying_kills_the_whole_group() {
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
        let error = run(&argv, &BTreeMap::new(), DEFAULT_TIMEOUT).await.expect_err("cannot start");
        assert!((error).kind == Kind::Misconfigured, "{error:?}");
    }

    #[test]
    fn tokens_are_found_bare_and_in_json() {
        let at = |text: &str, field| extract(text.as_bytes(), field).map(|token| token.to_string());
        assert_eq!(at(" a.b.c \n", None).as_deref(), Ok("a.b.c"));
        assert_eq!(at(r#"{"status":{"token":"t"}}"#, None).as_deref(), Ok("t"));
        assert_eq!(at(r#"{"x":{"y":"t"}}"#, Some("x.y")).as_deref(), Ok("t"));
        assert!(at(r#"{"x":1}"#, None).is_err());
        assert!(at("{", None).is_err());
    }
}
