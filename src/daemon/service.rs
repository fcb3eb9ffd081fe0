//! What the service manager is told (sd_notify(3)). Nothing happens where there is none.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::Clock;

pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// With the time that `Type=notify-reload` wants.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the watchdog that the one thread still turns, at half the interval it asks for. Never ends; without
/// a watchdog it never wakes either.
pub(super) async fn watchdog(clock: &Clock) {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| *interval > Duration::ZERO) else {
        return std::future::pending().await;
    };
    loop {
        tell(&[NotifyState::Watchdog]);
        // By the kernel's timer: one of the runtime's would make every wait of the server a timed one.
        clock.sleep(interval / 2).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that is gone is no reason to stop serving.
    let _ = sd_notify::notify(states);
}
