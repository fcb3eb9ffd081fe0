//! `wandb-cred login`: signs a person in, with a browser here or a code typed in elsewhere.
//!
//! The daemon does it all; this command opens the browser, shows what to do, and waits for the end. On a
//! machine where nothing is configured it writes the configuration first.

use std::io::IsTerminal as _;
use std::process::{self, Stdio};
use std::thread::sleep;
use std::time::Duration;

use clap::{ArgMatches, Command};

use super::failure::{Exit, Failure};
use super::talk::{ask, tell};
use super::{Outcome, Verb, exec, output, profile};
use crate::api::{self, LoginMethod, LoginState};
use crate::client::{self, Client};
use crate::env::Env;

pub(crate) mod first;

pub(super) const VERB: Verb =
    Verb { name: "login", about: "Sign in with your organization's identity provider", args, run };

#[derive(clap::Args)]
struct Args {
    #[command(flatten)]
    profile: profile::Choice,
    /// Sign in on another device, by typing in a code
    #[arg(long)]
    device: bool,
    /// Print the address instead of opening a browser
    #[arg(long)]
    no_browser: bool,
    #[command(flatten)]
    first: first::Args,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS).after_help(EXAMPLES)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    args.first.configure(args.profile.name(env).as_deref(), env)?;
    let client = exec::daemon(env)?;
    let method = if args.device { LoginMethod::Device } else { LoginMethod::Browser };
    let login = sign_in(&client, args.profile.name(env), method, !args.no_browser, env)?;
    let account = login.account.unwrap_or_else(|| "somebody".to_owned());
    output::print_line(format!("{}: signed in as {account}", login.profile))?;
    Ok(Exit::Success)
}

/// Offers to sign in, if that is what the failed request needs and a person is there to do it. `Ok` means that
/// it is worth asking again.
pub(super) fn offer(client: &Client, error: client::Error, env: &Env) -> Result<(), Failure> {
    let profile = match &error {
        client::Error::Problem(problem) if problem.kind == api::ProblemKind::NeedsLogin => {
            problem.profile.clone()
        }
        _ => None,
    };
    let Some(profile) = profile.filter(|_| std::io::stdin().is_terminal() && std::io::stderr().is_terminal())
    else {
        return Err(Failure::of(error, env));
    };
    tell(&format!("wandb-cred: {error}"));
    let answer = ask("Sign in now? [Y/n] ")
        .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot ask: {error}")))?;
    if answer.to_ascii_lowercase().starts_with('n') {
        return Err(Failure::of(error, env));
    }
    let login = sign_in(client, Some(profile), LoginMethod::Browser, true, env)?;
    tell(&format!("Signed in as {}.", login.account.as_deref().unwrap_or("somebody")));
    Ok(())
}

/// Starts a sign-in, or joins the one under way, and waits for its end.
fn sign_in(
    client: &Client,
    profile: Option<String>,
    method: LoginMethod,
    open: bool,
    env: &Env,
) -> Result<api::Login, Failure> {
    let failed = |error| Failure::of(error, env);
    let request = api::LoginRequest { profile, method };
    let mut login: api::Login = client.post("/v1/login", &request, PATIENCE).map_err(failed)?;
    match &login.user_code {
        Some(code) => {
            tell(&format!("On any device, open  {}\nand type the code   {code}", login.url));
            if let Some(url) = &login.url_with_code {
                tell(&format!("or open             {url}"));
            }
        }
        None if login.state == LoginState::Waiting && open && browse(&login.url, env) => {
            tell(&format!("Your browser opens to sign in. If it does not, open:\n{}", login.url));
        }
        None if login.state == LoginState::Waiting => {
            tell(&format!(
                "To sign in, open this address in a browser on this machine:\n{}\n(no browser here? use: wandb-cred login --device)",
                login.url
            ));
        }
        None => {}
    }
    let target = format!("/v1/login/{}", login.id);
    while login.state == LoginState::Waiting {
        sleep(POLL);
        login = client.get(&target, PATIENCE).map_err(failed)?;
    }
    match login.state {
        LoginState::Failed => {
            let why = login.error.unwrap_or_else(|| "the sign-in failed".to_owned());
            let next = format!("wandb-cred login --profile {}", login.profile);
            Err(Failure::new(Exit::NeedsLogin, why).next(next))
        }
        _ => Ok(login),
    }
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

/// How often to look whether the person is done.
const POLL: Duration = Duration::from_millis(500);

/// For the identity provider to be asked something, once or twice.
const PATIENCE: Duration = Duration::from_secs(60);

const DETAILS: &str = "\
Sign in with your organization's identity provider. Once is enough: the daemon keeps the
session, through restarts, in the keyring, and renews the tokens by itself.

A browser opens on this machine; over SSH, use --device and any other device. If a
sign-in is under way already, this joins it.

Where nothing is configured yet, name the identity provider (--issuer and --client-id),
or your W&B server (--host and --organization) if it knows; the answer is compared with
what you type, and written to config.toml.";

const EXAMPLES: &str = "Examples:
  wandb-cred login
  wandb-cred login --device                                  no browser on this machine
  wandb-cred login --issuer https://acme.okta.com --client-id 0oa1b2c3
  wandb-cred login --host wandb.acme.example --organization acme";
