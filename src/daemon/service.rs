//! Notifies the service manager (sd_notify(3)), if there is one.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::Clock;

/// Lets go of the terminal, or the pipe, of whoever started us: what reads it must not wait for our end.
pub(super) fn leave_terminal() {
    if let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(nowhere);
    }
}

pub(super) fn ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// Includes the time that `Type=notify-reload` needs.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the watchdog that the daemon's one thread still runs, twice per interval. Never returns; without a watchdog it
/// never wakes up either.
pub(super) async fn watchdog(clock: &Clock) {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| *interval > Duration::ZERO) else {
        return std::future::pending().await;
    };
    loop {
        notify(&[NotifyState::Watchdog]);
        // This clock uses a timer of the kernel's. With one of the runtime's, every wait of the server would need a
        // timeout.
        clock.sleep(interval / 2).await;
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // If the manager is gone, the daemon still serves.
    let _ = sd_notify::notify(states);
}
