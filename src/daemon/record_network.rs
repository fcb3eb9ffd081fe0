//! `wandb-credd record-network`: what a shell knows of its network, written down for a service, which does not see the shell.
//!
//! `wandb-cred service install` runs it. A person is asked; otherwise it says what it would write, and how to have it written.

use std::path::Path;

use super::failure::Failure;
use super::{Source, init};
use crate::atomic_file;
use crate::config::Config;
use crate::env::Env;
use crate::error::{Error, Exit, Stage};
use crate::http::Proxy;
use crate::output::{self, eprint_line};
use crate::prompt::ask;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let (env, places) = (Env::system(), super::places(&args.source)?);
    let path = &places.config;
    let shell = Shell::of(&env);
    if shell.keys.is_empty() && shell.notes.is_empty() {
        return Ok(());
    }
    let Ok(text) = std::fs::read_to_string(path) else {
        say(&shell, &[])?;
        output::print_line(format!(
            "note: there is no configuration to record it in; next: wandb-cred init, then: wandb-cred service install --yes ({} \
                 is missing)",
            path.display()
        ))?;
        return Ok(());
    };
    // A mistake in it is for `check` to explain.
    let Ok(config) = Config::parse(&text) else { return Ok(()) };
    let wanted: Vec<_> = config
        .profiles
        .iter()
        .filter(|(_, profile)| profile.provider().is_some())
        .filter_map(|(name, profile)| {
            let missing = shell.keys.iter().filter(|key| match key.name {
                "ca-file" => profile.network.ca_file.is_none(),
                _ => profile.network.proxy.is_none(),
            });
            let missing: Vec<_> = missing.collect();
            (!missing.is_empty()).then_some((name.as_str(), missing))
        })
        .collect();
    if wanted.is_empty() && shell.notes.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
    say(&shell, &names)?;
    if wanted.is_empty() {
        return Ok(());
    }
    if args.dry_run || !args.yes && !output::is_interactive() {
        output::print_line("note: not recorded; to have it recorded: wandb-cred service install --yes")?;
        return Ok(());
    }
    if !args.yes {
        let question = format!("Record that in {}? [Y/n] ", path.display());
        if ask(&question)?.to_ascii_lowercase().starts_with('n') {
            return Ok(());
        }
    }
    let written = wanted.iter().fold(text, |text, (name, keys)| with_keys(text, name, keys));
    // By hand, and so looked at once more: tables can be written in other ways than the usual one.
    if Config::parse(&written).map_or(true, |config| !config.broken.is_empty()) {
        let message = format!("{} is written in a way that nothing can be added to", path.display());
        let next = "add these keys to the profiles yourself, then: wandb-cred check";
        return Err(Failure::next(Exit::Configuration, message, next).into());
    }
    let target = path.canonicalize().unwrap_or_else(|_| path.clone());
    atomic_file::replace(&target, written.as_bytes())
        .map_err(|atomic_file::Error { path, source }| Error::io(Stage::Files, &path, &source))?;
    eprint_line(&format!("Recorded in {}.", path.display()));
    Ok(())
}

fn say(shell: &Shell, profiles: &[&str]) -> Result<(), output::Error> {
    let mut text = "This shell has a network of its own, which the service does not see:\n".to_owned();
    for Key { name, value, from } in &shell.keys {
        text += &format!("  {from}: {name} = {}\n", init::quote(value));
    }
    if !profiles.is_empty() && !shell.keys.is_empty() {
        text += &format!("  (for profile {})\n", profiles.join(", "));
    }
    for note in &shell.notes {
        text += &format!("  {note}\n");
    }
    output::print(&output::printable(&text))
}

/// What there is to record.
#[derive(Default)]
struct Shell {
    keys: Vec<Key>,
    /// What cannot be recorded, and why.
    notes: Vec<String>,
}

struct Key {
    name: &'static str,
    value: String,
    from: &'static str,
}

impl Shell {
    fn of(env: &Env) -> Self {
        let mut found = Self::default();
        let first =
            |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, env.var(name)?)));
        // As reqwest looks for them (hyper-util 0.1, `proxy/matcher.rs`). All requests are by https.
        if let Some((from, proxy)) =
            first(["HTTPS_PROXY", "https_proxy"]).or_else(|| first(["ALL_PROXY", "all_proxy"]))
        {
            let value = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
            match Proxy::parse(&value, None) {
                Ok(_) => {
                    found.keys.push(Key { name: "proxy", value, from });
                    if let Some((from, value)) = first(["NO_PROXY", "no_proxy"]) {
                        found.keys.push(Key { name: "no-proxy", value, from });
                    }
                }
                Err(_) if value.contains('@') => found.notes.push(format!(
                    "{from}: holds a user name or a password, which have no place in this file; give it to the service: \
                     systemctl --user edit wandb-cred.service (Environment={from}=...)"
                )),
                Err(_) => found.notes.push(format!("{from}: is not the URL of a proxy, so it is left out")),
            }
        }
        if let Some((from, value)) = first(["SSL_CERT_FILE", "SSL_CERT_DIR"]) {
            if Path::new(&value).is_absolute() && Path::new(&value).exists() {
                found.keys.push(Key { name: "ca-file", value, from });
            } else {
                found.notes.push(format!(
                    "{from}: names nothing that is there by its whole path, so it is left out"
                ));
            }
        }
        found
    }
}

/// The keys below the head of the profile's table, which is added if there are only tables below it.
fn with_keys(text: String, profile: &str, keys: &[&Key]) -> String {
    let lines: String =
        keys.iter().map(|Key { name, value, .. }| format!("{name} = {}\n", init::quote(value))).collect();
    let heads = [format!("[profile.{profile}]"), format!("[profile.\"{profile}\"]")];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let head = line.split('#').next().unwrap_or_default().trim();
        if heads.iter().any(|wanted| wanted == head) {
            let (before, after) = text.split_at(at);
            let gap = if before.ends_with('\n') { "" } else { "\n" };
            return format!("{before}{gap}{lines}{after}");
        }
    }
    let gap = if text.ends_with('\n') { "" } else { "\n" };
    format!(
        "{text}{gap}\n[profile.{}]\n{lines}",
        if profile.contains('.') { init::quote(profile) } else { profile.to_owned() }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(variables: &[(&str, &str)]) -> (Vec<(&'static str, String)>, Vec<String>) {
        let shell = Shell::of(&Env::fixed(variables.iter().copied()));
        (shell.keys.into_iter().map(|key| (key.name, key.value)).collect(), shell.notes)
    }

    #[test]
    fn what_a_shell_has_is_written_as_the_file_wants_it() {
        let (found, notes) = keys(&[
            ("https_proxy", "proxy.corp:3128"),
            ("ALL_PROXY", "socks5h://other:1080"),
            ("no_proxy", "localhost,.corp"),
            ("SSL_CERT_DIR", "/etc"),
        ]);
        let wanted =
            [("proxy", "http://proxy.corp:3128"), ("no-proxy", "localhost,.corp"), ("ca-file", "/etc")];
        assert_eq!(found, wanted.map(|(name, value)| (name, value.to_owned())));
        assert!(notes.is_empty());
        assert_eq!(keys(&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "x")]).0, [], "https goes elsewhere");
    }

    #[test]
    fn a_password_is_neither_recorded_nor_shown() {
        let (found, notes) =
            keys(&[("HTTPS_PROXY", "http://ada:planted@proxy.corp:3128"), ("SSL_CERT_FILE", "ca.pem")]);
        assert_eq!(found, []);
        assert!(notes.len() == 2 && !notes.concat().contains("planted"), "{notes:?}");
    }

    #[test]
    fn keys_go_to_their_profile_however_it_is_written() {
        let key = Key { name: "proxy", value: "http://p:1".to_owned(), from: "HTTPS_PROXY" };
        for text in [
            "[profile.work] # mine\naudience = \"x\"\n[profile.work.provider.file]\npath = \"/x\"\n",
            "[profile.work.provider.file]\npath = \"/x\"",
            "[profile.\"work\"]\n[profile.work.provider.file]\npath = \"/x\"",
        ] {
            let config = Config::parse(&with_keys(text.to_owned(), "work", &[&key])).expect(text);
            assert!(config.profiles["work"].network.proxy.is_some(), "{text}");
        }
        let dotted = "[profile.\"a.b\".provider.file]\npath = \"/x\"\n";
        let config = Config::parse(&with_keys(dotted.to_owned(), "a.b", &[&key])).expect("TOML");
        assert!(config.profiles["a.b"].network.proxy.is_some());
    }
}
