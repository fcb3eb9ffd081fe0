//! Desktop notifications: a session is about to end, or has ended.
//!
//! Best effort: without a desktop there is no notification and no error.

use std::time::Duration;

/// Shows a notification. Returns whether a desktop accepted it.
pub async fn notify(summary: &str, body: &str) -> bool {
    tokio::time::timeout(TIMEOUT, show(summary, body)).await.unwrap_or(false)
}

/// freedesktop.org's notification service, over the session bus.
#[cfg(target_os = "linux")]
async fn show(summary: &str, body: &str) -> bool {
    use std::collections::HashMap;

    use zbus::zvariant::Value;
    const NAME: &str = "org.freedesktop.Notifications";
    let Ok(bus) = zbus::Connection::session().await else { return false };
    let actions: &[&str] = &[];
    let hints = HashMap::from([("urgency", Value::from(1u8))]);
    let (replaces_none, default_timeout) = (0u32, -1i32);
    let message =
        ("wandb-cred", replaces_none, "dialog-password", summary, body, actions, hints, default_timeout);
    bus.call_method(Some(NAME), "/org/freedesktop/Notifications", Some(NAME), "Notify", &message)
        .await
        .is_ok()
}

#[cfg(target_os = "macos")]
async fn show(summary: &str, body: &str) -> bool {
    // The texts are arguments of the script, never a part of it.
    const SCRIPT: &str =
        "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run";
    let mut command = tokio::process::Command::new("/usr/bin/osascript");
    command.args(["-e", SCRIPT, summary, body]).kill_on_drop(true);
    command.output().await.is_ok_and(|output| output.status.success())
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
async fn show(_summary: &str, _body: &str) -> bool {
    false
}

const TIMEOUT: Duration = Duration::from_secs(3);
