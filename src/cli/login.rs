//! `wandb-cred login`: signs a person in, with a browser on this machine or a code typed on another.
//!
//! The daemon does the work; this command opens the browser, shows what to do, and waits for the end. If nothing is
//! configured yet, it makes a draft of the configuration first, and keeps that when W&B has accepted the sign-in.

mod browse;
mod configure;

use std::thread::sleep;
use std::time::Duration;

use super::command_error::{CommandError, Outcome};
use super::profile::ProfileArg;
use super::{on_demand, private_daemon};
use crate::api::next_command;
use crate::api::{self, LoginMethod, LoginState, ProblemKind};
use crate::client::{self, ANSWER_MARGIN, Client, encode};
use crate::clock::{Clock, local};
use crate::env::Env;
use crate::error::Exit;
use crate::output::{self, eprint_line};
use crate::paths::Places;
use crate::setup_args::FirstLoginArgs;
use crate::{duration, prompt};
use browse::browse;

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
    let method = if args.device { LoginMethod::Device } else { LoginMethod::Browser };
    let name = args.profile.name(env);
    let begin = |client: &Client| sign_in(client, name.clone(), method, !args.no_browser, env);
    if is_first(&args.first_login, env)? {
        return first(args, begin, env);
    }
    let client = on_demand::find_or_start(env)?.client;
    let login = begin(&client)?;
    let accepted = accepted(&client, &login)
        .map_err(|error| error.because(&format!("you are signed in{}", as_account(&login))))?;
    output::print(&accepted)?;
    Ok(Exit::Success)
}

/// Whether this sign-in has to find out where: there is no configuration here, and no daemon that has one.
fn is_first(args: &FirstLoginArgs, env: &Env) -> Result<bool, CommandError> {
    let given = !args.to_flags().is_empty();
    if Places::find(env)?.config.symlink_metadata().is_ok() {
        // The program says what is wrong with options that nobody reads.
        return Ok(given);
    }
    let elsewhere = || {
        Client::find(env)
            .ok()
            .and_then(|client| client.status().ok())
            .is_some_and(|status| status.config.is_some())
    };
    Ok(given || !elsewhere() && configure::is_possible(env))
}

/// Nothing is written before W&B has taken what the sign-in gave: a daemon of this command's own does both, by a draft.
fn first(args: &Args, begin: impl Fn(&Client) -> Result<api::Login, CommandError>, env: &Env) -> Outcome {
    let folder = private_daemon::folder(env)?;
    let draft = folder.join("draft.toml");
    let client = configure::draft(&args.first_login, args.profile.name(env).as_deref(), &draft, env)
        .inspect_err(|_| drop(std::fs::remove_dir_all(&folder)))
        .and_then(|()| private_daemon::run(&folder, &["--config", &draft.to_string_lossy()], env))?;
    let login = begin(&client).map_err(|error| error.because("nothing was written"))?;
    let accepted = match accepted(&client, &login) {
        Ok(accepted) => accepted,
        Err(error) => {
            // Nobody knows of this session any more.
            let target = format!("/v1/logout?profile={}", encode(&login.profile));
            let _ = client.post_empty::<api::Logout>(&target, LOGIN_TIMEOUT);
            let why = format!("nothing was written: you signed in{}", as_account(&login));
            return Err(error.because(&why).hint(FIRST_FAILED));
        }
    };
    configure::keep(&draft, env)?;
    output::print(&accepted)?;
    output::print_line(
        "next: wandb-cred exec -- CMD (a daemon starts when one is needed), or wandb-cred service install",
    )?;
    Ok(Exit::Success)
}

/// Has W&B take the identity. Says who is signed in, where, and until when.
fn accepted(client: &Client, login: &api::Login) -> Result<String, CommandError> {
    let target = format!("/v1/token?profile={}", encode(&login.profile));
    client.get_body(&target, EXCHANGE_WAIT + ANSWER_MARGIN)?;
    let status = client.status()?;
    let profile = status.profiles.into_iter().find(|profile| profile.name == login.profile);
    let mut text = format!("{}: signed in{}", login.profile, as_account(login));
    if let Some(profile) = profile {
        text += &format!(", and {} gives tokens", output::printable(&profile.base_url));
        text += &match profile.outlook {
            Some(outlook) => {
                format!(", until {} ({})", local(outlook.until), output::printable(&outlook.reason))
            }
            None => ", for as long as your identity provider renews the sign-in".to_owned(),
        };
    }
    Ok(text + "\n")
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
            eprint_line(&format!("Your code is        {code}\nOn any device, open {}", login.url));
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
    if login.state == LoginState::Waiting {
        let left = login.expires_at.duration_since(Clock::system().now().wall).as_secs();
        let until = local(login.expires_at);
        eprint_line(&format!(
            "Waiting for you, until {until} (in {}). Ctrl-C cancels.",
            duration::text(left)
        ));
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

/// How often to ask whether the person is done.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The daemon may have to ask the identity provider once or twice.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// For the exchange, with the renewal that it may need.
const EXCHANGE_WAIT: Duration = Duration::from_secs(30);

const FIRST_FAILED: &str =
    "ask your W&B administrator whether this issuer and client ID are registered, then run this again";

const DETAILS: &str = "\
Sign in with your organization's identity provider. Once is enough: the daemon stores
the session in the keyring, so it survives restarts, and renews the tokens by itself.

A browser opens on this machine. Over SSH, use --device and sign in on any other device.
If a sign-in is already under way, this joins it.

If nothing is configured yet, name the identity provider (--issuer and --client-id), or
a W&B server that knows it (--host and --organization). What the server says is compared
with what you type. config.toml is written when W&B has accepted the sign-in.";

const EXAMPLES: &str = "Examples:
  wandb-cred login
  wandb-cred login --device                                  no browser on this machine
  wandb-cred login --issuer https://acme.okta.com --client-id 0oa1b2c3
  wandb-cred login --host wandb.acme.example --organization acme";
