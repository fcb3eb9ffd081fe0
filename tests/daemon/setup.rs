//! What each test starts: a sandbox, a home of its own, a daemon, the command. Whatever is started ends with
//! its owner.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use wandb_cred::clock::Clock;

use crate::talk::{self, Answer};

pub(crate) const SANDBOX: &str = env!("CARGO_BIN_EXE_wandb-cred-sandbox");
pub(crate) const DAEMON: &str = env!("CARGO_BIN_EXE_wandb-credd");
pub(crate) const COMMAND: &str = env!("CARGO_BIN_EXE_wandb-cred");

/// Time since boot: for measuring.
pub(crate) fn now() -> Duration {
    Clock::system().now().boot
}

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "{what}: not within {seconds} s");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A stand-in identity provider and W&B server.
pub(crate) struct Sandbox {
    child: Child,
    pub(crate) url: String,
    arguments: Vec<String>,
}

impl Sandbox {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (child, url) = serve(&arguments);
        Self { child, url, arguments }
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// On the same port, with a new key and no memory.
    pub(crate) fn start_again(&mut self) {
        let port = self.url.rsplit(':').next().expect("a port").to_owned();
        let arguments: Vec<_> = self.arguments.iter().cloned().chain(["--port".to_owned(), port]).collect();
        self.child = serve(&arguments).0;
    }

    /// Keeps what is needed to steer it from elsewhere.
    pub(crate) fn control(&self) -> Control {
        Control { address: self.url.trim_start_matches("http://").to_owned() }
    }

    pub(crate) fn exchanges(&self) -> u64 {
        self.control().exchanges()
    }

    /// `[profile.NAME]` with a command that asks this sandbox for a JWT.
    pub(crate) fn profile(&self, name: &str) -> String {
        format!(
            "[profile.{name}]\nbase-url = \"{0}\"\naudience = \"sandbox\"\n\
             [profile.{name}.provider.command]\nargv = [\"{SANDBOX}\", \"mint\", \"--url\", \"{0}\"]\n",
            self.url
        )
    }

    /// The same with a file.
    pub(crate) fn file_profile(&self, name: &str, path: &Path) -> String {
        format!(
            "[profile.{name}]\nbase-url = \"{}\"\naudience = \"sandbox\"\n\
             [profile.{name}.provider.file]\npath = \"{}\"\n",
            self.url,
            path.display()
        )
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(arguments: &[String]) -> (Child, String) {
    let mut command = Command::new(SANDBOX);
    command.arg("serve").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the sandbox starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let url = line.strip_prefix("ready ").expect("ready").trim().to_owned();
    (child, url)
}

/// Steers a sandbox, and looks into it.
#[derive(Clone)]
pub(crate) struct Control {
    address: String,
}

impl Control {
    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> std::io::Result<Answer> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        talk::ask(stream, method, target, &[], body)
    }

    fn done(&self, method: &str, target: &str, body: &str) -> String {
        let answer = self.ask(method, target, body).expect("the sandbox answers");
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        answer.text()
    }

    pub(crate) fn faults(&self, faults: &Value) {
        self.done("POST", "/sandbox/faults", &faults.to_string());
    }

    pub(crate) fn settings(&self, change: &Value) {
        self.done("POST", "/sandbox/settings", &change.to_string());
    }

    pub(crate) fn stats(&self) -> Value {
        serde_json::from_str(&self.done("GET", "/sandbox/stats", "")).expect("json")
    }

    pub(crate) fn exchanges(&self) -> u64 {
        self.stats()["exchanges"]["total"].as_u64().expect("a number")
    }

    pub(crate) fn mint(&self, query: &str) -> String {
        self.done("GET", &format!("/mint?{query}"), "")
    }

    /// Whether the server takes this access token; `None` if it does not say.
    pub(crate) fn takes(&self, token: &str) -> Option<bool> {
        let stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        let bearer = format!("Bearer {token}");
        let body = r#"{"query":"query Viewer { viewer { id } }"}"#;
        let answer = talk::ask(stream, "POST", "/graphql", &[("Authorization", &bearer)], body).ok()?;
        Some(answer.status == 200)
    }
}

/// A folder with a configuration, a socket's place and nothing else of the machine's.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("wc").tempdir().expect("temp dir");
        let home = Self { folder };
        home.write_config(config);
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/s")
    }

    pub(crate) fn sdk_file(&self, profile: &str, name: &str) -> PathBuf {
        self.path("run/profiles").join(profile).join(name)
    }

    pub(crate) fn write_config(&self, text: &str) {
        self.write("config.toml", text);
    }

    /// A private file, in place at once.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let fresh = self.path(&format!("{}.new", name.replace('/', "_")));
        fs::write(&fresh, text).expect("written");
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::rename(&fresh, &path).expect("renamed");
        path
    }

    /// One of our programs, with this home as its only environment.
    pub(crate) fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").expect("PATH"));
        command.env("HOME", self.folder.path()).env("XDG_RUNTIME_DIR", self.path("xdg"));
        command.env("WANDB_CRED_CONFIG", self.config()).env("WANDB_CRED_SOCKET", self.socket());
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.program(COMMAND, arguments))
    }

    /// A daemon that does not come up: its exit code and what it said.
    pub(crate) fn refused(&self) -> Ran {
        let mut child = self
            .program(DAEMON, &["run"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let status = until("the daemon refuses", 10, || child.try_wait().expect("a child"));
        let output = child.wait_with_output().expect("output");
        Ran { code: status.code(), ..Ran::of(&output) }
    }

    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_of(&mut self.program(DAEMON, &["run", "--log-level", "debug"]))
    }

    pub(crate) fn daemon_of(&self, command: &mut Command) -> Daemon {
        let daemon = self.launch(command);
        until("the daemon answers", 20, || daemon.try_get("/healthz").ok());
        daemon
    }

    /// The same without waiting for it.
    pub(crate) fn launch(&self, command: &mut Command) -> Daemon {
        let log = self.path("daemon.log");
        let open = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(open).spawn().expect("the daemon starts");
        Daemon { child, socket: self.socket(), log }
    }

    /// The same with our ends of its standard input and output.
    pub(crate) fn launch_with_pipes(&self, command: &mut Command) -> (Daemon, ChildStdin, ChildStdout) {
        let log = self.path("daemon.log");
        let open = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(open);
        let mut child = command.spawn().expect("the daemon starts");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        (Daemon { child, socket: self.socket(), log }, input, output)
    }
}

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn try_get(&self, target: &str) -> std::io::Result<Answer> {
        self.ask("GET", target, "")
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.try_get(target).expect("the daemon answers")
    }

    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> std::io::Result<Answer> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        talk::ask(stream, method, target, &[], body)
    }

    /// The access token that is served now.
    pub(crate) fn token(&self, query: &str) -> String {
        let answer = self.get(&format!("/v1/token?{query}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().expect("a token").to_owned()
    }

    /// One profile as `/v1/status` has it.
    pub(crate) fn profile(&self, name: &str) -> Value {
        let status = self.get("/v1/status").json();
        let profiles = status["profiles"].as_array().expect("profiles");
        profiles.iter().find(|profile| profile["name"] == name).expect("the profile").clone()
    }

    /// One number of `/metrics`.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").text();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {line} in {text}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    pub(crate) fn ended(&mut self, seconds: u64) -> ExitStatus {
        until("the daemon ends", seconds, || self.child.try_wait().expect("a child"))
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    pub(crate) fn proc(&self, name: &str) -> String {
        let bytes = fs::read(format!("/proc/{}/{name}", self.pid())).expect("it runs");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Open file descriptors.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            for line in tail.iter().rev() {
                eprintln!("daemon: {line}");
            }
        }
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    Ran::of(&command.output().expect("the program starts"))
}

/// Lets this process open as many files as it may: tests hold thousands of connections.
pub(crate) fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(65_536).min(65_536);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    most
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn median(samples: &mut [Duration]) -> Duration {
    assert!(!samples.is_empty(), "nothing was measured");
    samples.sort_unstable();
    samples[samples.len() / 2]
}
