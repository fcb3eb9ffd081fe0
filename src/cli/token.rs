//! `wandb-cred token`: one access token, in the form its reader wants.

use std::time::Duration;

use clap::{ArgMatches, Command, ValueEnum};

use super::failure::{Exit, Failure};
use super::{Outcome, Verb, login, need, output, profile, shell};
use crate::api;
use crate::client::Client;
use crate::env::Env;

pub(super) const VERB: Verb = Verb { name: "token", about: "Print an access token", args, run };

#[derive(clap::Args)]
struct Args {
    #[command(flatten)]
    profile: profile::Choice,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Format::Plain)]
    format: Format,
    /// Ask for a token with at least that many seconds of life left
    #[arg(long, value_name = "SECONDS")]
    min_ttl: Option<u64>,
    /// Wait at most that many seconds for a token, where none is at hand [default: the daemon's]
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,
    #[command(flatten)]
    need: need::Need,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
enum Format {
    /// The token alone
    #[default]
    Plain,
    /// The daemon's whole answer
    Json,
    /// A line for HTTP: Authorization: Bearer TOKEN
    Header,
    /// WANDB_CRED_ACCESS_TOKEN=, WANDB_CRED_EXPIRES_AT= and WANDB_BASE_URL=
    Env,
    /// {"Version":1,"AccessToken":...,"TokenType":"Bearer","Expiration":...}
    CredentialProcess,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS).after_help(EXAMPLES)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let client = Client::find(env)?;
    let mut target = args.profile.target("/v1/token", env);
    for (name, value) in [("min_ttl", args.min_ttl), ("wait", args.wait.map(u64::from))] {
        if let Some(value) = value {
            target += if target.contains('?') { "&" } else { "?" };
            target += name;
            target += "=";
            target += &value.to_string();
        }
    }
    let patience = args.wait.map_or(PATIENCE, |wait| Duration::from_secs(wait.into())) + GRACE;
    let body = match client.get_body(&target, patience) {
        Ok(body) => body,
        Err(error) => {
            login::offer(&client, error, env)?;
            client.get_body(&target, patience).map_err(|error| Failure::of(error, env))?
        }
    };
    let token: api::Token = client.parse(&body).map_err(|error| Failure::of(error, env))?;
    // A token goes into headers, shells and files: one that is more than a word would do more than identify.
    if !is_bearer(&token.access_token) {
        return Err(Failure::new(Exit::Configuration, "the daemon's answer holds no usable access token")
            .next("wandb-cred refresh"));
    }
    args.need.check(&client, &token.profile, env)?;
    output::print_line(match args.format {
        Format::Json => String::from_utf8_lossy(&body).trim_end().to_owned(),
        format => render(&token, format),
    })?;
    Ok(Exit::Success)
}

fn render(token: &api::Token, format: Format) -> String {
    let api::Token { access_token, expires_at, base_url, .. } = token;
    match format {
        Format::Plain | Format::Json => access_token.clone(),
        Format::Header => format!("Authorization: Bearer {access_token}"),
        Format::Env => format!(
            "WANDB_CRED_ACCESS_TOKEN={access_token}\nWANDB_CRED_EXPIRES_AT={expires_at}\nWANDB_BASE_URL={}",
            shell::Shell::Sh.quote(base_url)
        ),
        Format::CredentialProcess => {
            // Both values are free of anything that JSON escapes: the one was checked, the other is a time.
            format!(
                r#"{{"Version":1,"AccessToken":"{access_token}","TokenType":"Bearer","Expiration":"{expires_at}"}}"#
            )
        }
    }
}

/// The `b64token` of RFC 6750, the only form that fits an Authorization header.
fn is_bearer(token: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    !token.is_empty() && token.bytes().all(fits)
}

/// How long the daemon may take for a first exchange, if the caller does not say.
const PATIENCE: Duration = Duration::from_secs(60);

/// For the daemon to answer after its own deadline.
pub(super) const GRACE: Duration = Duration::from_secs(5);

const DETAILS: &str = "\
Print an access token for Weights & Biases, always one that is still good.

It comes from the daemon's memory, which takes less than a millisecond, unless the
profile has not been used for a while: then the daemon makes one exchange first, however
many ask.

W&B takes the token as an HTTP bearer token. It is not an API key: WANDB_API_KEY does
not take it. To run a program that uses the W&B SDK, use wandb-cred exec.";

const EXAMPLES: &str = "Examples:
  curl -H \"$(wandb-cred token --format header)\" https://api.wandb.ai/graphql ...
  wandb-cred token --format header | curl -H @- ...       keeps it out of the process list
  wandb-cred token --min-ttl 1800                         good for half an hour, or exit code 75
  wandb-cred token --need 72h >/dev/null && sbatch job    ask first, then queue for three days";
