//! `wandb-cred login`: signs a person in, with a browser on this machine or a code typed on another.
//!
//! The daemon does the work; this command opens the browser, shows what to do, and waits for the end. If nothing is
//! configured yet, it writes the configuration first.

mod configure;

use std::process::{self, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::command_error::{CommandError, Outcome};
use super::on_demand;
use super::profile::ProfileArg;
use crate::api::next_command;
use crate::api::{self, LoginMethod, LoginState, ProblemKind};
use crate::client::{self, Client};
use crate::env::Env;
use crate::error::Exit;
use crate::output::{self, eprint_line};
use crate::prompt;
use crate::setup_args::FirstLoginArgs;

/// Sign in with your organization's identity provider
#[derive(clap::Args)]
#[command(long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    profile: ProfileArg,
    /// Sign in on another device, by typing a code there
    #[arg(long)]
    device: bool,
    /// Print the address instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    #[command(flatten)]
    first_login: FirstLoginArgs,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    configure::configure(&args.first_login, args.profile.name(env).as_deref(), env)?;
    let client = on_demand::find_or_start(env)?.client;
    let method = if args.device { LoginMethod::Device } else { LoginMethod::Browser };
    let login = sign_in(&client, args.profile.name(env), method, !args.no_browser, env)?;
    output::print_line(format!("{}: signed in{}", login.profile, as_account(&login)))?;
    Ok(Exit::Success)
}

/// Offers to sign in, if that is what the failed request needs and a person is there to do it. `Ok` means that the
/// request may be repeated.
fn offer(client: &Client, error: client::Error, env: &Env) -> Result<(), CommandError> {
    let profile = match &error {
        client::Error::Problem(problem) if problem.kind == ProblemKind::NeedsLogin => problem.profile.clone(),
        _ => None,
    };
    let Some(profile) = profile.filter(|_| output::is_interactive()) else { return Err(error.into()) };
    eprint_line(&format!("wandb-cred: {}", output::printable(&error.to_string())));
    let answer = prompt::ask("Sign in now? [Y/n] ")
        .map_err(|error| CommandError::new(Exit::Unavailable, format!("cannot ask: {error}")))?;
    if answer.to_ascii_lowercase().starts_with('n') {
        return Err(error.into());
    }
    let login = sign_in(client, Some(profile), LoginMethod::Browser, true, env)?;
    eprint_line(&format!("Signed in{}.", as_account(&login)));
    Ok(())
}

/// The answer; if a person must sign in and does so now, that of a second attempt.
pub(super) fn or_offer<T>(
    client: &Client,
    answer: Result<T, client::Error>,
    env: &Env,
    again: impl Fn(&Client) -> Result<T, client::Error>,
) -> Result<T, CommandError> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(error) => {
            offer(client, error, env)?;
            Ok(again(client)?)
        }
    }
}

fn as_account(login: &api::Login) -> String {
    login.account.as_ref().map_or(String::new(), |account| format!(" as {}", output::printable(account)))
}

/// Starts a sign-in, or joins the one under way, and waits for its end.
fn sign_in(
    client: &Client,
    profile: Option<String>,
    method: LoginMethod,
    open: bool,
    env: &Env,
) -> Result<api::Login, CommandError> {
    let request = api::LoginRequest { profile, method };
    let mut login: api::Login = client.post("/v1/login", &request, LOGIN_TIMEOUT)?;
    match &login.user_code {
        Some(code) => {
            eprint_line(&format!("On any device, open  {}\nand type the code   {code}", login.url));
            if let Some(url) = &login.url_with_code {
                eprint_line(&format!("or open             {url}"));
            }
        }
        None if login.state == LoginState::Waiting && open && browse(&login.url, env) => {
            eprint_line(&format!("Your browser opens to sign in. If it does not, open:\n{}", login.url));
        }
        None if login.state == LoginState::Waiting => {
            eprint_line(&format!(
                "To sign in, open this address in a browser on this machine:\n{}\n(no browser here? use: wandb-cred login --device)",
                login.url
            ));
        }
        None => {}
    }
    let target = format!("/v1/login/{}", login.id);
    // Asks at once, so that the daemon knows of a command that waits, and gives up when it goes.
    while login.state == LoginState::Waiting {
        login = client.get(&target, LOGIN_TIMEOUT)?;
        if login.state == LoginState::Waiting {
            sleep(POLL_INTERVAL);
        }
    }
    if login.state == LoginState::Failed {
        let why = login.error.unwrap_or_else(|| "the sign-in failed".to_owned());
        // A daemon of an earlier version does not say.
        let next = login.next.or_else(|| next_command(ProblemKind::NeedsLogin, Some(&login.profile)));
        return Err(CommandError::new(Exit::NeedsLogin, why).hint(next.unwrap_or_default()));
    }
    Ok(login)
}

/// Opens `url`, if there is a desktop to open it on.
fn browse(url: &str, env: &Env) -> bool {
    let program = match env.var("BROWSER") {
        Some(browser) if !browser.contains([' ', ':', '%']) => browser,
        _ if cfg!(target_os = "macos") => "/usr/bin/open".to_owned(),
        _ if env.var("DISPLAY").is_some() || env.var("WAYLAND_DISPLAY").is_some() => "xdg-open".to_owned(),
        _ => return false,
    };
    let mut command = process::Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().is_ok()
}

/// How often to ask whether the person is done.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The daemon may have to ask the identity provider once or twice.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

const DETAILS: &str = "\
Sign in with your organization's identity provider. Once is enough: the daemon stores
the session in the keyring, so it survives restarts, and renews the tokens by itself.

A browser opens on this machine. Over SSH, use --device and sign in on any other device.
If a sign-in is already under way, this joins it.

If nothing is configured yet, name the identity provider (--issuer and --client-id), or
a W&B server that knows it (--host and --organization). What the server says is compared
with what you type, and written to config.toml.";

const EXAMPLES: &str = "Examples:
  wandb-cred login
  wandb-cred login --device                                  no browser on this machine
  wandb-cred login --issuer https://acme.okta.com --client-id 0oa1b2c3
  wandb-cred login --host wandb.acme.example --organization acme";
