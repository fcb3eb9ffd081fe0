//! Every provider against the answers a token service gives on a bad day, as data.
//!
//! `tests/data/providers/KIND/CASE.toml` holds a provider's configuration, the environment it runs in, what the
//! service answers, and what must come of it: the class of the error, words of its message, bounded time, how
//! many requests were made, and no secret in the message. See `Case` for the keys.
//!
//! Placeholders in every string: `{host}` (host:port of the stand-in), `{url}` (http://host:port), `{decoy}` (the
//! URL of a server that nothing may ever ask), `{dir}` (a folder with the case's files), `{jwt}` (a JWT for the
//! audience "acme"), `{jwt:AUD}` (one for AUD), `{in:SECONDS}` (an RFC 3339 time from now).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libtest_mimic::{Arguments, Trial};
use serde::Deserialize;
use wandb_cred::clock::Clock;
use wandb_cred::env::Env;
use wandb_cred::error::Kind;
use wandb_cred::http::Http;
use wandb_cred::provider::{Config, Context};
use wandb_cred::token::Expires as _;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Case {
    /// What the case shows; printed when it fails.
    about: String,
    /// `[provider.KIND]`, as in a configuration.
    provider: toml::Table,
    /// The profile's audience.
    #[serde(default = "acme")]
    audience: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Files in `{dir}`, by name.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// What the stand-in answers, in order; the last one again and again.
    #[serde(default)]
    answer: Vec<Answer>,
    expect: Expect,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Answer {
    /// The request this answers must begin with this, such as "GET /path".
    #[serde(default)]
    to: Option<String>,
    /// Header lines the request must have, as "name: value" with the name in lower case.
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    manner: Manner,
}

/// How the answer is sent.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Manner {
    #[default]
    Plain,
    /// The request is read and nothing comes.
    BlackHole,
    /// One byte at a time, each in good time, for ever.
    Drip,
    /// Many megabytes.
    Huge,
    /// The connection ends in the middle of the body.
    Cut,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Expect {
    class: Class,
    /// Each must be in the message.
    #[serde(default)]
    says: Vec<String>,
    /// Seconds.
    #[serde(default)]
    retry_after: Option<u64>,
    /// How many requests reach the stand-in.
    #[serde(default)]
    requests: Option<usize>,
    /// None of these may be in the message, nor any JWT.
    #[serde(default)]
    secrets: Vec<String>,
    /// The source asked not to be asked before this many seconds are left.
    #[serde(default)]
    not_before_expiry: Option<u64>,
    #[serde(default = "two_seconds")]
    within: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Class {
    Token,
    Transient,
    NeedsLogin,
    Rejected,
    Misconfigured,
}

/// One test per file, by its path: `cargo test --test providers -- aws/imds` runs those of that name.
fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/providers");
    let cases = children(&root).iter().flat_map(|kind| children(kind)).collect::<Vec<_>>();
    assert!(!cases.is_empty(), "no case found");
    let trials = cases.into_iter().map(|path| {
        let name = path.strip_prefix(&root).expect("a child").with_extension("");
        Trial::test(name.display().to_string(), move || Ok(check(&path)?))
    });
    let mut arguments = Arguments::from_args();
    // Cargo hands its own --quiet on to the usual harness only: 191 lines would hide the rest.
    arguments.quiet = arguments.format.is_none();
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
    let case: Case = toml::from_str(&text).map_err(|why| why.to_string())?;
    let about = case.about.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(run(case)).map_err(|why| format!("{about}: {why}"))
}

async fn run(case: Case) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("temp dir");
    let decoy = StandIn::start(vec![Answer::of(200)]);
    let fill = Fill { own: String::new(), decoy: decoy.url(), dir: dir.path().display().to_string() };
    let standin = StandIn::start_filled(case.answer, fill);
    let fill = standin.fill.clone();

    for (name, content) in &case.files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("in the folder")).expect("made");
        std::fs::write(path, fill.string(content)).expect("written");
    }
    let env = case.env.iter().map(|(name, value)| (name.clone(), fill.string(value)));
    let clock = Clock::system();
    let context = Context {
        profile: "test".into(),
        audience: Some(case.audience),
        base_url: None,
        env: Env::fixed(env),
        http: Http::new(clock.clone()),
        clock: clock.clone(),
    };
    let config = toml::Value::Table(fill.table(case.provider));
    let config: Config = config.try_into().map_err(|why| format!("the configuration is wrong: {why}"))?;

    let started = tokio::time::Instant::now();
    let outcome = match config.build(context) {
        Ok(provider) => tokio::time::timeout(Duration::from_secs(30), provider.fetch())
            .await
            .map_err(|_| "no outcome in 30 s".to_owned())?,
        Err(error) => Err(error),
    };
    let took = started.elapsed().as_secs_f64();

    let expect = case.expect;
    let (class, message, retry_after, renewal) = match &outcome {
        Ok(token) => (Class::Token, String::new(), None, Some(token.renewal())),
        Err(error) => {
            let class = match error.kind {
                Kind::NeedsLogin => Class::NeedsLogin,
                Kind::Rejected => Class::Rejected,
                Kind::Misconfigured => Class::Misconfigured,
                Kind::Transient | Kind::TooShort | Kind::TooSoon => Class::Transient,
            };
            (class, error.to_string(), error.retry_after, None)
        }
    };
    let mut wrong = Vec::new();
    if class != expect.class {
        wrong.push(format!("wanted {:?}, got {class:?}", expect.class));
    }
    if let Some(seconds) = expect.retry_after
        && retry_after != Some(Duration::from_secs(seconds))
    {
        wrong.push(format!("wanted to retry after {seconds} s, got {retry_after:?}"));
    }
    for words in expect.says.iter().map(|words| fill.string(words)) {
        if !message.contains(&words) {
            wrong.push(format!("the message lacks {words:?}"));
        }
    }
    let shown = format!("{message} {outcome:?}");
    for secret in expect.secrets.iter().map(|secret| fill.string(secret)).chain(["eyJ".to_owned()]) {
        if shown.contains(&secret) {
            wrong.push(format!("the secret {secret:?} is shown"));
        }
    }
    if let Some(seconds) = expect.not_before_expiry {
        let got = renewal.and_then(|renewal| renewal.not_before_expiry).map(|before| before.as_secs());
        if got.is_none_or(|got| got.abs_diff(seconds) > 5) {
            wrong.push(format!("wanted not to be asked before {seconds} s are left, got {got:?}"));
        }
    }
    if took > expect.within {
        wrong.push(format!("took {took:.1} s, over {} s", expect.within));
    }
    let seen = standin.seen();
    if let Some(requests) = expect.requests
        && requests != seen.len()
    {
        wrong.push(format!("wanted {requests} requests, got {seen:?}"));
    }
    wrong.extend(standin.complaints());
    if !decoy.seen().is_empty() {
        wrong.push(format!("the decoy was asked: {:?}", decoy.seen()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}; message: {message:?}", wrong.join("; "))) }
}

/// An HTTP/1.1 server on loopback that answers from a list and writes down what it was asked.
struct StandIn {
    fill: Fill,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    /// First lines of the requests.
    seen: Vec<String>,
    complaints: Vec<String>,
}

impl StandIn {
    fn start(answers: Vec<Answer>) -> Self {
        Self::start_filled(answers, Fill::default())
    }

    fn start_filled(answers: Vec<Answer>, mut fill: Fill) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        fill.own = listener.local_addr().expect("bound").to_string();
        let log = Arc::<Mutex<Log>>::default();
        let (shared, filled) = (log.clone(), fill.clone());
        // Both end with the test process: a connection may be in the middle of a black hole.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, log, fill) = (answers.clone(), shared.clone(), filled.clone());
                std::thread::spawn(move || serve(&stream, &answers, &log, &fill));
            }
        });
        Self { fill, log }
    }

    fn url(&self) -> String {
        format!("http://{}", self.fill.own)
    }

    fn seen(&self) -> Vec<String> {
        self.log.lock().expect("not poisoned").seen.clone()
    }

    fn complaints(&self) -> Vec<String> {
        self.log.lock().expect("not poisoned").complaints.clone()
    }
}

/// Answers one request; what cannot be written to a client that has gone is nobody's loss.
fn serve(stream: &TcpStream, answers: &[Answer], log: &Mutex<Log>, fill: &Fill) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let lower = line.split_once(": ").map(|(name, value)| format!("{}: {value}", name.to_lowercase()));
        lines.push(lower.unwrap_or_else(|| line.to_owned()));
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    let _ = reader.read_exact(&mut body);

    let Some(answer) = ({
        let mut log = log.lock().expect("not poisoned");
        let answer = answers.get(log.seen.len()).or(answers.last()).cloned();
        log.seen.push(lines[0].clone());
        if let Some(answer) = &answer {
            let to = answer.to.as_ref().filter(|to| !lines[0].starts_with(&fill.string(to)));
            let needs = answer.needs.iter().map(|need| fill.string(need));
            let missing = needs.filter(|need| !lines.contains(need)).collect::<Vec<_>>();
            if to.is_some() || !missing.is_empty() {
                log.complaints.push(format!("{:?} is not {to:?} with {missing:?}", lines[0]));
            }
        }
        answer
    }) else {
        return;
    };
    let _ = respond(stream, &answer, fill);
}

fn respond(mut stream: &TcpStream, answer: &Answer, fill: &Fill) -> std::io::Result<()> {
    let body = fill.string(&answer.body);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {}\r\n", fill.string(value));
    }
    match answer.manner {
        Manner::Plain => {
            write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())
        }
        Manner::BlackHole => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Manner::Drip => {
            write!(stream, "{head}content-length: 100000\r\n\r\n")?;
            loop {
                stream.write_all(b"e")?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Manner::Huge => {
            write!(stream, "{head}content-length: 100000000\r\n\r\n")?;
            let block = [b'e'; 64 * 1024];
            loop {
                stream.write_all(&block)?;
            }
        }
        Manner::Cut => write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len() + 100),
    }
}

impl Answer {
    fn of(status: u16) -> Self {
        Self {
            to: None,
            needs: Vec::new(),
            status,
            headers: BTreeMap::new(),
            body: String::new(),
            manner: Manner::Plain,
        }
    }
}

/// Replaces the placeholders.
#[derive(Clone, Default)]
struct Fill {
    own: String,
    decoy: String,
    dir: String,
}

impl Fill {
    fn string(&self, text: &str) -> String {
        let mut text = text
            .replace("{host}", &self.own)
            .replace("{url}", &format!("http://{}", self.own))
            .replace("{decoy}", &self.decoy)
            .replace("{dir}", &self.dir)
            .replace("{jwt}", &jwt("acme"));
        while let Some((before, aud, after)) = placeholder(&text, "{jwt:") {
            text = format!("{before}{}{after}", jwt(&aud));
        }
        while let Some((before, seconds, after)) = placeholder(&text, "{in:") {
            let time = Clock::system().now().wall
                + jiff::SignedDuration::from_secs(seconds.parse().expect("whole seconds"));
            text = format!("{before}{}{after}", time.strftime("%Y-%m-%dT%H:%M:%SZ"));
        }
        text
    }

    fn table(&self, table: toml::Table) -> toml::Table {
        table.into_iter().map(|(key, value)| (key, self.value(value))).collect()
    }

    fn value(&self, value: toml::Value) -> toml::Value {
        match value {
            toml::Value::String(text) => self.string(&text).into(),
            toml::Value::Table(table) => self.table(table).into(),
            toml::Value::Array(all) => {
                toml::Value::Array(all.into_iter().map(|value| self.value(value)).collect())
            }
            other => other,
        }
    }
}

fn placeholder(text: &str, opening: &str) -> Option<(String, String, String)> {
    let (before, rest) = text.split_once(opening)?;
    let (inner, after) = rest.split_once('}')?;
    Some((before.to_owned(), inner.to_owned(), after.to_owned()))
}

/// An unsigned JWT of one hour (of a day for the audience "day").
fn jwt(audience: &str) -> String {
    let life = if audience == "day" { 86_400 } else { 3600 };
    let exp = Clock::system().now().wall.as_second() + life;
    let payload = format!(r#"{{"aud":"{audience}","sub":"someone","exp":{exp}}}"#);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    format!("{header}.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("readable").path()).collect();
    all.sort();
    all
}

fn acme() -> String {
    "acme".into()
}

fn ok() -> u16 {
    200
}

fn two_seconds() -> f64 {
    2.0
}
