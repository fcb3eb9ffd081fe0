//! One exchange for many: daemons that get their access tokens from another daemon, by its socket or by lines.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::setup::{COMMAND, DAEMON, Daemon, Home, Sandbox, now, until};

/// A profile that takes its tokens from the daemon of `there`.
fn downstream(there: &Home, base_url: &str) -> Home {
    let socket = there.socket();
    Home::new(&format!(
        "[profile.work]\nbase-url = \"{base_url}\"\nupstream = \"unix:{}\"\n",
        socket.display()
    ))
}

fn access(daemon: &Daemon) -> Value {
    daemon.profile("work")["access"].clone()
}

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn renewals_and_refusals_pass_between_a_daemon_and_its_upstream() {
    let sandbox = Sandbox::start(&[]);
    let there = Home::new(&sandbox.profile("work"));
    let source = there.daemon();
    let here = downstream(&there, &sandbox.url);
    let daemon = here.daemon_of(&mut here.program(DAEMON, &["run", "--log-level", "trace"]));
    let first = daemon.token("");
    assert_eq!(first, source.token(""));
    assert_eq!(daemon.profile("work")["identity"], Value::Null);

    let job = daemon.ask("POST", "/v1/jobs", "{}").expect("an answer");
    assert_eq!(job.status, 200, "{}", job.text());
    let sdk = |name| std::fs::read_to_string(here.sdk_file("work", name)).expect("a file");
    assert_eq!(sdk("identity-token"), "relay");
    assert!(sdk("credentials.json").contains(&first));
    assert_eq!(sandbox.exchanges(), 1);
    until("the upstream is kept fresh for us", 5, || {
        source.profile("work")["hot"].as_bool().filter(|hot| *hot).map(drop)
    });

    // Since the exchange was forced a moment ago, it takes a few seconds.
    let start = now();
    assert_eq!(source.ask("POST", "/v1/refresh?wait=10", "").expect("an answer").status, 200);
    let renewed = now();
    let second = until("the renewal is here", 5, || Some(daemon.token("")).filter(|token| *token != first));
    println!("renewed after {:?}, here {:?} later", renewed - start, now() - renewed);
    assert_eq!(second, source.token(""));
    until("the SDK file has it", 5, || sdk("credentials.json").contains(&second).then_some(()));

    let report = json!({ "token_sha256": hash(&second) }).to_string();
    let answer = daemon.ask("POST", "/v1/rejected", &report).expect("an answer").json();
    assert_eq!(answer["renewed"], true);
    let third =
        until("a new token after the report", 20, || Some(daemon.token("")).filter(|token| *token != second));
    assert_eq!((third, sandbox.exchanges()), (source.token(""), 3));

    let answer = daemon.ask("POST", "/v1/refresh?wait=30", "").expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("a refresh here is one there", 20, || (sandbox.exchanges() == 4).then_some(()));
    assert!(!daemon.log().contains("wb_at"), "a token in the log");
}

#[test]
fn an_upstream_that_is_down_costs_nothing_while_the_last_token_lives() {
    let sandbox = Sandbox::start(&["--token-life", "20"]);
    let there = Home::new(&sandbox.profile("work"));
    let mut source = there.daemon();
    let here = downstream(&there, &sandbox.url);
    let daemon = here.daemon();
    daemon.token("");
    source.kill();
    let error = until("it says so", 10, || access(&daemon)["last_error"].as_str().map(str::to_owned));
    assert!(error.contains("no daemon answers at"), "{error}");
    assert_eq!(access(&daemon)["state"], "stale");
    assert_eq!(daemon.get("/v1/token?wait=0").status, 200);

    let source = there.daemon();
    until("it is fresh again", 30, || (access(&daemon)["state"] == "fresh").then_some(()));
    until("the upstream's token is here", 5, || (daemon.token("") == source.token("")).then_some(()));
    drop(source);
    let refused = until("the last token's end", 30, || {
        Some(daemon.get("/v1/token?wait=0")).filter(|answer| answer.status != 200)
    });
    assert_eq!((refused.status, &refused.json()["type"]), (503, &json!("upstream-unavailable")));
    assert!(refused.text().contains("no daemon answers at"), "{}", refused.text());
}

#[test]
fn tokens_for_another_server_are_refused() {
    let sandbox = Sandbox::start(&[]);
    let there = Home::new(&sandbox.profile("work"));
    let _source = there.daemon();
    let here = downstream(&there, "https://api.wandb.ai");
    let daemon = here.daemon();
    let answer = daemon.get("/v1/token?wait=5");
    assert_eq!((answer.status, &answer.json()["type"]), (502, &json!("misconfigured")));
    let detail = answer.json()["detail"].as_str().expect("words").to_owned();
    assert!(
        detail.contains(&sandbox.url) && detail.contains("`base-url` is https://api.wandb.ai"),
        "{detail}"
    );
}

#[test]
fn a_problem_upstream_is_told_as_the_upstreams() {
    let there = Home::new("[profile.other.provider.env]\nvariable = \"NO_SUCH_JWT\"\n");
    let _source = there.daemon();
    let here = downstream(&there, "https://api.wandb.ai");
    let daemon = here.daemon();
    let detail = daemon.get("/v1/token?wait=20").json()["detail"].as_str().expect("words").to_owned();
    assert!(detail.contains("says: profile `other`") && detail.contains("NO_SUCH_JWT"), "{detail}");
}

/// `wandb-credd run --feed -`, with what it prints.
pub(crate) struct Fed {
    pub(crate) daemon: Daemon,
    feed: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
    home: Home,
}

impl Fed {
    fn start() -> Self {
        let home = Home::new("");
        std::fs::remove_file(home.config()).expect("there");
        let mut command = home.program(DAEMON, &["run", "--feed", "-", "--log-level", "trace"]);
        command.stdin(Stdio::piped());
        let (daemon, feed, out) = home.launch_with_pipes(&mut command);
        until("the daemon answers", 20, || daemon.try_get("/healthz").ok());
        Self { daemon, feed: Some(feed), out: BufReader::new(out), home }
    }

    /// With one token.
    pub(crate) fn serving(token: &str) -> Self {
        let mut fed = Self::start();
        fed.write(line("work", token, 3600));
        fed.served();
        fed
    }

    fn write(&mut self, line: impl AsRef<[u8]>) {
        let feed = self.feed.as_mut().expect("open");
        feed.write_all(line.as_ref()).and_then(|()| feed.write_all(b"\n")).expect("it reads");
    }

    /// What it says when it serves a profile.
    fn served(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("json")
    }
}

fn line(profile: &str, token: &str, life: u64) -> String {
    let expires_at = wandb_cred::clock::Clock::system().now().wall + Duration::from_secs(life);
    json!({
        "access_token": token, "token_type": "Bearer", "expires_at": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "expires_in": life, "base_url": "https://api.wandb.ai", "profile": profile,
    })
    .to_string()
}

#[test]
fn lines_are_served_until_the_last_tokens_end() {
    let mut fed = Fed::start();
    let early = fed.daemon.get("/v1/token");
    assert_eq!((early.status, &early.json()["type"]), (503, &json!("upstream-unavailable")));
    assert!(early.text().contains("no token has come on the feed yet"), "{}", early.text());

    fed.write("nonsense wb_at_planted");
    fed.write(line("../x", "wb_at_planted", 3600));
    fed.write(line("work", "wb_at_1", 3600));
    let served = fed.served();
    assert_eq!((&served["profile"], &served["base_url"]), (&json!("work"), &json!("https://api.wandb.ai")));
    assert_eq!(served["socket"], json!(fed.daemon.socket));
    assert_eq!(fed.daemon.token(""), "wb_at_1");
    let sdk = |name| std::fs::read_to_string(fed.home.sdk_file("work", name)).expect("a file");
    assert_eq!(sdk("identity-token"), "relay");
    assert!(sdk("credentials.json").contains("wb_at_1"));
    let answer = fed.daemon.ask("POST", "/v1/refresh", "").expect("an answer");
    assert_eq!((answer.status, &answer.json()["type"]), (403, &json!("forbidden")));

    fed.write(line("work", "wb_at_2", 6));
    until("the next token", 5, || (fed.daemon.token("") == "wb_at_2").then_some(()));
    fed.write(line("work", "wb_at_planted", 3600).replace("api.wandb.ai", "elsewhere.example"));
    fed.write(line("lab", "wb_at_3", 3600));
    assert_eq!(fed.served()["profile"], "lab");
    assert_eq!(
        (fed.daemon.token("profile=lab"), fed.daemon.token("profile=work")),
        ("wb_at_3".into(), "wb_at_2".into())
    );

    drop(fed.feed.take());
    let error = until("it says so", 5, || access(&fed.daemon)["last_error"].as_str().map(str::to_owned));
    assert!(
        error.starts_with("the feed ended at ") && error.contains("; this token is good until "),
        "{error}"
    );
    assert_eq!(access(&fed.daemon)["state"], "stale");
    assert_eq!(fed.daemon.token("profile=work"), "wb_at_2");
    let start = now();
    let over = until("its end", 10, || {
        Some(fed.daemon.get("/v1/token?profile=work")).filter(|answer| answer.status != 200)
    });
    assert_eq!((over.status, &over.json()["reason"]["code"]), (503, &json!("feed-ended")), "{}", over.text());
    assert!(over.text().contains("its last token was good until "), "{}", over.text());
    assert!(now() - start < Duration::from_secs(8), "nobody waits for what cannot come");
    assert_eq!(fed.daemon.token("profile=lab"), "wb_at_3");
    assert!(!fed.daemon.log().contains("wb_at"), "a token in the log");
    assert_eq!(fed.daemon.log().matches("skipped a line").count(), 3, "{}", fed.daemon.log());
}

#[test]
fn a_feed_without_a_token_says_that_it_ended() {
    let mut fed = Fed::start();
    drop(fed.feed.take());
    until("it says so", 5, || {
        let answer = fed.daemon.get("/v1/token").text();
        (answer.contains("the feed ended at ") && answer.contains("without a token")).then_some(())
    });
}

#[test]
fn a_fed_daemon_ends_with_a_goodbye_or_a_signal() {
    let mut fed = Fed::start();
    fed.write(r#"{"end":true}"#);
    assert_eq!(fed.daemon.ended(5).code(), Some(0));
    let mut fed = Fed::serving("wb_at_1");
    fed.daemon.signal(Signal::HUP);
    assert_eq!(fed.daemon.token(""), "wb_at_1");
    fed.daemon.signal(Signal::TERM);
    assert_eq!(fed.daemon.ended(5).code(), Some(0));
}

/// `wandb-cred feed`.
struct Feed {
    child: Child,
    lines: Receiver<String>,
    said: Receiver<String>,
}

impl Feed {
    fn start(home: &Home) -> Self {
        let mut command = home.program(COMMAND, &["feed"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = received(child.stdout.take().expect("piped"));
        let said = received(child.stderr.take().expect("piped"));
        Self { child, lines, said }
    }

    fn next(&self, seconds: u64) -> String {
        let line = self.lines.recv_timeout(Duration::from_secs(seconds)).expect("a line in time");
        let line: Value = serde_json::from_str(&line).expect("json");
        line["access_token"].as_str().expect("a token").to_owned()
    }

    fn says(&self, words: &str) {
        let said = self.said.recv_timeout(Duration::from_secs(15)).expect("it says so");
        assert!(said.contains(words) && !said.contains("wb_at"), "{said}");
    }
}

fn received(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

impl Drop for Feed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn feed_writes_at_once_at_each_renewal_and_after_a_restart() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let mut daemon = home.daemon();
    let feed = Feed::start(&home);
    let first = feed.next(10);
    assert_eq!(first, daemon.token(""));
    until("the feed counts as a job", 5, || (daemon.profile("work")["jobs"] == 1).then_some(()));
    assert_eq!(daemon.ask("POST", "/v1/refresh?wait=10", "").expect("an answer").status, 200);
    let renewed = now();
    let second = feed.next(5);
    println!("a line {:?} after the renewal", now() - renewed);
    assert_eq!(second, daemon.token(""));
    assert_ne!(first, second);
    // What a restarted daemon takes over.
    let credentials = home.sdk_file("work", "credentials.json");
    until("it is written", 5, || {
        std::fs::read_to_string(&credentials).is_ok_and(|text| text.contains(&second)).then_some(())
    });

    let stop = now();
    daemon.signal(Signal::TERM);
    daemon.ended(5);
    println!("a followed daemon ends within {:?}", now() - stop);
    assert!(now() - stop < Duration::from_secs(2), "it waited for the follower");
    feed.says("; the feed goes on when there is a token");
    let daemon = home.daemon();
    feed.says("the daemon answers again");
    until("the feed is back", 15, || (daemon.profile("work")["jobs"] == 1).then_some(()));
    assert_eq!(daemon.ask("POST", "/v1/refresh?wait=10", "").expect("an answer").status, 200);
    assert_eq!(feed.next(15), daemon.token(""));
    assert_eq!(sandbox.exchanges(), 3);
    assert!(feed.said.try_recv().is_err(), "it says each once");
}

#[test]
fn feed_ends_when_its_reader_is_gone_though_nothing_is_renewed() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let mut command = home.program(COMMAND, &["feed"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    until("it waits for the next", 5, || (daemon.profile("work")["jobs"] == 1).then_some(()));
    assert!(child.try_wait().expect("a child").is_none(), "it goes on");
    drop(out);
    let status = until("its end", 5, || child.try_wait().expect("a child"));
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_pipe_from_feed_to_a_fed_daemon_is_one_exchange() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let source = home.daemon();
    let mut fed = Fed::start();
    let pipe: Stdio = fed.feed.take().expect("open").into();
    let mut feed = home.program(COMMAND, &["feed"]).stdout(pipe).spawn().expect("it starts");
    assert_eq!(fed.served()["base_url"], json!(sandbox.url));
    let first = source.token("");
    assert_eq!(fed.daemon.token(""), first);
    assert_eq!(source.ask("POST", "/v1/refresh?wait=10", "").expect("an answer").status, 200);
    until("the renewal is there", 5, || (fed.daemon.token("") != first).then_some(()));
    assert_eq!((fed.daemon.token(""), sandbox.exchanges()), (source.token(""), 2));
    let pid = Pid::from_raw(feed.id() as i32).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("it runs");
    feed.wait().expect("it ends");
    until("its end is told", 5, || (access(&fed.daemon)["state"] == "stale").then_some(()));
    assert_eq!(fed.daemon.token(""), source.token(""));
}

#[test]
fn a_follower_gets_the_same_token_when_nothing_is_new_and_is_told_of_bad_questions() {
    let sandbox = Sandbox::start(&[]);
    let home = Home::new(&sandbox.profile("work"));
    let daemon = home.daemon();
    let token = daemon.token("");
    let start = now();
    assert_eq!(daemon.token(&format!("newer_than={}&wait=1", hash(&token))), token);
    assert!(now() - start >= Duration::from_millis(900), "it waited {:?}", now() - start);
    assert_eq!(daemon.token(&format!("newer_than={}&wait=20", hash("another"))), token);
    assert!(now() - start < Duration::from_secs(5), "another token is newer at once");
    assert_eq!(daemon.get("/v1/token?newer_than=x").status, 400);

    // Who says no meanwhile is heard.
    let follower = {
        let (socket, target) =
            (daemon.socket.clone(), format!("/v1/token?newer_than={}&wait=2", hash(&token)));
        thread::spawn(move || {
            let stream = std::os::unix::net::UnixStream::connect(socket).expect("connected");
            crate::talk::ask(stream, "GET", &target, &[], "").expect("an answer").status
        })
    };
    until("it follows", 5, || (daemon.metric("wandb_cred_connections ") >= 2.0).then_some(()));
    assert_eq!(daemon.ask("POST", "/v1/lock", "").expect("an answer").status, 200);
    assert_eq!(follower.join().expect("no panic"), 423);
}
