//! Opens the person's browser.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::env::Env;

/// Opens `url`, if there is a desktop to open it on.
pub(super) fn browse(url: &str, env: &Env) -> bool {
    let own = env.var("BROWSER").filter(|browser| !browser.contains([' ', ':', '%']));
    if let Some(browser) = own {
        return opens(&browser, &[url]);
    }
    let kernel = std::fs::read_to_string("/proc/version").unwrap_or_default();
    if is_windows_beneath(&kernel, env) {
        return opens_in_windows(url);
    }
    if cfg!(target_os = "macos") {
        // Over ssh the desktop is that of whoever sits there.
        return env.var("SSH_CONNECTION").is_none() && opens("/usr/bin/open", &[url]);
    }
    let desktop = env.var("DISPLAY").is_some() || env.var("WAYLAND_DISPLAY").is_some();
    desktop && opens("xdg-open", &[url])
}

/// Whether this is the Windows Subsystem for Linux. sudo and ssh take its variable away, so the kernel is asked too: it is
/// Microsoft's, and says so (microsoft/WSL#4071). A container on such a kernel has no Windows to start programs of.
fn is_windows_beneath(kernel: &str, env: &Env) -> bool {
    let interop = || Path::new("/proc/sys/fs/binfmt_misc/WSLInterop").exists();
    env.var("WSL_DISTRO_NAME").is_some() || kernel.to_ascii_lowercase().contains("microsoft") && interop()
}

/// In Windows' own browser, which reaches our loopback. Not run on Windows: the tests have stand-ins for these programs.
fn opens_in_windows(url: &str) -> bool {
    // wslu's, which many distributions bring; then what is always there, though not always in PATH.
    if opens("wslview", &[url]) {
        return true;
    }
    let quoted = url.replace('\'', "''");
    let start = format!("Start-Process '{quoted}'");
    ["", SYSTEM32].into_iter().any(|folder| {
        let shell = if folder.is_empty() { "" } else { "WindowsPowerShell/v1.0/" };
        opens(&format!("{folder}{shell}powershell.exe"), &["-NoProfile", "-Command", &start])
            || opens(&format!("{folder}rundll32.exe"), &["url.dll,FileProtocolHandler", url])
    })
}

/// Whether the program starts, and does not fail at once: `xdg-open` ends so where there is no browser.
fn opens(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    for _ in 0..LOOKS {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => sleep(LOOK_INTERVAL),
            Err(_) => break,
        }
    }
    true
}

const SYSTEM32: &str = "/mnt/c/Windows/System32/";

/// Half a second: what lasts longer is a browser.
const LOOKS: u32 = 25;
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_tells_of_windows_and_a_kernel_of_somebody_elses_does_not() {
        let with = |variables: &[(&str, &str)], kernel: &str| {
            is_windows_beneath(kernel, &Env::fixed(variables.iter().copied()))
        };
        assert!(with(&[("WSL_DISTRO_NAME", "Debian")], ""));
        assert!(!with(&[], "Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)"));
    }
}
