//! Processes of this user that were given something of ours: their environment says so (proc_pid_environ(5)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use super::Process;

/// The processes in whose environment `variable` has a value of ours, with what `ours` makes of it. None where there is no
/// `/proc`, and none of those that hide their environment. Blocks for about a millisecond for each hundred processes of
/// this user.
pub fn of<T>(variable: &str, ours: impl Fn(&OsStr) -> Option<T>) -> Vec<(Process, T)> {
    let uid = rustix::process::geteuid().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            if pid == std::process::id() || entry.metadata().ok()?.uid() != uid {
                return None;
            }
            let environment = std::fs::read(entry.path().join("environ")).ok()?;
            let carried = ours(value(&environment, variable)?)?;
            Some((Process::find(pid)?, carried))
        })
        .collect()
}

fn value<'a>(environment: &'a [u8], variable: &str) -> Option<&'a OsStr> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(variable.as_bytes())?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value))
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_what_it_was_given() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env("OUR_FILE", "/run/ours-of-a-test/profiles/work/token")
            .spawn()
            .expect("starts");
        // The kernel tells of the start before it shows the environment.
        let given = "/run/ours-of-a-test/profiles/work/token";
        let look = || of("OUR_FILE", |value| (value == given).then_some(7));
        let found = (0..1000).map(|_| look()).find(|found| !found.is_empty()).unwrap_or_default();
        let others = of("OUR_FIL", |_| Some(()));
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        assert_eq!(
            found.iter().map(|(process, seven)| (process.pid, *seven)).collect::<Vec<_>>(),
            [(child.id(), 7)]
        );
        assert_eq!(others, []);
    }
}
