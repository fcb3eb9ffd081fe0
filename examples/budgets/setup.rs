//! What is measured: a sandbox, and daemons that get their tokens from it, in a folder that is deleted at the end.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;

use crate::Result;
use crate::baseline::Baseline;
use crate::tls::TlsProxy;

pub(crate) struct Setup {
    bin: PathBuf,
    pub(crate) dir: tempfile::TempDir,
    /// `127.0.0.1:PORT` of the sandbox.
    sandbox: String,
    _sandbox: Running,
}

impl Setup {
    pub(crate) fn new(bin: PathBuf) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700))?;
        let ready = dir.path().join("sandbox.url");
        // Long lives, so that no renewal falls due while something else is measured.
        let sandbox = Command::new(bin.join("wandb-cred-sandbox"))
            .args(["serve", "--token-life", "36000", "--jwt-life", "36000", "--ready-file"])
            .arg(&ready)
            .stdout(Stdio::null())
            .spawn()
            .context("wandb-cred-sandbox")?;
        let _sandbox = Running(sandbox);
        until("the sandbox is ready", || std::fs::read_to_string(&ready).is_ok_and(|url| !url.is_empty()))?;
        let url = std::fs::read_to_string(&ready)?;
        let sandbox = url.strip_prefix("http://").context("the sandbox speaks http")?.trim_end_matches('/');
        Ok(Self { bin, dir, sandbox: sandbox.to_owned(), _sandbox })
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Starts a daemon in a folder of its own, without a token. Returns once its socket answers.
    pub(crate) fn daemon(&self, name: &str) -> Result<Daemon> {
        self.start_daemon(name, &format!("http://{}", self.sandbox), None)
    }

    /// The same, for another server.
    pub(crate) fn daemon_of(&self, name: &str, base_url: &str) -> Result<Daemon> {
        self.start_daemon(name, base_url, None)
    }

    /// The same, exchanging over TLS.
    pub(crate) fn tls_daemon(&self, name: &str) -> Result<Daemon> {
        let proxy = TlsProxy::start(&self.sandbox, self.dir.path())?;
        self.start_daemon(name, &proxy.url, Some(&proxy.trusted))
    }

    fn start_daemon(&self, name: &str, base_url: &str, trusted: Option<&Path>) -> Result<Daemon> {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir)?;
        let (config, socket) = (dir.join("config.toml"), dir.join("run/wandb-cred.sock"));
        let mint = self.program("wandb-cred-sandbox");
        std::fs::write(
            &config,
            format!(
                "[profile.bench]\nbase-url = \"{base_url}\"\naudience = \"sandbox\"\n\
                 [profile.bench.provider.command]\nargv = [{mint:?}, \"mint\", \"--url\", \"http://{}\"]\n",
                self.sandbox
            ),
        )?;
        std::fs::set_permissions(&config, PermissionsExt::from_mode(0o600))?;
        let began = Instant::now();
        let mut command = Command::new(self.program("wandb-credd"));
        command.env("WANDB_CRED_CONFIG", &config).env("WANDB_CRED_SOCKET", &socket);
        command.envs(trusted.map(|path| ("SSL_CERT_FILE", path)));
        command.stderr(std::fs::File::create(dir.join("log"))?);
        let running = Running(command.spawn().context("wandb-credd")?);
        let deadline = began + DEADLINE;
        while ask(&socket, "GET", "/healthz", b"").is_err() {
            if Instant::now() > deadline {
                bail!("the daemon {name} does not answer: {}", std::fs::read_to_string(dir.join("log"))?);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(Daemon { started_in: began.elapsed(), socket, running })
    }

    /// Starts a baseline that answers with `body`.
    pub(crate) fn baseline(
        &self,
        baseline: Baseline,
        body: &[u8],
        round: usize,
    ) -> Result<(PathBuf, Running)> {
        let value = baseline.to_possible_value().context("every baseline has a name")?;
        let name = value.get_name();
        let dir = self.dir.path();
        let (socket, file) = (dir.join(format!("{name}-{round}.sock")), dir.join("body"));
        std::fs::write(&file, body)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--baseline", name, "--serve"]).args([&socket, &file]);
        let running = Running(command.spawn()?);
        until("the baseline answers", || UnixStream::connect(&socket).is_ok())?;
        Ok((socket, running))
    }

    /// Sends a request to the sandbox's control routes.
    pub(crate) fn control(&self, method: &str, path: &str, body: &str) -> Result<serde_json::Value> {
        let stream = TcpStream::connect(&self.sandbox)?;
        let answer = exchange(stream, method, path, body.as_bytes())?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// How many exchanges the sandbox has seen.
    pub(crate) fn exchanges(&self) -> Result<u64> {
        let stats = self.control("GET", "/sandbox/stats", "")?;
        stats["exchanges"]["total"].as_u64().context("the sandbox counts exchanges")
    }
}

pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    pub(crate) started_in: Duration,
    pub(crate) running: Running,
}

impl Daemon {
    /// Asks for a token, which makes an exchange if there is none yet.
    pub(crate) fn token(&self) -> Result<Vec<u8>> {
        ask(&self.socket, "GET", "/v1/token", b"")
    }
}

/// A process that is stopped when this is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> Result<u64> {
        field(&self.proc("status"), "VmRSS:")
    }

    /// Seconds of CPU, in user space and in the kernel.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(self.proc("stat"))?;
        let fields = stat.rsplit(')').next().context("a name")?;
        let mut fields = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<f64>);
        let (user, system) = (fields.next().context("utime")??, fields.next().context("stime")??);
        // In hundredths on every Linux.
        Ok((user + system) / 100.0)
    }

    pub(crate) fn threads(&self) -> Result<u64> {
        field(&self.proc("status"), "Threads:")
    }

    /// How often its main thread has waited and was woken.
    pub(crate) fn wakeups(&self) -> Result<u64> {
        field(&self.proc("status"), "voluntary_ctxt_switches:")
    }

    pub(crate) fn open_files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(self.proc("fd"))?.count())
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0.id()).into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM first, so that it ends as it does in use.
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn field(path: &Path, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a field of /proc")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// One request on a Unix socket; the body of a good answer.
pub(crate) fn ask(socket: &Path, method: &str, target: &str, body: &[u8]) -> Result<Vec<u8>> {
    exchange(UnixStream::connect(socket)?, method, target, body)
}

fn exchange(
    mut stream: impl std::io::Read + std::io::Write,
    method: &str,
    target: &str,
    body: &[u8],
) -> Result<Vec<u8>> {
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no answer")?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        bail!("{method} {target}: {}", String::from_utf8_lossy(&answer[..head]));
    }
    Ok(answer.split_off(head + 4))
}

/// Polls until a state is reached.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) -> Result {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        if Instant::now() > deadline {
            bail!("not within {DEADLINE:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

const DEADLINE: Duration = Duration::from_secs(20);
