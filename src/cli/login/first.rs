//! The first sign-in on a machine: the daemon's program finds out the issuer and the client id, and writes them
//! down.

use std::io::ErrorKind;
use std::process;

use crate::cli::daemon_binary;
use crate::cli::failure::{Exit, Failure};
use crate::env::Env;

/// For a machine where nothing is configured yet.
// `wandb-credd first-login` takes the same.
// clap names the group after the type, and `login` has an `Args` of its own.
#[derive(clap::Args)]
#[group(id = "first")]
pub(crate) struct Args {
    /// The identity provider's issuer, for a machine without configuration
    #[arg(long, value_name = "URL")]
    pub(crate) issuer: Option<String>,
    /// The client id that the identity provider knows this command by
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// A W&B server that names the issuer and client id
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// The W&B organization to ask the server about
    #[arg(long, value_name = "NAME", requires = "host")]
    pub(crate) organization: Option<String>,
    /// Where to keep the session: keyring, kernel or file
    #[arg(long, value_name = "STORE", value_parser = ["keyring", "kernel", "file"])]
    pub(crate) token_store: Option<String>,
}

impl Args {
    /// Sees to it that there is a configuration, asking the person where these arguments do not say enough.
    pub(super) fn configure(&self, profile: Option<&str>, env: &Env) -> Result<(), Failure> {
        let program = daemon_binary::find(env);
        let mut command = process::Command::new(&program);
        command.arg("first-login");
        let mut given = false;
        for (name, value) in [
            ("--issuer", self.issuer.as_deref()),
            ("--client-id", self.client_id.as_deref()),
            ("--host", self.host.as_deref()),
            ("--organization", self.organization.as_deref()),
            ("--token-store", self.token_store.as_deref()),
        ] {
            if let Some(value) = value {
                command.arg(format!("{name}={value}"));
                given = true;
            }
        }
        if let Some(profile) = profile {
            command.arg(format!("--profile={profile}"));
        }
        let status = match command.status() {
            // A container may hold this program alone, beside the socket of a daemon that is configured elsewhere.
            Err(error) if error.kind() == ErrorKind::NotFound && !given => return Ok(()),
            status => status.map_err(|error| daemon_binary::failure(&program, &error))?,
        };
        match status.code() {
            Some(0) => Ok(()),
            // It has said on stderr what is wrong.
            Some(code @ 64..=78) => Err(Failure::silent(code as u8)),
            _ => Err(Failure::new(Exit::Unavailable, format!("wandb-credd first-login: {status}"))),
        }
    }
}
