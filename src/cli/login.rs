//! `wandb-cred login`: signs a person in, with a browser on this machine or a code typed on another.
//!
//! The daemon does the work; this command opens the browser, shows what to do, and waits for the end. If nothing is
//! configured yet, it makes a draft of the configuration first, and keeps that when W&B has accepted the sign-in.

mod browse;
mod configure;
mod paste;

use std::time::Duration;

use super::command_error::{CommandError, Outcome};
use super::keys::Keys;
use super::profile::ProfileArg;
use super::shell::Shell;
use super::{on_demand, private_daemon};
use crate::api::next_command;
use crate::api::{self, LoginMethod, LoginState, ProblemKind};
use crate::client::{self, ANSWER_MARGIN, Client, encode};
use crate::clock::{Clock, local};
use crate::env::Env;
use crate::error::{Exit, Reason};
use crate::output::{self, eprint_line};
use crate::paths::Places;
use crate::setup_args::FirstLoginArgs;
use crate::{duration, prompt};
use browse::browse;
use paste::Paste;

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
    let known = |client: &Client| begin(client).map_err(|failed| failed.error);
    if is_first(&args.first_login, env)? {
        return first(args, begin, env);
    }
    let client = on_demand::find_or_start(env)?.client;
    let login = known(&client)?;
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
fn first(args: &Args, begin: impl Fn(&Client) -> Result<api::Login, Failed>, env: &Env) -> Outcome {
    let folder = private_daemon::folder(env)?;
    let draft = folder.join("draft.toml");
    let client = configure::draft(&args.first_login, args.profile.name(env).as_deref(), &draft, env)
        .inspect_err(|_| drop(std::fs::remove_dir_all(&folder)))
        .and_then(|()| private_daemon::run(&folder, &["--config", &draft.to_string_lossy()], env))?;
    let login = begin(&client).map_err(|failed| {
        let next = same_again(args, failed.reason.as_ref());
        failed.error.because("nothing was written").hint(next)
    })?;
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

/// The command for another attempt, while nothing is configured: with what was typed, and what helps.
fn same_again(args: &Args, reason: Option<&Reason>) -> String {
    let mut command = "wandb-cred login".to_owned();
    let no_device = reason == Some(&Reason::NoDeviceFlow);
    if args.device && !no_device || matches!(reason, Some(Reason::PortUnavailable { .. })) {
        command += " --device";
    }
    let mut given = args.first_login.clone();
    if matches!(reason, Some(Reason::StoreLocked | Reason::StoreUnavailable)) {
        given.token_store = Some("file".to_owned());
    }
    for flag in given.to_flags() {
        let (name, value) = flag.split_once('=').unwrap_or((&flag, ""));
        command += &format!(" {name} {}", Shell::Sh.quote(value));
    }
    if no_device { command + " --no-browser" } else { command }
}

/// A sign-in that failed.
struct Failed {
    error: CommandError,
    reason: Option<Reason>,
}

impl<E: Into<CommandError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), reason: None }
    }
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
    let login = sign_in(client, Some(profile), LoginMethod::Browser, true, env);
    let login = login.map_err(|failed| failed.error)?;
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
) -> Result<api::Login, Failed> {
    let request = api::LoginRequest { profile, method };
    let mut login: api::Login = client.post("/v1/login", &request, LOGIN_TIMEOUT)?;
    if login.state == LoginState::Waiting {
        // Only where a person can type, and would have something to paste.
        let can_paste = login.user_code.is_none() && output::is_interactive();
        let keys = can_paste.then(Keys::take).flatten();
        say_what_to_do(&login, open, keys.is_some(), env);
        login = follow(client, login, keys)?;
    }
    if login.state == LoginState::Failed {
        let why = login.error.unwrap_or_else(|| "the sign-in failed".to_owned());
        // A daemon of an earlier version does not say.
        let next = login.next.or_else(|| next_command(ProblemKind::NeedsLogin, Some(&login.profile)));
        let error = CommandError::new(Exit::NeedsLogin, why).hint(next.unwrap_or_default());
        return Err(Failed { error, reason: login.reason });
    }
    Ok(login)
}

fn say_what_to_do(login: &api::Login, open: bool, can_paste: bool, env: &Env) {
    let left = login.expires_at.duration_since(Clock::system().now().wall).as_secs();
    let until = format!("until {} (in {})", local(login.expires_at), duration::text(left));
    let url = &login.url;
    match &login.user_code {
        Some(code) => {
            eprint_line(&format!("Your code is        {code}, {until}\nOn any device, open {url}"));
            if let Some(url) = &login.url_with_code {
                eprint_line(&format!("or open             {url}"));
            }
        }
        None if open && browse(url, env) => {
            eprint_line(&format!("Your browser opens to sign in. If it does not, open:\n{url}"));
        }
        None => eprint_line(&format!("To sign in, open this address in a browser:\n{url}")),
    }
    if can_paste {
        eprint_line(PASTE);
    } else if login.user_code.is_none() {
        eprint_line("(no browser on this machine? add --device, and sign in with a code)");
    }
    eprint_line(&format!("Waiting for you, {until}. Ctrl-C cancels."));
}

/// Waits for the end. The daemon gives the sign-in up when the last command that waits for it closes its connection, as
/// the end of this process does.
fn follow(client: &Client, mut login: api::Login, keys: Option<Keys>) -> Result<api::Login, CommandError> {
    let target = format!("/v1/login/{}?wait={}", login.id, FOLLOW.as_secs());
    let mut paste = Paste::new(client, &login.id, keys);
    while login.state == LoginState::Waiting {
        match client.get_body_while(&target, FOLLOW + LOGIN_TIMEOUT, |answer| paste.until(answer))? {
            Some(body) => login = client.parse(&body)?,
            None => {
                drop(paste);
                // As the key would have done if we had not taken the terminal.
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
                return Err(CommandError::silent(Exit::NeedsLogin));
            }
        }
    }
    Ok(login)
}

/// How long one question for the end waits. Sign-ins have limits of their own.
const FOLLOW: Duration = Duration::from_secs(60);

const PASTE: &str = "\
Is that browser on another machine? It ends at a page that does not open, with /callback? in its
address: copy that address from the address bar, paste it here, and press Enter. It is not shown.
(or add --device, and sign in with a code)";

/// The daemon may have to ask the identity provider once or twice.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// For the exchange, with the renewal that it may need.
const EXCHANGE_WAIT: Duration = Duration::from_secs(30);

const FIRST_FAILED: &str =
    "ask your W&B administrator whether this issuer and client ID are registered, then run this again";

const DETAILS: &str = "\
Sign in with your organization's identity provider. Once is enough: the daemon stores
the session in the keyring, so it survives restarts, and renews the tokens by itself.

A browser opens on this machine. Over SSH, use --device and sign in on any other device,
or paste the address at which the browser on the other machine ends. If a sign-in is
already under way, this joins it. Ctrl-C gives it up.

If nothing is configured yet, name the identity provider (--issuer and --client-id), or
a W&B server that knows it (--host and --organization). What the server says is compared
with what you type. config.toml is written when W&B has accepted the sign-in.";

const EXAMPLES: &str = "Examples:
  wandb-cred login
  wandb-cred login --device                                  no browser on this machine
  wandb-cred login --issuer https://acme.okta.com --client-id 0oa1b2c3
  wandb-cred login --host wandb.acme.example --organization acme";
