//! The programs that the command is compared with: `/bin/true`, and three that get a credential from a running agent.
//! One that is not installed is skipped.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::Result;
use crate::setup::{Running, Setup, until};
use crate::table::Table;
use crate::tls::message;

/// A program that is run again and again.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) command: Command,
    /// Read on standard input.
    pub(crate) input: Option<PathBuf>,
    /// Our time divided by theirs is at most this.
    pub(crate) budget: f64,
    pub(crate) times: Vec<f64>,
    /// The agent it asks.
    _agent: Option<Running>,
}

impl Peer {
    pub(crate) fn new(name: &'static str, budget: f64, command: Command) -> Self {
        Self { name, command, input: None, budget, times: Vec::new(), _agent: None }
    }
}

pub(crate) fn all(setup: &Setup, table: &mut Table) -> Vec<Peer> {
    let made = [
        ("/bin/true", Ok(Peer::new("/bin/true", 1.5, Command::new("/bin/true")))),
        ("git credential-cache get", git(setup)),
        ("ssh-add -l", ssh(setup)),
        ("oidc-token", oidc(setup)),
    ];
    let mut peers = Vec::new();
    for (name, peer) in made {
        match peer {
            Ok(peer) => peers.push(peer),
            Err(error) => table.skip(format!("wandb-cred token / {name}"), &error),
        }
    }
    peers
}

fn git(setup: &Setup) -> Result<Peer> {
    let dir = setup.dir.path().join("git");
    std::fs::create_dir(&dir)?;
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let socket = dir.join("socket");
    let cache = |action: &str| {
        let mut command = Command::new("git");
        command.arg("credential-cache").arg("--socket").arg(&socket).arg(action);
        command
    };
    let mut store = cache("store").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().context("git")?;
    let mut input = store.stdin.take().context("piped")?;
    input.write_all(b"protocol=https\nhost=example.com\nusername=u\npassword=p\n\n")?;
    drop(input);
    ensure!(store.wait()?.success(), "git credential-cache store");
    let question = dir.join("question");
    std::fs::write(&question, "protocol=https\nhost=example.com\n\n")?;
    let answer = cache("get").stdin(std::fs::File::open(&question)?).output()?;
    ensure!(
        answer.stdout.windows(10).any(|part| part == b"password=p"),
        "git credential-cache stores nothing"
    );
    // Its daemon ends by itself when its folder is deleted.
    Ok(Peer { input: Some(question), ..Peer::new("git credential-cache get", 0.8, cache("get")) })
}

fn ssh(setup: &Setup) -> Result<Peer> {
    let (socket, key) = (setup.dir.path().join("ssh.sock"), setup.dir.path().join("ssh.key"));
    let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
    let agent = Running(agent.context("ssh-agent")?);
    until("ssh-agent listens", || socket.exists())?;
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?;
    let add = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status()?;
    ensure!(made.success() && add.success(), "cannot add a key");
    let mut list = Command::new("ssh-add");
    list.arg("-l").env("SSH_AUTH_SOCK", &socket);
    Ok(Peer { _agent: Some(agent), ..Peer::new("ssh-add -l", 0.3, list) })
}

/// With an account at a made-up provider, which sends fixed answers.
fn oidc(setup: &Setup) -> Result<Peer> {
    let dir = setup.dir.path().join("oidc");
    std::fs::create_dir(&dir)?;
    let socket = dir.join("agent.sock");
    let within = |program: &str| {
        let mut command = Command::new(program);
        command.env("OIDC_CONFIG_DIR", &dir).env("HOME", &dir).env("OIDC_SOCK", &socket);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // In the foreground, so that it ends with us.
    let agent = within("oidc-agent").arg("--console").arg("-a").arg(&socket).spawn();
    let agent = Running(agent.context("oidc-agent")?);
    until("oidc-agent listens", || socket.exists())?;
    let issuer = provider()?;
    let account = within("oidc-gen")
        .args(["--manual", "--pw-cmd=echo none", "--flow=refresh", "--rt=none", "--client-id=none"])
        .args(["--client-secret=none", "--redirect-uri=http://localhost:12345"])
        .args(["--scope=openid offline_access", &format!("--iss={issuer}"), "bench"])
        .status()
        .context("oidc-gen")?;
    ensure!(account.success(), "oidc-gen made no account");
    let mut token = within("oidc-token");
    token.arg("bench");
    Ok(Peer { _agent: Some(agent), ..Peer::new("oidc-token", 0.7, token) })
}

/// Serves an OpenID Provider's discovery document and a token, for as long as this program runs. Returns the issuer.
fn provider() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let issuer = format!("http://{}", listener.local_addr()?);
    let discovery = serde_json::json!({
        "issuer": issuer, "token_endpoint": format!("{issuer}/token"), "authorization_endpoint": format!("{issuer}/auth"),
        "scopes_supported": ["openid", "offline_access"], "response_types_supported": ["code"],
        "grant_types_supported": ["refresh_token", "authorization_code"],
    });
    let token = serde_json::json!({
        "access_token": "a".repeat(1200), "token_type": "Bearer", "expires_in": 36000, "refresh_token": "none",
    });
    std::thread::spawn(move || -> Result {
        for stream in listener.incoming() {
            let mut stream = stream?;
            let request = message(&mut stream)?;
            let body = if request.starts_with(b"POST") { &token } else { &discovery }.to_string();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )?;
        }
        Ok(())
    });
    Ok(issuer)
}
