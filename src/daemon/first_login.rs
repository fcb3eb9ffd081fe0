//! `wandb-credd first-login`: finds out the issuer and the client ID for signing in, and writes a configuration file.
//!
//! `wandb-cred login` runs it first, to write a draft, and again when the sign-in and the exchange have worked, to keep that.
//! If there is a configuration file, it does nothing.

use std::path::PathBuf;

use super::failure::Failure;
use super::{Source, init};
use crate::atomic_file;
use crate::clock::Clock;
use crate::config::Config;
use crate::env::Env;
use crate::error::{Error, Exit, Stage};
use crate::http::Http;
use crate::oidc::discover::{self, CliConfig};
use crate::output::{eprint_line, is_interactive};
use crate::prompt::ask;
use crate::setup_args::FirstLoginArgs;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The name of the profile to write
    #[arg(long, default_value = "default", value_name = "NAME")]
    profile: String,
    #[command(flatten)]
    first: FirstLoginArgs,
    /// Write this file instead, which no daemon reads by itself
    #[arg(long, value_name = "PATH")]
    draft: Option<PathBuf>,
    /// Write the configuration from this draft
    #[arg(long, value_name = "PATH", conflicts_with = "draft")]
    keep: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let places = super::places(&args.source)?;
    let config = places.config.clone();
    if let Some(draft) = &args.keep {
        let text = std::fs::read_to_string(draft).map_err(|error| Error::io(Stage::Files, draft, &error))?;
        init::write(&places, &text, false)?;
        eprint_line(&format!("Wrote {}.", config.display()));
        return Ok(());
    }
    let given = args.first.issuer.is_some() || args.first.client_id.is_some() || args.first.host.is_some();
    if config.symlink_metadata().is_ok() {
        if !given {
            return Ok(());
        }
        let message =
            format!("{} exists, so --issuer, --client-id and --host have no effect", config.display());
        return Err(Failure::next(Exit::Usage, message, "edit the file, or leave the options out").into());
    }
    let interactive = is_interactive();
    let (issuer, client_id) = match (&args.first.issuer, &args.first.client_id, &args.first.host) {
        (issuer, client_id, Some(host)) => {
            let http = Http::new(Clock::system());
            let asked = discover::cli_config(&http, host, args.first.organization.as_deref());
            let found = super::runtime()?.block_on(asked)?;
            confirm(&found, issuer.as_deref(), client_id.as_deref(), host, interactive)?;
            (found.issuer, found.client_id)
        }
        (Some(issuer), Some(client_id), None) => (issuer.clone(), client_id.clone()),
        (issuer, client_id, None) if interactive => {
            eprint_line(&format!("Nothing is configured yet ({} is missing).", config.display()));
            let issuer = match issuer {
                Some(issuer) => issuer.clone(),
                None => ask("Issuer of your identity provider (https://...): ")?,
            };
            let client_id = match client_id {
                Some(id) => id.clone(),
                None => ask("Client ID of wandb-cred there: ")?,
            };
            (issuer, client_id)
        }
        _ => {
            let message = format!("nothing is configured ({} is missing)", config.display());
            let next = "wandb-cred login --issuer URL --client-id ID, or --host HOST --organization NAME";
            return Err(Failure::next(Exit::Configuration, message, next).into());
        }
    };
    let text = args.render(&issuer, &client_id, Env::system().var("WANDB_BASE_URL"));
    if let Some(draft) = &args.draft {
        // What `check` would refuse could not serve the sign-in either.
        Config::parse(&text).map_err(|mistake| Failure::new(Exit::Usage, mistake.message))?;
        atomic_file::create(draft, text.as_bytes())
            .map_err(|atomic_file::Error { path, source }| Error::io(Stage::Files, &path, &source))?;
        return Ok(());
    }
    init::write(&places, &text, false)?;
    eprint_line(&format!("Wrote {}.", config.display()));
    Ok(())
}

impl Args {
    fn render(&self, issuer: &str, client_id: &str, usual: Option<String>) -> String {
        let quote = init::quote;
        let name = if self.profile.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            self.profile.clone()
        } else {
            quote(&self.profile)
        };
        let mut text = format!("[profile.{name}]\n");
        if let Some(host) = self.first.host.as_ref().or(usual.as_ref()) {
            let base = if host.contains("://") { host.clone() } else { format!("https://{host}") };
            text += &format!("base-url = {}\n", quote(&base));
        }
        text += &format!(
            "\n[profile.{name}.provider.oidc]\nissuer = {}\nclient-id = {}\n",
            quote(issuer),
            quote(client_id)
        );
        if let Some(store) = &self.first.token_store {
            text += &format!("token-store = {}\n", quote(store));
        }
        text
    }
}

/// Anybody can know an organization's name and get somebody to paste a command. So the identity provider that a server
/// names is used only if the person types it, as an argument or now.
fn confirm(
    found: &CliConfig,
    issuer: Option<&str>,
    client_id: Option<&str>,
    host: &str,
    interactive: bool,
) -> anyhow::Result<()> {
    for (what, typed, said) in [("issuer", issuer, &found.issuer), ("client ID", client_id, &found.client_id)]
    {
        if typed.is_some_and(|typed| typed != said) {
            let message = format!("{host} names another {what} than you did: {said}");
            let next = "ask your administrator which one is right";
            return Err(Failure::next(Exit::Configuration, message, next).into());
        }
    }
    if issuer.is_some() {
        return Ok(());
    }
    if !interactive {
        let issuer = &found.issuer;
        let message = format!("{host} names {issuer} as the identity provider, which you have not confirmed");
        return Err(Failure::next(Exit::Usage, message, format_args!("add --issuer {issuer}")).into());
    }
    let name = found.issuer.split('/').nth(2).unwrap_or_default();
    eprint_line(&format!("{host} sends you to sign in at {} (client ID {}).", found.issuer, found.client_id));
    let typed =
        ask(&format!("If this is your organization's identity provider, type its host name ({name}): "))?;
    if typed == name {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, "not confirmed, so nothing was written").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_word_alone_leads_nobody_to_sign_in() {
        let found = CliConfig {
            issuer: "https://idp.example/acme".into(),
            client_id: "cli".into(),
            scopes: Vec::new(),
            auth_methods: None,
        };
        let refused = |issuer, client_id| {
            let error = confirm(&found, issuer, client_id, "wandb.example", false).expect_err("refused");
            error.to_string()
        };
        assert!(refused(None, None).contains("you have not confirmed"));
        assert!(refused(Some("https://idp.example"), None).contains("another issuer"));
        assert!(refused(Some("https://idp.example/acme"), Some("x")).contains("another client ID"));
        confirm(&found, Some("https://idp.example/acme"), None, "wandb.example", false).expect("confirmed");
    }

    #[test]
    fn what_is_written_is_toml_whatever_was_typed() {
        let args = Args {
            source: Source { config: None },
            profile: "my profile".into(),
            first: FirstLoginArgs {
                issuer: None,
                client_id: None,
                host: Some("wandb.example".into()),
                organization: None,
                token_store: Some("file".into()),
            },
            draft: None,
            keep: None,
        };
        let text = args.render("https://idp.example/\"x", "a\\b", None);
        let parsed: toml::Table = text.parse().expect("TOML");
        let oidc = &parsed["profile"]["my profile"]["provider"]["oidc"];
        assert_eq!(oidc["issuer"].as_str(), Some("https://idp.example/\"x"));
        assert_eq!(oidc["client-id"].as_str(), Some("a\\b"));
        assert_eq!(parsed["profile"]["my profile"]["base-url"].as_str(), Some("https://wandb.example"));
    }
}
