//! `wandb-cred token`: one access token, in the form its reader wants.

use std::time::Duration;

use clap::ValueEnum;

use super::command_error::{CommandError, Outcome};
use super::need::NeedArg;
use super::profile::ProfileArg;
use super::{login, on_demand, shell};
use crate::api;
use crate::client::{ANSWER_MARGIN, Client};
use crate::env::Env;
use crate::error::Exit;
use crate::{duration, output, paths};

/// Print an access token
#[derive(clap::Args)]
#[command(long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArg,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Format::Plain)]
    format: Format,
    /// Ask for a token that is good for at least that long, such as 5m; a bare number is seconds
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_argument)]
    min_ttl: Option<Duration>,
    /// Wait at most that long if no token is ready [default: the daemon's limit]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_argument)]
    wait: Option<Duration>,
    #[command(flatten)]
    need: NeedArg,
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

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    let mut target = args.profile.target("/v1/token", env);
    let wait = args.wait.or(paths::starts_with_others(env).then_some(PATIENCE));
    for (name, value) in [("min_ttl", args.min_ttl), ("wait", wait)] {
        if let Some(value) = value {
            target += if target.contains('?') { "&" } else { "?" };
            target += &format!("{name}={}", value.as_secs());
        }
    }
    let timeout = args.wait.unwrap_or(TOKEN_TIMEOUT).saturating_add(ANSWER_MARGIN);
    let request = |client: &Client| client.get_body(&target, timeout);
    let (daemon, body) = on_demand::ask(env, request)?;
    let client = daemon.client;
    let body = login::or_offer(&client, body, env, request)?;
    let token: api::Token = client.parse(&body)?;
    // A token goes into headers, shells and files, where anything but a bearer token could do harm.
    if !is_bearer(&token.access_token) {
        return Err(CommandError::new(
            Exit::Configuration,
            "the daemon's answer holds no usable access token",
        )
        .hint("wandb-cred refresh"));
    }
    args.need.check(&client, &token.profile)?;
    if let Some(words) = env.var(MASK) {
        // Before the token itself: a CI system masks what comes after the command.
        output::eprint_line(&output::printable(&format!("{words}{}", token.access_token)));
    }
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
            // Neither value holds anything that JSON escapes: one was checked, the other is a time.
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

/// In a job that starts together with what writes its identity: as long as the daemon waits for what passes by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the daemon may take for a first exchange, if the caller does not say.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);

/// The words by which the CI system of this job is told, in a line of output, to mask what follows them (GitHub:
/// `::add-mask::`). The step that starts the daemon can mask only the token of that moment, not its successors.
const MASK: &str = "WANDB_CRED_MASK";

const DETAILS: &str = "\
Print a W&B access token. It is always one that is still good.

The token comes from the daemon's memory, which takes less than a millisecond. Only if
the profile has not been used for a while, the daemon makes one exchange first, however
many programs ask.

W&B accepts the token as an HTTP bearer token. It is not an API key: WANDB_API_KEY does
not take it. To run a program that uses the W&B SDK, use wandb-cred exec.

In a CI job, WANDB_CRED_MASK holds the words by which the system is told to mask what
follows them (GitHub: ::add-mask::). They and the token then come first, on standard error.";

const EXAMPLES: &str = "Examples:
  curl -H \"$(wandb-cred token --format header)\" https://api.wandb.ai/graphql ...
  wandb-cred token --format header | curl -H @- ...       keeps the token out of the process list
  wandb-cred token --min-ttl 30m                          good for half an hour, or exit code 75
  wandb-cred token --need 72h >/dev/null && sbatch job    ask first, then queue for three days";
