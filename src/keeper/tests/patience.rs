//! What a caller waits for, and what it is told at once.

use super::*;
use crate::error::FileFault;

fn no_way_to(host: &str, fault: NetworkFault) -> Step {
    Step::FailBecause(Reason::Unreachable { host: host.to_owned(), fault })
}

fn missing_file() -> Step {
    Step::FailBecause(Reason::File { path: "/token".into(), fault: FileFault::Missing })
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_by_itself_is_answered_at_once_unless_the_caller_is_patient() {
    for fault in [
        missing_file(),
        no_way_to("127.0.0.1", NetworkFault::Refused),
        no_way_to("localhost:8080", NetworkFault::Refused),
        no_way_to("[::1]:8080", NetworkFault::Refused),
        no_way_to("unix:/run/other.sock", NetworkFault::Refused),
        no_way_to("idp.exmaple", NetworkFault::UnknownName),
        no_way_to("idp.example", NetworkFault::CertificateUntrusted),
    ] {
        let t = setup(false, [fault.clone(), fault.clone(), Step::Token(3600)]);
        let before = t.clock.now().boot;
        t.keeper.get(need(0, 30)).await.expect_err("it waits in vain");
        assert_eq!(t.clock.now().boot, before);
        t.keeper.get_patiently(need(0, 30)).await.expect("somebody did something");
    }
    // These may.
    for fault in [unreachable(), no_way_to("idp.example", NetworkFault::Other)] {
        let t = setup(false, [fault, Step::Token(3600)]);
        t.keeper.get(need(0, 30)).await.expect("the way is back");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_mended_here_is_seen_by_the_next_who_asks() {
    // Long after it began the backoff is a minute.
    let t = setup(true, [vec![missing_file(); 12], vec![Step::Token(3600)]].concat());
    while t.script.asked().len() < 12 {
        pass(1).await;
    }
    let asked = t.clock.now().boot;
    t.keeper.get(need(0, 30)).await.expect("the file is there");
    assert!(t.clock.now().boot - asked <= Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_a_missing_file_is_looked_for_twice_a_second_at_most() {
    let t = setup(false, [missing_file()]);
    for _ in 0..1000 {
        t.keeper.get(need(0, 30)).await.expect_err("it is not there");
    }
    let took = t.clock.now().boot.as_secs() as usize;
    assert!(t.script.asked().len() <= 2 * took + 2, "{} times in {took} s", t.script.asked().len());
}

#[tokio::test(start_paused = true)]
async fn a_person_who_says_so_ends_the_backoff_but_not_a_servers_word() {
    let t = setup(false, [Step::Fail(Kind::Rejected), Step::Token(3600)]);
    t.keeper.get(need(0, 30)).await.expect_err("refused");
    t.keeper.hurry();
    t.keeper.fetch_new(Duration::ZERO).await.expect_err("it is not waited for");
    pass(1).await;
    t.keeper.get(need(0, 0)).await.expect("it was due");

    let t = setup(false, [Step::ServerAsks(60), Step::Token(3600)]);
    t.keeper.get(need(0, 1)).await.expect_err("busy");
    t.keeper.hurry();
    assert!(
        t.keeper.snapshot().due.expect("a next attempt").boot >= t.clock.now().boot + Duration::from_secs(58)
    );
}

#[tokio::test(start_paused = true)]
async fn the_backoff_of_the_identity_does_not_hold_up_a_forced_renewal_of_the_access_token() {
    let mut snapshot = Snapshot::<AccessToken>::default();
    let now = Clock::paused().now();
    let failed = |stage| {
        Error::new(stage, Kind::Misconfigured, Reason::Other, "x").retry_after(Some(Duration::from_secs(30)))
    };
    snapshot.begin(now);
    snapshot.on_failure(failed(Stage::Identity), Stage::Exchange, now);
    let forced = Wanted { renewal: true, forced: true };
    assert_eq!(snapshot.next_wake(forced, false, now), Some(Duration::from_secs(5)));
    snapshot.on_failure(failed(Stage::Exchange), Stage::Exchange, now);
    assert!(snapshot.next_wake(forced, false, now) >= Some(Duration::from_secs(30)));
}
