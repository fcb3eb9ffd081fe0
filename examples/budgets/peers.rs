//! Other programs that hand out a credential from a running agent. Each is skipped where it is not installed.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::Result;
use crate::scene::{Running, Scene, until};
use crate::table::Table;
use crate::tls::message;

/// A program that is run again and again.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) command: Command,
    /// Read on standard input.
    pub(crate) input: Option<PathBuf>,
    /// Our time as a part of theirs.
    pub(crate) budget: Option<f64>,
    pub(crate) stretch: Option<f64>,
    pub(crate) times: Vec<f64>,
    /// The agent it asks.
    _agent: Option<Running>,
}

impl Peer {
    pub(crate) fn new(name: &'static str, command: Command) -> Self {
        Self { name, command, input: None, budget: None, stretch: None, times: Vec::new(), _agent: None }
    }
}

type Make = fn(&Scene) -> Result<Peer>;

pub(crate) fn all(scene: &Scene, table: &mut Table) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    let known: [(&str, Make); 3] =
        [("git credential-cache get", git), ("ssh-add -l", ssh), ("oidc-token", oidc)];
    for (name, make) in known {
        match make(scene) {
            Ok(peer) => peers.push(peer),
            Err(error) => {
                table.skip(format!("wandb-cred token, whole process / {name}"), format!("{error:#}"));
            }
        }
    }
    Ok(peers)
}

fn git(scene: &Scene) -> Result<Peer> {
    let dir = scene.dir.path().join("git");
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
    ensure!(answer.stdout.windows(10).any(|part| part == b"password=p"), "it keeps nothing");
    // Its daemon ends by itself when its folder has gone.
    Ok(Peer {
        input: Some(question),
        budget: Some(0.55),
        ..Peer::new("git credential-cache get", cache("get"))
    })
}

fn ssh(scene: &Scene) -> Result<Peer> {
    let (socket, key) = (scene.dir.path().join("ssh.sock"), scene.dir.path().join("ssh.key"));
    let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
    let agent = Running(agent.context("ssh-agent")?);
    until("ssh-agent", || socket.exists())?;
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?;
    let add = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status()?;
    ensure!(made.success() && add.success(), "cannot add a key");
    let mut list = Command::new("ssh-add");
    list.arg("-l").env("SSH_AUTH_SOCK", &socket);
    Ok(Peer { budget: Some(0.15), _agent: Some(agent), ..Peer::new("ssh-add -l", list) })
}

/// With an account at a provider that is no more than its answers.
fn oidc(scene: &Scene) -> Result<Peer> {
    let dir = scene.dir.path().join("oidc");
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
    until("oidc-agent", || socket.exists())?;
    let issuer = provider()?;
    let account = within("oidc-gen")
        .args(["--manual", "--pw-cmd=echo none", "--flow=refresh", "--rt=none", "--client-id=none"])
        .args(["--client-secret=none", "--redirect-uri=http://localhost:12345"])
        .args(["--scope=openid offline_access", &format!("--iss={issuer}"), "bench"])
        .status()
        .context("oidc-gen")?;
    ensure!(account.success(), "oidc-gen makes no account");
    let mut token = within("oidc-token");
    token.arg("bench");
    Ok(Peer { budget: Some(0.4), _agent: Some(agent), ..Peer::new("oidc-token", token) })
}

/// An OpenID Provider's discovery and a refreshed token, without end.
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
