//! The first sign-in on a machine: finds out the issuer and the client id, and writes them down.

use std::io::IsTerminal as _;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{ask, tell};
use crate::cli::failure::{Exit, Failure};
use crate::cli::{daemon_binary, init};
use crate::env::Env;
use crate::paths::Places;

/// For a machine where nothing is configured yet.
// clap names the group after the type, and `login` has an `Args` of its own.
#[derive(clap::Args)]
#[group(id = "first")]
pub(super) struct Args {
    /// The identity provider's issuer, for a machine without configuration
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The client id that the identity provider knows this command by
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// A W&B server that names the issuer and client id
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The W&B organization to ask the server about
    #[arg(long, value_name = "NAME", requires = "host")]
    organization: Option<String>,
    /// Where to keep the session: keyring, kernel or file
    #[arg(long, value_name = "STORE", value_parser = ["keyring", "kernel", "file"])]
    token_store: Option<String>,
}

/// What `wandb-credd discover` prints.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    client_id: String,
}

impl Args {
    /// Writes the configuration, if there is none and the arguments (or the person) say enough.
    pub(super) fn configure(&self, profile: Option<String>, env: &Env) -> Result<(), Failure> {
        let config = Places::find(env)?.config;
        let given = self.issuer.is_some() || self.client_id.is_some() || self.host.is_some();
        if config.symlink_metadata().is_ok() {
            if given {
                let what =
                    format!("{} exists, so --issuer, --client-id and --host are not used", config.display());
                return Err(Failure::new(Exit::Usage, what).next("edit the file, or leave them out"));
            }
            return Ok(());
        }
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let (issuer, client_id) = match (&self.issuer, &self.client_id, &self.host) {
            (issuer, client_id, Some(host)) => {
                let found = discover(host, self.organization.as_deref(), env)?;
                confirm(&found, issuer.as_deref(), client_id.as_deref(), host, terminal)?;
                (found.issuer, found.client_id)
            }
            (Some(issuer), Some(client_id), None) => (issuer.clone(), client_id.clone()),
            (issuer, client_id, None) if terminal => {
                tell(&format!("Nothing is configured yet ({} is missing).", config.display()));
                let issuer = match issuer {
                    Some(issuer) => issuer.clone(),
                    None => ask("Issuer of your identity provider (https://...): ")?,
                };
                let client_id = match client_id {
                    Some(id) => id.clone(),
                    None => ask("Client id of wandb-cred there: ")?,
                };
                (issuer, client_id)
            }
            _ => {
                let what = format!("nothing is configured ({} is missing)", config.display());
                return Err(Failure::new(Exit::Configuration, what).next(
                    "wandb-cred login --issuer URL --client-id ID, or --host HOST --organization NAME",
                ));
            }
        };
        let text = self.render(&profile.unwrap_or_else(|| "default".to_owned()), &issuer, &client_id);
        init::write(&config, &text, false)?;
        tell(&format!("Wrote {}.", config.display()));
        Ok(())
    }

    fn render(&self, profile: &str, issuer: &str, client_id: &str) -> String {
        let quote = |text: &str| toml::Value::from(text).to_string();
        let name = if profile.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            profile.to_owned()
        } else {
            quote(profile)
        };
        let mut text = format!("[profile.{name}]\n");
        if let Some(host) = &self.host {
            let base = if host.contains("://") { host.clone() } else { format!("https://{host}") };
            text += &format!("base-url = {}\n", quote(&base));
        }
        text += &format!(
            "\n[profile.{name}.provider.oidc]\nissuer = {}\nclient-id = {}\n",
            quote(issuer),
            quote(client_id)
        );
        if let Some(store) = &self.token_store {
            text += &format!("token-store = {}\n", quote(store));
        }
        text
    }
}

fn discover(host: &str, organization: Option<&str>, env: &Env) -> Result<Discovered, Failure> {
    let program = daemon_binary::find(env);
    let mut command = Command::new(&program);
    command.args(["discover", "--host", host]).stdin(Stdio::null()).stderr(Stdio::inherit());
    if let Some(organization) = organization {
        command.args(["--organization", organization]);
    }
    let output = command.output().map_err(|error| daemon_binary::failure(&program, &error))?;
    match output.status.code() {
        Some(0) => serde_json::from_slice(&output.stdout).map_err(|_| {
            Failure::new(Exit::Unavailable, "wandb-credd discover printed something unexpected")
        }),
        // It has said on stderr what is wrong.
        Some(code @ 64..=78) => Err(Failure::silent(code as u8)),
        _ => Err(Failure::new(Exit::Unavailable, format!("wandb-credd discover: {}", output.status))),
    }
}

/// An organization's name is known to everybody, and a command can be pasted: so the identity provider that a
/// server names is used only if the person has typed it, as an argument or now.
fn confirm(
    found: &Discovered,
    issuer: Option<&str>,
    client_id: Option<&str>,
    host: &str,
    terminal: bool,
) -> Result<(), Failure> {
    for (what, typed, said) in [("issuer", issuer, &found.issuer), ("client id", client_id, &found.client_id)]
    {
        if typed.is_some_and(|typed| typed != said) {
            let what = format!("{host} names another {what} than you did: {said}");
            return Err(Failure::new(Exit::Configuration, what)
                .next("ask your administrator which of the two is right"));
        }
    }
    if issuer.is_some() {
        return Ok(());
    }
    let name = found.issuer.split('/').nth(2).unwrap_or_default();
    if !terminal {
        let what =
            format!("{host} names {} as the identity provider, which nobody has confirmed", found.issuer);
        return Err(Failure::new(Exit::Usage, what).next(format!("add --issuer {}", found.issuer)));
    }
    tell(&format!("{host} sends you to sign in at {} (client id {}).", found.issuer, found.client_id));
    let typed = ask(&format!("If that is your organization's, type its host name ({name}): "))?;
    if typed == name {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, "not confirmed, so nothing was written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Discovered {
        Discovered { issuer: "https://idp.example/acme".into(), client_id: "cli".into() }
    }

    #[test]
    fn a_servers_word_alone_leads_nobody_to_sign_in() {
        let refused = confirm(&found(), None, None, "wandb.example", false).expect_err("unconfirmed");
        assert!(refused.what().contains("nobody has confirmed"));
        let other = confirm(&found(), Some("https://idp.example"), None, "wandb.example", false);
        assert!(other.expect_err("differs").what().contains("another issuer"));
        let other = confirm(&found(), Some("https://idp.example/acme"), Some("x"), "wandb.example", true);
        assert!(other.expect_err("differs").what().contains("another client id"));
        confirm(&found(), Some("https://idp.example/acme"), None, "wandb.example", false).expect("confirmed");
    }

    #[test]
    fn what_is_written_is_toml_whatever_was_typed() {
        let args = Args {
            issuer: None,
            client_id: None,
            host: Some("wandb.example".into()),
            organization: None,
            token_store: Some("file".into()),
        };
        let text = args.render("my profile", "https://idp.example/\"x", "a\\b");
        let parsed: toml::Table = text.parse().expect("TOML");
        let oidc = &parsed["profile"]["my profile"]["provider"]["oidc"];
        assert_eq!(oidc["issuer"].as_str(), Some("https://idp.example/\"x"));
        assert_eq!(oidc["client-id"].as_str(), Some("a\\b"));
        assert_eq!(parsed["profile"]["my profile"]["base-url"].as_str(), Some("https://wandb.example"));
    }
}
