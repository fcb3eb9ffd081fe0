//! The time that an input takes, per byte.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Runs `work` on `input`, and fails if that takes longer than any reader needs whose time grows with the input's length
/// only.
///
/// It is this thread's CPU time, so that a busy machine does not matter. A run that took too long is repeated: what is
/// slow is slow each time.
pub fn in_linear_time(work: fn(&[u8]), input: &[u8]) {
    let bound = START + PER_BYTE * u32::try_from(input.len()).expect("a small input");
    let mut took = Duration::MAX;
    for _ in 0..3 {
        let before = cpu_time();
        work(input);
        took = took.min(cpu_time().saturating_sub(before));
        if took <= bound {
            return;
        }
        if took > 4 * bound {
            break;
        }
    }
    panic!("{} bytes took {took:?}, more than {bound:?}; they begin with {}", input.len(), shown(input));
}

fn shown(input: &[u8]) -> String {
    input.escape_ascii().to_string().chars().take(120).collect()
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// For tables that are built on first use.
const START: Duration = Duration::from_millis(30);

/// Several times what the slowest reader takes in a build without optimization. A build for fuzzing counts every branch.
const PER_BYTE: Duration = Duration::from_micros(if cfg!(fuzzing) { 8 } else { 2 });
