//! Every way in which the identity provider or W&B can fail, across the end of the token's life.
//!
//! All cases run at once and in one test, since each takes most of a minute of waiting, each with its own daemon and
//! sandbox. Each read of theirs is paired with one at a
//! neighbour to which nothing happens: what the machine does to latency, it does to both.

use std::time::Duration;

use serde_json::{Value, json};
use wandb_cred::clock::Clock;

use crate::setup::{Control, Home, SANDBOX, Sandbox, median, now};
use crate::talk::Client;

/// What goes wrong.
enum Fault {
    Nothing,
    /// At W&B.
    Exchange(Value),
    /// At the identity provider, which the command asks.
    Idp(Value),
    /// Nobody listens any more.
    Gone,
    /// The command itself.
    Script(&'static str),
}

struct Case {
    name: &'static str,
    fault: Fault,
    /// Most exchanges, or runs of the command, from the fault until it is mended.
    attempts: u64,
}

fn cases() -> Vec<Case> {
    let refusal = |error: &str, why: &str| {
        let body = json!({ "error": error, "error_description": why }).to_string();
        Fault::Exchange(json!({ "status": 400, "body": body }))
    };
    let status = |status: u16| Fault::Exchange(json!({ "status": status, "body": "no" }));
    let throttled = json!({ "status": 429, "headers": { "Retry-After": "4" } });
    let exchange = |name: &str| Fault::Exchange(json!(name));
    let case = |name, fault, attempts| Case { name, fault, attempts };
    vec![
        case("nothing", Fault::Nothing, 1),
        case("exchange hangs", exchange("hang"), 1),
        case("exchange drips", exchange("slow-drip"), 1),
        case("429 with Retry-After", Fault::Exchange(throttled), 3),
        case("500", status(500), 10),
        case("503", status(503), 10),
        case("garbage", exchange("garbage"), 10),
        case("empty", exchange("empty"), 10),
        case("truncated", exchange("truncate"), 10),
        case("huge", exchange("huge"), 10),
        case("redirect", exchange("redirect"), 1),
        case("plain text", exchange("plain-text"), 2),
        // Each attempt may try once more with a new identity token.
        case("invalid_grant", refusal("invalid_grant", "No."), 4),
        case("jti used", refusal("invalid_grant", "The jti was already used."), 4),
        case("W&B is gone", Fault::Gone, 0),
        case("identity provider says 500", Fault::Idp(json!({ "status": 500 })), 10),
        case("identity provider hangs", Fault::Idp(json!("hang")), 5),
        case("identity provider talks nonsense", Fault::Idp(json!("garbage")), 10),
        case("command fails", Fault::Script("echo no session >&2; exit 1"), 10),
        case("command hangs", Fault::Script("sleep 600"), 5),
        case("command prints no JWT", Fault::Script("echo hello"), 2),
        case("command prints nothing", Fault::Script("exit 0"), 10),
        case("command never stops printing", Fault::Script("yes"), 2),
    ]
}

/// Life of the access tokens. Renewal begins after 60 to 70 % of it.
const LIFE: u64 = 10;
const FAULT_AT: Duration = Duration::from_secs(2);
/// From here to the token's end it is served while its renewal fails.
const FAILING_FROM: Duration = Duration::from_millis(LIFE * 700 + 300);
const MENDED_AT: Duration = Duration::from_secs(LIFE + 2);
/// The longest single wait is a hanging exchange's 30 s, or the backoff of a misconfiguration.
const RECOVERED_BY: Duration = Duration::from_secs(75);
const PAUSE: Duration = Duration::from_millis(80);

/// What one case saw.
struct Seen {
    /// Reads while the renewal failed, and their neighbour's.
    failing: Vec<Duration>,
    calm: Vec<Duration>,
    refusals: Vec<Duration>,
    problems: Vec<String>,
    attempts: u64,
    recovered_after: Duration,
}

#[tokio::test]
async fn no_outage_slows_a_read_or_serves_an_expired_token_and_each_ends_by_itself() {
    let calm = tokio::task::spawn_blocking(|| {
        let sandbox = Sandbox::start(&[]);
        let home = Home::new(&sandbox.profile("work"));
        let daemon = home.daemon();
        daemon.token("");
        (daemon, sandbox, home)
    });
    let calm = calm.await.expect("set up");
    let mut running = tokio::task::JoinSet::new();
    for case in cases() {
        let neighbour = Client::new(&calm.0.socket);
        running
            .spawn(async move { (case.name, case.attempts, run(case.fault, case.name, &neighbour).await) });
    }
    let mut seen = Vec::new();
    while let Some(case) = running.join_next().await {
        seen.push(case.expect("no panic"));
    }
    seen.sort_by_key(|(name, ..)| *name);
    for (name, most, mut case) in seen {
        let (failing, calm) = (median(&mut case.failing), median(&mut case.calm));
        println!(
            "{name}: read {failing:?}, neighbour {calm:?}; attempts {}, back after {:?}, {:?}",
            case.attempts, case.recovered_after, case.problems
        );
        // A read that waited for a renewal would take seconds here. The floor is for a machine that is busy otherwise.
        let bound = (3 * calm).max(Duration::from_millis(50));
        assert!(failing <= bound, "{name}: a cached read takes {failing:?}, at rest {calm:?}");
        let quiet_machine = calm < Duration::from_millis(1);
        assert!(failing < Duration::from_millis(5) || !quiet_machine, "{name}: a read takes {failing:?}");
        assert!(case.attempts <= most, "{name}: {} attempts, at most {most} expected", case.attempts);
        if name == "nothing" {
            assert!(case.refusals.is_empty(), "a calm daemon refused: {:?}", case.problems);
        } else {
            assert!(!case.refusals.is_empty(), "{name}: the token's end was never seen");
            let slow = median(&mut case.refusals);
            assert!(slow < Duration::from_millis(50), "{name}: saying no takes {slow:?}");
        }
    }
}

async fn run(fault: Fault, name: &'static str, neighbour: &Client) -> Seen {
    let life = LIFE.to_string();
    let (mut sandbox, home, daemon) = tokio::task::spawn_blocking(move || {
        let sandbox = Sandbox::start(&["--token-life", &life]);
        let home = Home::new("");
        let script = format!("echo >>{}; exec {SANDBOX} mint --url {}", runs(&home), sandbox.url);
        home.write("provider", &script);
        let config = format!(
            "[profile.work]\nbase-url = \"{}\"\n[profile.work.provider.command]\n\
             argv = [\"/bin/sh\", \"{}\"]\ntimeout = \"2s\"\n",
            sandbox.url,
            home.path("provider").display()
        );
        home.write_config(&config);
        let daemon = home.daemon();
        (sandbox, home, daemon)
    })
    .await
    .expect("set up");
    let control = sandbox.control();
    let client = Client::new(&daemon.socket);
    let first = client.get("/v1/token").await.expect("an answer");
    assert_eq!(first.status, 200, "{name}: {}", first.text());
    let start = now();
    let mut seen = Seen {
        failing: Vec::new(),
        calm: Vec::new(),
        refusals: Vec::new(),
        problems: Vec::new(),
        attempts: 0,
        recovered_after: Duration::ZERO,
    };
    let mut broken = false;
    let mut before = 0;
    let mut rounds = 0_u32;
    loop {
        let elapsed = now() - start;
        if elapsed > MENDED_AT {
            break;
        }
        if elapsed > FAULT_AT && !broken {
            broken = true;
            before = attempts(&control, &home, &fault);
            match &fault {
                Fault::Nothing => {}
                Fault::Exchange(fault) => control.faults(&json!({ "exchange": fault })),
                Fault::Idp(fault) => control.faults(&json!({ "idp": fault })),
                Fault::Gone => sandbox.stop(),
                Fault::Script(script) => {
                    home.write("provider", &format!("echo >>{}; {script}", runs(&home)));
                }
            }
        }
        // In turn first and second: the first of two reads after a pause is the slower one.
        let mut calm = Duration::ZERO;
        if rounds.is_multiple_of(2) {
            calm = read(neighbour).await;
        }
        let wall = Clock::system().now().wall;
        let asked = now();
        let answer = client.get("/v1/token?wait=0").await.expect("an answer");
        let took = now() - asked;
        if !rounds.is_multiple_of(2) {
            calm = read(neighbour).await;
        }
        if answer.status == 200 {
            let token = answer.json();
            let expires_at: jiff::Timestamp =
                token["expires_at"].as_str().expect("a time").parse().expect("RFC 3339");
            assert!(expires_at > wall && token["expires_in"] != 0, "{name}: expired at {expires_at}");
            if elapsed > FAILING_FROM {
                seen.failing.push(took);
                seen.calm.push(calm);
            }
            if rounds.is_multiple_of(10) && !(broken && matches!(fault, Fault::Gone)) {
                let (control, token) =
                    (control.clone(), token["access_token"].as_str().expect("a token").to_owned());
                let taken = tokio::task::spawn_blocking(move || control.takes(&token)).await.expect("asked");
                // It had a second left when it was asked for.
                let in_time = now() - asked < Duration::from_millis(800);
                assert!(taken == Some(true) || !in_time, "{name}: W&B refuses what is served");
            }
        } else {
            seen.refusals.push(took);
            let problem = answer.json();
            let kind = problem["type"].as_str().expect("a type").to_owned();
            assert!(problem["detail"].as_str().expect("words").contains("`work`"), "{name}: {problem}");
            if !seen.problems.contains(&kind) {
                seen.problems.push(kind);
            }
        }
        rounds += 1;
        // Out of step with the neighbours.
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
    let gone = matches!(fault, Fault::Gone);
    seen.attempts = if gone { 0 } else { attempts(&control, &home, &fault) - before };
    match &fault {
        Fault::Gone => sandbox.start_again(),
        _ => control.faults(&json!({})),
    }
    home.write("provider", &format!("exec {SANDBOX} mint --url {}", sandbox.url));
    let mended = now();
    loop {
        let answer = client.get("/v1/token?wait=0").await.expect("an answer");
        // A neighbour's token of before would not do.
        if answer.status == 200 {
            let token = answer.json()["access_token"].as_str().expect("a token").to_owned();
            let control = control.clone();
            let taken = tokio::task::spawn_blocking(move || control.takes(&token)).await.expect("asked");
            if taken == Some(true) {
                break;
            }
        }
        let waited = now() - mended;
        assert!(waited < RECOVERED_BY, "{name}: not back after {waited:?}: {}", answer.text());
        tokio::time::sleep(PAUSE).await;
    }
    seen.recovered_after = now() - mended;
    seen
}

/// How long the neighbour takes.
async fn read(neighbour: &Client) -> Duration {
    let asked = now();
    assert_eq!(neighbour.get("/v1/token?wait=0").await.expect("an answer").status, 200);
    now() - asked
}

fn runs(home: &Home) -> String {
    home.path("runs").display().to_string()
}

/// Exchanges, or runs of the command where that is what fails.
fn attempts(control: &Control, home: &Home, fault: &Fault) -> u64 {
    match fault {
        Fault::Idp(_) | Fault::Script(_) => {
            std::fs::read_to_string(home.path("runs")).expect("runs").lines().count() as u64
        }
        _ => control.exchanges(),
    }
}
