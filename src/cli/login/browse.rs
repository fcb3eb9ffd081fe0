//! Opens the person's browser.

use std::process::{Command, Stdio};

use crate::env::Env;

/// Opens `url`, if there is a desktop to open it on.
pub(super) fn browse(url: &str, env: &Env) -> bool {
    let own = env.var("BROWSER").filter(|browser| !browser.contains([' ', ':', '%']));
    if let Some(browser) = own {
        return opens(&browser, &[url]);
    }
    if cfg!(target_os = "macos") {
        return opens("/usr/bin/open", &[url]);
    }
    if env.var("WSL_DISTRO_NAME").is_some() {
        // Windows' own browser, which reaches our loopback. Not tested on Windows.
        let quoted = url.replace('\'', "''");
        let start = format!("Start-Process '{quoted}'");
        return opens("wslview", &[url]) || opens("powershell.exe", &["-NoProfile", "-Command", &start]);
    }
    let desktop = env.var("DISPLAY").is_some() || env.var("WAYLAND_DISPLAY").is_some();
    desktop && opens("xdg-open", &[url])
}

fn opens(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().is_ok()
}
