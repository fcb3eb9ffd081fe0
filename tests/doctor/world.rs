//! One set-up for one case: an issuer, a sandbox that trusts it, a configuration, an environment; healthy until a
//! case plants something.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::stand_in::{Issuer, StandIn, answer, now};

pub(crate) struct World {
    pub(crate) home: tempfile::TempDir,
    pub(crate) issuer: Issuer,
    /// Signed by the issuer into `{home}/jwt`, unless `jwt` says otherwise.
    pub(crate) claims: Value,
    pub(crate) kid: String,
    /// The text of `{home}/jwt`, instead.
    pub(crate) jwt: Option<String>,
    /// Further arguments of the sandbox.
    pub(crate) sandbox: Vec<String>,
    /// Posted to the sandbox.
    pub(crate) faults: Option<Value>,
    /// Lines of `[profile.work]`; the base URL defaults to the sandbox's.
    pub(crate) base_url: Option<String>,
    pub(crate) audience: Option<&'static str>,
    /// More keys of the profile, as lines.
    pub(crate) keys: String,
    /// The provider's table, without its head's profile: `[provider.file]`.
    pub(crate) provider: String,
    /// The whole file, instead.
    pub(crate) config: Option<String>,
    pub(crate) arguments: Vec<&'static str>,
    pub(crate) env: BTreeMap<&'static str, String>,
    /// Folders in PATH before the usual ones.
    pub(crate) path: Option<PathBuf>,
    running: Option<Child>,
    /// Kept until the end: servers and sockets of the case.
    pub(crate) kept: Vec<Box<dyn std::any::Any + Send + Sync>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let issuer = Issuer::start();
        let claims = json!({
            "iss": issuer.http.url, "sub": "svc-train", "aud": "acme",
            "iat": now(), "exp": now() + 3600, "jti": format!("{}", fastrand::u128(..)),
        });
        let sandbox = ["--audience", "acme", "--subject", "svc-train"].map(str::to_owned).to_vec();
        Self {
            provider: format!("[provider.file]\npath = \"{}/jwt\"\n", home.path().display()),
            home,
            issuer,
            claims,
            kid: "k1".to_owned(),
            jwt: None,
            sandbox,
            faults: None,
            base_url: None,
            audience: Some("acme"),
            keys: String::new(),
            config: None,
            arguments: Vec::new(),
            env: BTreeMap::new(),
            path: None,
            running: None,
            kept: Vec::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
        path.to_str().expect("text").to_owned()
    }

    /// A program in PATH.
    pub(crate) fn program(&mut self, name: &str, script: &str) {
        // By another process: one that we have open for writing while some thread starts a program could not be run yet.
        let text = self.write(&format!("bin/{name}.text"), &format!("#!/bin/sh\n{script}\n"));
        let install = Command::new("install")
            .args(["-m", "755"])
            .arg(text)
            .arg(self.path(&format!("bin/{name}")))
            .status();
        assert!(install.expect("install").success());
        self.path = Some(self.path("bin"));
    }

    /// A folder closed to others.
    pub(crate) fn folder(&self, name: &str, mode: u32) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(self.path(name)).expect("made");
        std::fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).expect("chmod");
    }

    /// A W&B of our own in place of the sandbox: says yes to everything.
    pub(crate) fn own_wandb(&mut self) -> StandIn {
        self.wandb_at(StandIn::start())
    }

    pub(crate) fn wandb_at(&mut self, wandb: StandIn) -> StandIn {
        let token = json!({ "access_token": "wb_at_planted", "expires_in": 3600, "token_type": "Bearer" });
        wandb.on("/oidc/token", answer(200, token));
        let viewer = json!({ "data": { "viewer": { "id": "x", "username": "svc", "entity": "acme" } } });
        wandb.on("/graphql", answer(200, viewer));
        wandb.skew(0);
        self.base_url = Some(wandb.url.clone());
        wandb
    }

    pub(crate) fn token(&self) -> String {
        self.jwt.clone().unwrap_or_else(|| self.issuer.sign(&self.claims, &self.kid))
    }

    /// Starts what the case needs, and writes its files.
    pub(crate) fn set_up(&mut self) {
        if self.base_url.is_none() {
            self.base_url = Some(self.start_sandbox());
        }
        let jwt = self.token();
        if !self.path("jwt").exists() {
            let path = self.write("jwt", &jwt);
            // Written a while ago: what changed this moment may be half-written, and is judged more gently.
            let file = std::fs::File::options().write(true).open(path).expect("there");
            let before = std::time::UNIX_EPOCH + Duration::from_secs(now().unsigned_abs() - 3600);
            file.set_modified(before).expect("touched");
        }
        let base_url = self.base_url.as_deref().unwrap_or_default();
        let keys = &self.keys;
        let audience = self.audience.map_or(String::new(), |audience| format!("audience = \"{audience}\"\n"));
        let provider = self.provider.replace("[provider.", "[profile.work.provider.");
        let config = format!("[profile.work]\nbase-url = \"{base_url}\"\n{audience}{keys}\n{provider}");
        self.write("config.toml", self.config.as_ref().unwrap_or(&config));
    }

    fn start_sandbox(&mut self) -> String {
        let ready = self.path("ready");
        let mut command = Command::new(env!("CARGO_BIN_EXE_wandb-cred-sandbox"));
        command.args(["serve", "--trust-issuer", &self.issuer.http.url, "--ready-file"]).arg(&ready);
        command.args(&self.sandbox).stdin(Stdio::null()).stdout(Stdio::null());
        self.running = Some(command.spawn().expect("the sandbox starts"));
        let url = wait_for(|| std::fs::read_to_string(&ready).ok().filter(|url| url.starts_with("http")));
        if let Some(faults) = &self.faults {
            post(&url, "/sandbox/faults", &faults.to_string());
        }
        url
    }

    /// A command in the world's environment and nothing else.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let usual = std::env::var("PATH").expect("PATH");
        let path = match &self.path {
            Some(first) => format!("{}:{usual}", first.display()),
            None => usual,
        };
        command
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("WANDB_CRED_CONFIG", self.path("config.toml"))
            .env("NO_GCE_CHECK", "true")
            .envs(&self.env)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn doctor(&self, arguments: &[&str]) -> Visit {
        let mut all = vec!["doctor"];
        all.extend(&self.arguments);
        all.extend(arguments);
        let output = self.command(env!("CARGO_BIN_EXE_wandb-cred"), &all).output().expect("it starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Visit { exit: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A daemon of this world, which ends with it.
    pub(crate) fn daemon(&mut self) {
        let mut command = self.command(env!("CARGO_BIN_EXE_wandb-credd"), &["run"]);
        let child = command.stderr(Stdio::null()).spawn().expect("the daemon starts");
        self.kept.push(Box::new(Reaped(child)));
        let socket = self.path("run/wandb-cred/wandb-cred.sock");
        wait_for(|| socket.exists().then_some(()));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a visit of the doctor gave.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) exit: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Visit {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// The steps with that verdict, each once, in order.
    pub(crate) fn steps(&self, verdict: &str) -> Vec<String> {
        let json = self.json();
        let all = json["findings"].as_array().expect("findings").iter();
        let mut steps: Vec<_> = all
            .filter(|finding| finding["verdict"] == verdict)
            .map(|finding| finding["step"].as_str().expect("a step").to_owned())
            .collect();
        steps.dedup();
        steps
    }

    /// Everything said at a step.
    pub(crate) fn said(&self, step: &str) -> String {
        let json = self.json();
        let all = json["findings"].as_array().expect("findings").iter();
        let of = all.filter(|finding| finding["step"] == step).map(|finding| {
            format!(
                "{}\n{}\n",
                finding["found"].as_str().expect("found"),
                finding["remedy"].as_str().unwrap_or("")
            )
        });
        of.collect()
    }
}

/// Looks again and again until there is something, for ten seconds.
pub(crate) fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not come in 10 s");
}

pub(crate) fn get(url: &str, path: &str) -> String {
    send("GET", url, path, "")
}

pub(crate) fn post(url: &str, path: &str, body: &str) -> String {
    send("POST", url, path, body)
}

fn send(method: &str, url: &str, path: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let host = url.strip_prefix("http://").expect("http");
    let mut stream = std::net::TcpStream::connect(host).expect("it listens");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    assert!(text.starts_with("HTTP/1.1 2"), "{text}");
    text
}

/// Whether `path` is ours alone; for cases that loosen it.
pub(crate) fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
}
