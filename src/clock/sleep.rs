//! Waiting by the wall clock.
//!
//! On Linux a timerfd on the real-time clock does that without any polling, and is cancelled by the kernel when
//! somebody sets the clock or the machine resumes. Elsewhere short naps do.

use std::time::Duration;

use super::{Clock, Kind, Now, system_now};

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The time came.
    Elapsed,
    /// The wall clock was set, or the machine resumed from suspend: look at everything again.
    Stepped,
}

impl Clock {
    /// Waits until `duration` has passed on the wall clock, or the clock was stepped.
    pub async fn sleep(&self, duration: Duration) -> Wake {
        let duration = duration.min(MAX_SLEEP);
        match &self.kind {
            Kind::System | Kind::Off(_) => system_sleep(duration).await,
            #[cfg(test)]
            Kind::Test(paused) => paused.sleep(duration).await,
        }
    }
}

/// Sleeps with the kernel's help; falls back to naps where timerfd is missing (some sandboxes).
#[cfg(target_os = "linux")]
async fn system_sleep(duration: Duration) -> Wake {
    match timerfd(duration) {
        Ok(timer) => match wait_timerfd(timer).await {
            Ok(wake) => wake,
            Err(_) => naps(duration).await,
        },
        Err(_) => naps(duration).await,
    }
}

#[cfg(not(target_os = "linux"))]
async fn system_sleep(duration: Duration) -> Wake {
    naps(duration).await
}

#[cfg(target_os = "linux")]
fn timerfd(duration: Duration) -> std::io::Result<rustix::fd::OwnedFd> {
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    let due = system_now().wall + duration.max(Duration::from_nanos(1));
    let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let spec = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: due.as_second(), tv_nsec: due.subsec_nanosecond().into() },
    };
    timerfd_settime(&fd, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &spec)?;
    Ok(fd)
}

#[cfg(target_os = "linux")]
async fn wait_timerfd(timer: rustix::fd::OwnedFd) -> std::io::Result<Wake> {
    // tokio's pipe reader is its one safe owner of "any descriptor that can be polled and read".
    let timer = tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(timer)?;
    loop {
        timer.readable().await?;
        match timer.try_read(&mut [0; 8]) {
            Ok(_) => return Ok(Wake::Elapsed),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) => {
                return Ok(Wake::Stepped);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Sleeps in short pieces, and looks after each whether the clocks still agree.
async fn naps(duration: Duration) -> Wake {
    let start = system_now();
    let due = start.wall + duration;
    let mut before = start;
    loop {
        let left = Duration::try_from(due.duration_since(before.wall)).unwrap_or_default();
        if left.is_zero() {
            return Wake::Elapsed;
        }
        tokio::time::sleep(left.min(NAP)).await;
        let after = system_now();
        if disagree(before, after) || after.boot.saturating_sub(before.boot) > NAP + DISAGREEMENT {
            return Wake::Stepped;
        }
        before = after;
    }
}

/// Whether the two clocks moved by different amounts between two readings: the wall clock was set.
pub fn disagree(before: Now, after: Now) -> bool {
    let wall = after.wall.duration_since(before.wall).as_millis();
    let boot = after.boot.saturating_sub(before.boot).as_millis() as i128;
    (wall - boot).unsigned_abs() > DISAGREEMENT.as_millis()
}

/// How far NTP slewing and scheduling may take the clocks apart without a step.
const DISAGREEMENT: Duration = Duration::from_secs(3);

/// Longest nap where no kernel timer tells of a step.
const NAP: Duration = Duration::from_secs(30);

/// No wait is longer; the caller then looks again.
const MAX_SLEEP: Duration = Duration::from_secs(24 * 3600);
