use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::api;
use crate::error::NetworkFault;
use crate::token::{AccessToken, Expiry};

mod patience;

/// A source that plays a script and records when it was asked.
#[derive(Clone)]
struct Script(Arc<Inner>);

struct Inner {
    clock: Clock,
    steps: Mutex<VecDeque<Step>>,
    asked: Mutex<Vec<Duration>>,
    gate: Notify,
}

#[derive(Clone)]
enum Step {
    Token(u64),
    Fail(Kind),
    FailBecause(Reason),
    ServerAsks(u64),
    Hang,
}

impl Script {
    fn new(clock: &Clock, steps: impl IntoIterator<Item = Step>) -> Self {
        Self(Arc::new(Inner {
            clock: clock.clone(),
            steps: Mutex::new(steps.into_iter().collect()),
            asked: Mutex::default(),
            gate: Notify::new(),
        }))
    }

    fn asked(&self) -> Vec<u64> {
        self.0.asked.lock().unwrap().iter().map(Duration::as_secs).collect()
    }
}

impl Source for Script {
    type Item = AccessToken;

    async fn renew(&self) -> Result<AccessToken, Error> {
        let now = self.0.clock.now();
        let number = {
            let mut asked = self.0.asked.lock().unwrap();
            asked.push(now.boot);
            asked.len()
        };
        // The last step repeats.
        let step = {
            let mut steps = self.0.steps.lock().unwrap();
            if steps.len() > 1 { steps.pop_front() } else { steps.front().cloned() }
        };
        match step.expect("a script has a step") {
            Step::Token(life) => {
                let expiry = Expiry::after(now, Duration::from_secs(life));
                Ok(AccessToken::new(format!("token-{number}"), expiry))
            }
            Step::Fail(kind) => Err(Error::new(Stage::Exchange, kind, Reason::Other, "scripted")),
            Step::FailBecause(reason) => {
                Err(Error::new(Stage::Exchange, Kind::Transient, reason, "scripted"))
            }
            Step::ServerAsks(seconds) => {
                Err(Error::new(Stage::Exchange, Kind::Transient, Reason::Other, "busy")
                    .retry_after(Some(Duration::from_secs(seconds))))
            }
            Step::Hang => {
                self.0.gate.notified().await;
                let expiry = Expiry::after(self.0.clock.now(), Duration::from_secs(3600));
                Ok(AccessToken::new(format!("token-{number}"), expiry))
            }
        }
    }
}

struct Setup {
    clock: Clock,
    script: Script,
    demand: Arc<Demand>,
    keeper: Keeper<AccessToken>,
}

fn setup(always: bool, steps: impl IntoIterator<Item = Step>) -> Setup {
    let clock = Clock::paused();
    let script = Script::new(&clock, steps);
    let demand = Arc::new(Demand::new(always));
    let label = Label { profile: "test".into(), stage: Stage::Exchange };
    let keeper = Keeper::new(label, Policy::SdkMargin, Arc::clone(&demand), clock.clone(), None);
    tokio::spawn(keeper.clone().run(script.clone()));
    Setup { clock, script, demand, keeper }
}

fn need(min_ttl: u64, timeout: u64) -> Need {
    Need { min_ttl: Duration::from_secs(min_ttl), timeout: Duration::from_secs(timeout) }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_cold_storm_causes_one_renewal() {
    let t = setup(false, [Step::Token(3600)]);
    let callers: Vec<_> = (0..512)
        .map(|_| {
            let keeper = t.keeper.clone();
            tokio::spawn(async move { keeper.get(need(0, 10)).await.map(|token| token.hash()) })
        })
        .collect();
    let mut hashes = Vec::new();
    for caller in callers {
        hashes.push(caller.await.unwrap().expect("served"));
    }
    hashes.dedup();
    assert_eq!((hashes.len(), t.script.asked().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hot_token_is_renewed_ahead_of_expiry_and_a_cold_one_is_not() {
    let t = setup(true, [Step::Token(3600)]);
    pass(6 * 3600).await;
    let gaps: Vec<_> = t.script.asked().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() >= 8 && gaps.iter().all(|gap| (2160..=2521).contains(gap)), "{gaps:?}");

    let t = setup(false, [Step::Token(3600)]);
    t.keeper.get(need(0, 10)).await.expect("served");
    pass(24 * 3600).await;
    assert_eq!(t.script.asked().len(), 1, "nobody asked again");
    t.keeper.get(need(0, 10)).await.expect("renewed on first use");
    assert_eq!(t.script.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_job_keeps_it_warm_until_it_ends() {
    let t = setup(false, [Step::Token(600)]);
    let job = t.demand.hold();
    t.keeper.get(need(0, 10)).await.expect("served");
    pass(3600).await;
    let during = t.script.asked().len();
    assert!(during > 6, "{during}");
    drop(job);
    pass(3600).await;
    assert!(t.script.asked().len() <= during + 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_token_is_served_through_an_outage_and_never_past_expiry() {
    let t = setup(true, [Step::Token(1000), Step::Fail(Kind::Transient)]);
    pass(1).await;
    for second in 1..1100 {
        pass(1).await;
        let served = t.keeper.peek(Duration::ZERO).is_some();
        assert_eq!(served, second + 1 < 1000, "at {second}");
    }
    let attempts = t.script.asked().len();
    assert!(attempts < 60, "bounded attempts: {attempts}");
    let state = t.keeper.snapshot().state(t.clock.now());
    assert_eq!(state, api::State::Failed);
}

#[tokio::test(start_paused = true)]
async fn recovery_is_automatic() {
    let mut steps = vec![Step::Fail(Kind::Transient); 8];
    steps.push(Step::Token(3600));
    let t = setup(true, steps);
    pass(600).await;
    assert_eq!(t.keeper.snapshot().state(t.clock.now()), api::State::Fresh);
}

#[tokio::test(start_paused = true)]
async fn callers_wait_through_a_short_fault_but_not_a_long_one() {
    let t = setup(false, [Step::Fail(Kind::Transient), Step::Fail(Kind::Transient), Step::Token(3600)]);
    t.keeper.get(need(0, 30)).await.expect("the third attempt came in time");

    let t = setup(false, [Step::Fail(Kind::Rejected)]);
    let before = t.clock.now().boot;
    let error = t.keeper.get(need(0, 30)).await.expect_err("refused");
    assert_eq!((error.kind, t.clock.now().boot - before), (Kind::Rejected, Duration::ZERO));
    t.keeper.get(need(0, 30)).await.expect_err("still refused, without asking again");
    assert_eq!(t.script.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_failure_kind_backs_off() {
    for kind in [Kind::Transient, Kind::Rejected, Kind::Misconfigured, Kind::NeedsLogin] {
        let t = setup(true, [Step::Fail(kind)]);
        // A caller a second, all hour long.
        for _ in 0..3600 {
            pass(1).await;
            t.keeper.get(need(0, 0)).await.expect_err("fails");
        }
        let attempts = t.script.asked().len();
        assert!(attempts < 400, "{kind:?}: {attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_over_when_it_comes_is_a_failure_and_backs_off() {
    let t = setup(true, [Step::Token(0)]);
    pass(600).await;
    let attempts = t.script.asked().len();
    assert!(attempts < 80, "{attempts}");
    assert_eq!(t.keeper.snapshot().state(t.clock.now()), api::State::Failed);

    let t = setup(true, [Step::Token(100), Step::Token(0)]);
    pass(80).await;
    assert!(t.keeper.peek(Duration::ZERO).is_some(), "the last good token was thrown away");
}

#[tokio::test(start_paused = true)]
async fn the_servers_retry_after_is_obeyed_even_when_forced() {
    let t = setup(true, [Step::ServerAsks(100), Step::Token(3600)]);
    pass(1).await;
    t.keeper.refresh(Duration::from_secs(20)).await.expect_err("too soon");
    pass(90).await;
    assert_eq!(t.script.asked().len(), 1);
    pass(30).await;
    assert_eq!(t.script.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hung_renewal_delays_no_caller_that_has_a_token() {
    let t = setup(true, [Step::Token(1000), Step::Hang]);
    pass(700).await;
    assert!(t.keeper.snapshot().renewing);
    let before = t.clock.now().boot;
    t.keeper.get(need(0, 30)).await.expect("from memory");
    assert_eq!(t.clock.now().boot, before);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_does_not_cancel_the_renewal() {
    let t = setup(false, [Step::Hang]);
    let first = tokio::spawn({
        let keeper = t.keeper.clone();
        async move { keeper.get(need(0, 100)).await }
    });
    pass(1).await;
    first.abort();
    let second = tokio::spawn({
        let keeper = t.keeper.clone();
        async move { keeper.get(need(0, 100)).await }
    });
    pass(1).await;
    t.script.0.gate.notify_one();
    second.await.unwrap().expect("served by the first caller's renewal");
    assert_eq!(t.script.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn asking_for_more_life_than_there_is_says_how_much_there_is() {
    let t = setup(false, [Step::Token(600)]);
    let error = t.keeper.get(need(3600, 30)).await.expect_err("too short");
    assert_eq!(error.kind, Kind::TooShort);
    assert!(matches!(error.reason, Reason::LifetimeTooShort { left: 600, .. }), "{error:?}");
    for _ in 0..100 {
        t.keeper.get(need(3600, 30)).await.expect_err("too short");
    }
    assert_eq!(t.script.asked().len(), 1, "callers that ask for too much life cause no further renewals");
    pass(60).await;
    t.keeper.get(need(590, 30)).await.expect("renewed for more life");
    assert_eq!(t.script.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_report_of_the_current_token_renews_once_and_a_stale_one_nothing() {
    let t = setup(true, [Step::Token(3600)]);
    pass(100).await;
    let current = t.keeper.peek(Duration::ZERO).expect("fresh").hash();
    assert!(!t.keeper.rejected(TokenHash::of("another")));
    for _ in 0..64 {
        t.keeper.rejected(current);
    }
    pass(20).await;
    assert_eq!(t.script.asked().len(), 2);
    assert!(!t.keeper.rejected(current), "the report is stale now");
    pass(20).await;
    assert_eq!(t.script.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn rejecting_every_new_token_is_rate_limited() {
    let t = setup(true, [Step::Token(3600)]);
    pass(100).await;
    let before = t.script.asked().len();
    for _ in 0..100 {
        let current = t.keeper.peek(Duration::ZERO).expect("fresh").hash();
        t.keeper.rejected(current);
        pass(1).await;
    }
    assert!(t.script.asked().len() - before <= 21, "{:?}", t.script.asked());
}

#[tokio::test(start_paused = true)]
async fn a_clock_step_renews_at_once() {
    for step in [7200, -7200] {
        let t = setup(true, [Step::Token(3600)]);
        pass(100).await;
        t.clock.step(step);
        pass(10).await;
        assert_eq!(t.script.asked().len(), 2, "step {step}");
        assert_eq!(t.keeper.snapshot().state(t.clock.now()), api::State::Fresh);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_does_not_stretch_a_tokens_life() {
    let t = setup(true, [Step::Token(1000), Step::Fail(Kind::Transient)]);
    pass(100).await;
    t.clock.step(-86_400);
    pass(850).await;
    assert!(t.keeper.peek(Duration::ZERO).is_some());
    pass(50).await;
    assert!(t.keeper.peek(Duration::ZERO).is_none(), "its 1000 s are over, whatever the wall clock says");
}

#[tokio::test(start_paused = true)]
async fn signing_in_is_noticed_at_once() {
    let t = setup(true, [Step::Fail(Kind::NeedsLogin), Step::Token(3600)]);
    pass(3600).await;
    assert_eq!(t.script.asked().len(), 1, "the provider is not asked while signed out");
    assert_eq!(t.keeper.snapshot().state(t.clock.now()), api::State::NeedsLogin);
    t.keeper.reset();
    pass(1).await;
    assert_eq!(t.keeper.snapshot().state(t.clock.now()), api::State::Fresh);
}

#[tokio::test(start_paused = true)]
async fn looking_again_is_one_attempt_and_in_backoff_none() {
    let t = setup(false, [Step::Fail(Kind::Transient), Step::Token(3600)]);
    let before = t.clock.now().boot;
    t.keeper.fetch_new(Duration::from_secs(100)).await.expect_err("the one attempt failed");
    t.keeper.fetch_new(Duration::from_secs(100)).await.expect_err("in the backoff of the first");
    assert_eq!((t.script.asked().len(), t.clock.now().boot - before), (1, Duration::ZERO));
    pass(2).await;
    t.keeper.fetch_new(Duration::from_secs(100)).await.expect("after the backoff");
}

#[tokio::test(start_paused = true)]
async fn what_a_renewal_brings_after_a_sign_out_is_not_kept() {
    let t = setup(true, [Step::Hang, Step::Fail(Kind::NeedsLogin)]);
    pass(1).await;
    assert!(t.keeper.snapshot().renewing);
    t.keeper.forget();
    t.script.0.gate.notify_one();
    pass(1).await;
    let snapshot = t.keeper.snapshot();
    assert!(snapshot.token.is_none() && !snapshot.renewing);
    assert_eq!(snapshot.state(t.clock.now()), api::State::NeedsLogin, "whoever waits is told");
    assert_eq!(t.script.asked().len(), 2);
}

fn unreachable() -> Step {
    let fault = NetworkFault::Refused;
    Step::FailBecause(Reason::Unreachable { host: "idp.example".to_owned(), fault })
}

#[tokio::test(start_paused = true)]
async fn while_somebody_waits_a_network_fault_is_tried_again_within_seconds() {
    // Long after the fault began the backoff is up to a minute.
    let t = setup(true, [vec![unreachable(); 12], vec![Step::Token(3600)]].concat());
    while t.script.asked().len() < 10 {
        pass(1).await;
    }
    let asked = t.clock.now().boot;
    t.keeper.get(need(0, 30)).await.expect("the way is back");
    let took = t.clock.now().boot - asked;
    assert!(took <= Duration::from_secs(10), "three attempts took {took:?}");
    let gaps: Vec<_> = t.script.asked().windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The backoff is drawn at random, and may itself be less than a second.
    assert!(gaps.iter().rev().take(2).all(|gap| *gap <= 4), "bounded: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_servers_own_fault_is_not_asked_again_sooner_because_somebody_waits() {
    let t = setup(true, [vec![Step::Fail(Kind::Transient); 12], vec![Step::Token(3600)]].concat());
    while t.script.asked().len() < 9 {
        pass(1).await;
    }
    let due = t.keeper.snapshot().due.expect("a next attempt").boot;
    let before = t.script.asked().len();
    let _ = t.keeper.get(need(0, 1)).await;
    if t.clock.now().boot < due {
        assert_eq!(t.script.asked().len(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_route_ends_the_backoff_of_a_network_fault_but_not_with_every_message() {
    let t = setup(true, [unreachable()]);
    while t.script.asked().len() < 10 {
        pass(1).await;
    }
    let before = t.script.asked().len();
    for _ in 0..1000 {
        t.keeper.due_soon();
        t.keeper.shared.wake.notify_one();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let attempts = t.script.asked().len() - before;
    assert!((3..=6).contains(&attempts), "{attempts} attempts in 5 s");
}

#[tokio::test(start_paused = true)]
async fn a_token_taken_over_is_renewed_when_it_would_have_been() {
    let clock = Clock::paused();
    let restore = |life: u64, age: u64| {
        let expiry = Expiry::after(clock.now(), Duration::from_secs(life - age));
        let token = AccessToken::new("restored".to_owned(), expiry);
        let restored = Restored { token, age: Duration::from_secs(age) };
        let snapshot = Snapshot::restored(Some(restored), Policy::SdkMargin, clock.now());
        (snapshot.due.expect("due").boot - clock.now().boot).as_secs() + age
    };
    for age in [0, 600, 1800] {
        let due = restore(3600, age);
        assert!((2159..=2520).contains(&due), "at {due} s of its life, taken over at {age} s");
    }
    assert_eq!(restore(3600, 3000), 3000, "overdue: at once");
    assert_eq!(restore(330, 200), 200, "the SDK would exchange by itself");
}

/// What an earlier daemon left is fresh, so the loop begins without a timer; then somebody needs the token.
async fn renewed_for(needs: impl FnOnce(&Arc<Demand>, Now) -> Option<JobGuard>) -> usize {
    let clock = Clock::paused();
    let script = Script::new(&clock, [Step::Token(3600)]);
    let demand = Arc::new(Demand::new(false));
    let label = Label { profile: "test".into(), stage: Stage::Exchange };
    let expiry = Expiry::after(clock.now(), Duration::from_secs(3600));
    let token = AccessToken::new("restored".to_owned(), expiry);
    let restored = Some(Restored { token, age: Duration::ZERO });
    let keeper = Keeper::new(label, Policy::SdkMargin, Arc::clone(&demand), clock.clone(), restored);
    tokio::spawn(keeper.run(script.clone()));
    pass(60).await;
    let _held = needs(&demand, clock.now());
    pass(2600).await;
    script.asked().len()
}

#[tokio::test(start_paused = true)]
async fn a_token_taken_over_is_renewed_for_a_job_that_never_asks() {
    assert_eq!(renewed_for(|demand, _| Some(demand.hold())).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_taken_over_is_renewed_once_somebody_has_asked_for_it() {
    assert_eq!(
        renewed_for(|demand, now| {
            demand.touch(now);
            None
        })
        .await,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_taken_over_is_not_renewed_for_nobody() {
    assert_eq!(renewed_for(|_, _| None).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_forced_renewal_so_soon_after_another_waits_for_its_turn_or_says_so() {
    let t = setup(false, [Step::Token(3600)]);
    t.keeper.refresh(Duration::from_secs(30)).await.expect("renewed");
    let error = t.keeper.refresh(Duration::ZERO).await.expect_err("nothing was renewed");
    assert_eq!((error.kind, t.script.asked().len()), (Kind::TooSoon, 1));
    let token = t.keeper.refresh(Duration::from_secs(30)).await.expect("renewed");
    assert_eq!((t.script.asked(), token.hash()), (vec![0, 5], TokenHash::of("token-2")));
}
