//! Processes of this user that were given one of our paths: their environment says so (proc_pid_environ(5)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Process;

/// A process, and the path that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrier {
    pub process: Process,
    pub path: PathBuf,
}

/// The processes in whose environment `variable` names a path below `folder`. None where there is no `/proc`, and none of
/// those that hide their environment. Blocks for about a millisecond for each hundred processes of this user.
pub fn of(variable: &str, folder: &Path) -> Vec<Carrier> {
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
            let path = value(&environment, variable).filter(|path| path.starts_with(folder))?;
            Some(Carrier { process: Process::find(pid)?, path: path.to_owned() })
        })
        .collect()
}

fn value<'a>(environment: &'a [u8], variable: &str) -> Option<&'a Path> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(variable.as_bytes())?.strip_prefix(b"=")?;
        Some(Path::new(OsStr::from_bytes(value)))
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
        let look = || of("OUR_FILE", Path::new("/run/ours-of-a-test/profiles"));
        let found = (0..1000).map(|_| look()).find(|found| !found.is_empty()).unwrap_or_default();
        let others = of("OUR_FILE", Path::new("/run/ours-of-a"));
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        let expected = Path::new("/run/ours-of-a-test/profiles/work/token");
        assert_eq!(
            found.iter().map(|carrier| (carrier.process.pid, &*carrier.path)).collect::<Vec<_>>(),
            [(child.id(), expected)]
        );
        assert_eq!(others, []);
    }
}
