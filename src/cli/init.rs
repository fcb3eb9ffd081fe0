//! `wandb-cred init`: writes down the configuration that the environment suggests.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command as Process, Stdio};

use clap::{ArgMatches, Command};

use super::failure::{Exit, Failure};
use super::{Outcome, Verb, daemon_binary, output};
use crate::env::Env;
use crate::paths::{self, Places};

pub(super) const VERB: Verb =
    Verb { name: "init", about: "Write a configuration file for what is found here", args, run };

#[derive(clap::Args)]
struct Args {
    /// Replace an existing configuration file
    #[arg(long)]
    force: bool,
    /// Print what would be written, and write nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let config = Places::find(env)?.config;
    if !args.force && !args.dry_run && config.symlink_metadata().is_ok() {
        return Err(exists(&config));
    }
    let found = detect(env)?;
    if args.dry_run {
        output::print(&found)?;
        return Ok(Exit::Success);
    }
    write(&config, &found, args.force)?;
    let mut text = format!("wrote {}:\n\n", config.display());
    for line in found.lines() {
        text += if line.is_empty() { "\n" } else { "    " };
        if !line.is_empty() {
            text += line;
            text += "\n";
        }
    }
    output::print_line(
        text + "\nnext: wandb-cred check, then wandb-cred exec -- CMD or wandb-cred service install",
    )?;
    Ok(Exit::Success)
}

/// What the daemon's program finds in the environment, as TOML.
fn detect(env: &Env) -> Result<String, Failure> {
    let program = daemon_binary::find(env);
    let output = Process::new(&program)
        .arg("detect")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| daemon_binary::failure(&program, &error))?;
    match output.status.code() {
        Some(0) => String::from_utf8(output.stdout)
            .map_err(|_| Failure::new(Exit::Unavailable, format!("{} printed no text", program.display()))),
        // It has said on stderr what it looked for.
        Some(code @ 64..=78) => Err(Failure::silent(code as u8)),
        _ => Err(Failure::new(Exit::Unavailable, format!("wandb-credd detect: {}", output.status))),
    }
}

/// All or nothing, mode 0600; an existing file only falls to `force`.
pub(super) fn write(config: &Path, text: &str, force: bool) -> Result<(), Failure> {
    // A configuration that is a link into a folder of dotfiles stays one.
    let config = &config.canonicalize().unwrap_or_else(|_| config.to_owned());
    let at = |source| Failure::from(paths::Error::Io { path: config.clone(), source });
    let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        paths::private_dir(folder)?;
    }
    // Temporary files of this crate have mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(at)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(at)?;
    let result = if force { file.persist(config) } else { file.persist_noclobber(config) };
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(config)),
        Err(error) => Err(at(error.error)),
    }
}

fn exists(config: &Path) -> Failure {
    Failure::new(Exit::Configuration, format!("{} exists, and is left as it is", config.display()))
        .next("wandb-cred check, or wandb-cred init --force to replace it")
}

const DETAILS: &str = "\
Look at what the environment offers as an identity (an identity token file, a CI system,
a cluster, a cloud), and write a configuration file for it. An existing file is never
replaced without --force.

No configuration is needed where the environment says enough: the daemon looks in the
same way when it finds no file. Writing it down makes the choice permanent, and gives
you something to edit.";
