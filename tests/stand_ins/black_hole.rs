//! Where link-local addresses lead nowhere, looking for a cloud must not take long.

use std::process::Command;
use std::time::Duration;

use wandb_cred::clock::Clock;

#[test]
#[ignore = "needs iproute2 and the right to make a network namespace"]
fn a_metadata_address_that_is_a_black_hole_holds_nothing_up() {
    // In a network of its own, where what is sent to link-local addresses vanishes without an answer.
    let script = "ip link set lo up && ip link add hole type veth peer name end && ip link set hole up \
                  && ip link set end up && ip addr add 169.254.1.1/16 dev hole \
                  && ip neigh add 169.254.169.254 lladdr 02:00:00:00:00:01 dev hole && exec \"$0\" init --dry-run";
    let dir = tempfile::tempdir().expect("temp dir");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script, env!("CARGO_BIN_EXE_wandb-credd")]).env_clear();
    command.env("PATH", std::env::var("PATH").unwrap_or_default()).env("HOME", dir.path());
    let started = Clock::system().now().boot;
    let output = command.output().expect("unshare runs");
    let took = Clock::system().now().boot - started;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(took > Duration::from_millis(400), "it was no black hole: {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}
