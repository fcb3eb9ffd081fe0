//! The two forms of a status: a table for a terminal, lines of `key: value` for a pipe.

use jiff::Timestamp;

use crate::api::next_command_in;
use crate::api::{Kept, Profile, State, Status};
use crate::duration;
use crate::output::Style;

/// A profile is as good as its access token, until a person must act.
pub(super) fn overall(profile: &Profile) -> State {
    match (profile.access.state, identity_state(profile)) {
        (State::Fresh, _) => State::Fresh,
        (access, Some(State::NeedsLogin)) if access != State::Stale => State::NeedsLogin,
        (State::Starting, Some(State::Failed)) => State::Failed,
        (access, _) => access,
    }
}

fn identity_state(profile: &Profile) -> Option<State> {
    profile.identity.as_ref().map(|identity| identity.state)
}

/// A row per profile, then remarks on what is unusual.
pub(super) fn table(status: &Status, now: Timestamp, style: Style) -> String {
    let head = format!("wandb-credd {} (pid {}) at {}", status.version, status.pid, status.socket.display());
    let mut text = style.faint(&clean(&head)) + "\n\n";
    if status.profiles.is_empty() {
        return text + "no profiles; next: wandb-cred init\n";
    }
    let columns = ["PROFILE", "STATE", "TOKEN LEFT", "RENEWAL", "IDENTITY LEFT", "JOBS", "SUBJECT"];
    let mut rows = vec![columns.map(str::to_owned)];
    rows.extend(status.profiles.iter().map(|profile| row(profile, now)));
    text += &align(&rows, |index, column, padded| match (index, column) {
        (0, _) => style.bold(padded),
        (_, 1) => colour(overall(&status.profiles[index - 1]), padded, style),
        _ => padded.to_owned(),
    });
    for profile in &status.profiles {
        let name = clean(&profile.name);
        for (key, value) in remarks(profile, now) {
            let value = clean(&value);
            let line = format!("\n{name}: {key}: {value}");
            text += &if key == "next" {
                format!("\n{name}: next: {}", style.bold(&value))
            } else {
                style.yellow(&line)
            };
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    for (key, value) in proxy(status) {
        text += &format!("\n{key}: {}\n", clean(&value));
    }
    text
}

/// Rows as lines, with each cell padded to its column's width and then decorated.
pub(super) fn align<const N: usize>(
    rows: &[[String; N]],
    decorate: impl Fn(usize, usize, &str) -> String,
) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            // A column in which nothing stands takes no room.
            let padding = if widths[column] == 0 { 0 } else { widths[column] + 2 };
            let padded = if column + 1 < N { format!("{cell:<padding$}") } else { cell.clone() };
            line += &decorate(index, column, &padded);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The loopback proxy, and each job that uses it.
fn proxy(status: &Status) -> Vec<(&'static str, String)> {
    let Some(proxy) = &status.proxy else { return Vec::new() };
    let trouble = if proxy.listening { "" } else { ", which another program has taken" };
    let mut lines = vec![("proxy", format!("{}{trouble}", proxy.url))];
    lines.extend(proxy.jobs.iter().map(|job| {
        let who = job.pid.map_or_else(|| "a process that is not seen".to_owned(), |pid| format!("pid {pid}"));
        let line = format!(
            "{who}, profile {}: {} requests, {} of them sent again, {} bytes sent, {} received",
            job.profile, job.requests, job.replays, job.bytes_sent, job.bytes_received
        );
        ("proxy job", line)
    }));
    lines
}

fn row(profile: &Profile, now: Timestamp) -> [String; 7] {
    let star = if profile.default { "*" } else { "" };
    let renewal = match profile.access.next_renewal {
        Some(at) => format!("in {}", duration::text(seconds_until(at, now))),
        None if !profile.hot && profile.access.expires_at.is_some() => "on next use".to_owned(),
        None => "-".to_owned(),
    };
    let who = profile.person.as_ref().map(|person| &person.account).or(profile.subject.as_ref());
    [
        clean(&profile.name) + star,
        state(overall(profile)).to_owned(),
        left(&profile.access),
        renewal,
        profile.identity.as_ref().map_or("-".to_owned(), left),
        profile.jobs.to_string(),
        who.map_or("-".to_owned(), |who| clean(who)),
    ]
}

/// What a person should know beyond the table.
fn remarks(profile: &Profile, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut remarks = Vec::new();
    let kept = match &profile.identity {
        Some(identity) => vec![("identity", identity), ("exchange", &profile.access)],
        None => vec![("tokens", &profile.access)],
    };
    for (key, kept) in kept {
        if let Some(error) = &kept.last_error {
            let times = if kept.failures > 1 {
                format!(" ({} times in a row)", kept.failures)
            } else {
                String::new()
            };
            remarks.push((key, format!("{error}{times}")));
        }
    }
    if let Some(error) = profile.sdk_files.as_ref().and_then(|files| files.error.as_ref()) {
        remarks.push(("SDK files", error.clone()));
    }
    if let Some(outlook) = &profile.outlook {
        let left = duration::text(seconds_until(outlook.until, now));
        remarks.push(("outlook", format!("until {} (in {left}): {}", outlook.until, outlook.reason)));
    }
    if let Some(next) = next(profile) {
        remarks.push(("next", next));
    }
    remarks
}

/// The command to type, if one is needed.
fn next(profile: &Profile) -> Option<String> {
    // Whether tokens are there or not: without a sign-in there will be none.
    let state =
        if identity_state(profile) == Some(State::NeedsLogin) { State::NeedsLogin } else { overall(profile) };
    next_command_in(state, &profile.provider, &profile.name)
}

/// A block of `key: value` lines per profile, without colour or padding.
pub(super) fn blocks(status: &Status, now: Timestamp) -> String {
    let mut text = String::new();
    for profile in &status.profiles {
        if !text.is_empty() {
            text.push('\n');
        }
        let mut line = |key: &str, value: &str| {
            text += key;
            text += ": ";
            text += &clean(value);
            text.push('\n');
        };
        line("profile", &profile.name);
        line("default", if profile.default { "yes" } else { "no" });
        line("state", state(overall(profile)));
        line("server", &profile.base_url);
        line("provider", &profile.provider);
        for (name, value) in
            [("issuer", &profile.issuer), ("subject", &profile.subject), ("audience", &profile.audience)]
        {
            if let Some(value) = value {
                line(name, value);
            }
        }
        if let Some(person) = &profile.person {
            line("signed in", &format!("{} since {}", person.account, person.since));
        }
        let identity = profile.identity.as_ref().map(|identity| ("identity token", identity));
        for (name, kept) in std::iter::once(("access token", &profile.access)).chain(identity) {
            if let Some(at) = kept.expires_at {
                line(name, &format!("expires at {at}, in {}", left(kept)));
            }
        }
        if let Some(at) = profile.access.next_renewal {
            line("next renewal", &format!("{at}, in {}", duration::text(seconds_until(at, now))));
        }
        line("jobs", &profile.jobs.to_string());
        for (key, value) in remarks(profile, now) {
            line(key, &value);
        }
    }
    for (index, (key, value)) in proxy(status).into_iter().enumerate() {
        let gap = if index == 0 && !text.is_empty() { "\n" } else { "" };
        text += &format!("{gap}{key}: {}\n", clean(&value));
    }
    text
}

fn left(kept: &Kept) -> String {
    kept.expires_in.map_or("-".to_owned(), duration::text)
}

fn seconds_until(at: Timestamp, now: Timestamp) -> u64 {
    at.duration_since(now).as_secs().try_into().unwrap_or(0)
}

fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Fresh => "fresh",
        State::Stale => "stale",
        State::NeedsLogin => "needs-login",
        State::Failed => "failed",
    }
}

fn colour(state: State, text: &str, style: Style) -> String {
    match state {
        State::Fresh => style.green(text),
        State::Starting => text.to_owned(),
        State::Stale => style.yellow(text),
        State::NeedsLogin | State::Failed => style.red(text),
    }
}

/// Subjects and error texts are foreign, and must neither control the terminal nor break a line.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::Outlook;

    pub(in crate::cli::status) fn profile() -> Profile {
        let kept = Kept {
            state: State::Fresh,
            expires_at: Some(at(3600)),
            expires_in: Some(3600),
            next_renewal: Some(at(2400)),
            last_error: None,
            failures: 0,
        };
        Profile {
            name: "work".into(),
            default: true,
            base_url: "https://api.wandb.ai".into(),
            provider: "file".into(),
            audience: Some("acme".into()),
            hot: true,
            identity: Some(Kept { expires_at: Some(at(600)), expires_in: Some(600), ..kept.clone() }),
            access: kept,
            issuer: Some("https://idp.example".into()),
            subject: Some("ada@example.com".into()),
            person: None,
            outlook: None,
            sdk_files: None,
            jobs: 1,
            exchanges: 3,
        }
    }

    pub(in crate::cli::status) fn status(profiles: Vec<Profile>) -> Status {
        Status {
            version: "0.1.0".into(),
            pid: 7,
            started_at: at(0),
            socket: "/run/user/1/wandb-cred/wandb-cred.sock".into(),
            config: None,
            profiles,
            job_list: None,
            proxy: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
    }

    #[test]
    fn a_good_profile_is_one_row() {
        let text = table(&status(vec![profile()]), at(0), Style::plain());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "PROFILE  STATE  TOKEN LEFT  RENEWAL    IDENTITY LEFT  JOBS  SUBJECT");
        assert_eq!(lines[3], "work*    fresh  1 h         in 40 min  10 min         1     ada@example.com");
        assert_eq!(lines.len(), 4, "{text}");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_next_command() {
        let mut bad = profile();
        bad.access.state = State::Failed;
        bad.access.last_error = Some("api.wandb.ai did not answer within 10s\x1b[2J".into());
        bad.access.failures = 4;
        bad.outlook = Some(Outlook { until: at(7200), reason: "the job's token ends then".into() });
        let text = table(&status(vec![bad.clone()]), at(0), Style::plain());
        assert!(text.contains("work: exchange: api.wandb.ai did not answer within 10s"), "{text}");
        assert!(text.contains("(4 times in a row)"), "{text}");
        assert!(text.contains("(in 2 h): the job's token ends then"), "{text}");
        assert!(text.contains("next: wandb-cred refresh --profile work"), "{text}");
        assert!(!text.contains('\x1b'), "foreign text controls the terminal: {text:?}");
        let plain = blocks(&status(vec![bad]), at(0));
        assert!(plain.contains("state: failed\n"), "{plain}");
        assert!(plain.contains("next: wandb-cred refresh --profile work\n"), "{plain}");
    }
}
