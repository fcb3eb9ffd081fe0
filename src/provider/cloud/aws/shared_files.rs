//! The shared AWS files, `~/.aws/config` and `~/.aws/credentials`, read as botocore reads them (Python's
//! RawConfigParser): whole-line comments, `=` or `:`, lower-cased keys, indented lines continue a value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::{Error, FileFault, Stage};
use crate::private_file::{self, Holds};
use crate::provider::files::unusable;
use crate::read_file;
use crate::token::Secret;

/// The settings of one profile.
#[derive(Debug, Default)]
pub(super) struct Profile {
    pub(super) name: String,
    /// From the config file.
    config: Settings,
    /// From the credentials file, which wins.
    credentials: Settings,
    found: bool,
}

type Settings = BTreeMap<String, Secret<String>>;

impl Profile {
    /// The settings of `[sso-session NAME]`.
    pub(super) async fn sso_session(env: &Env, name: &str) -> Result<Option<Self>, Error> {
        let file = sections(path(env, "AWS_CONFIG_FILE", ".aws/config")).await?;
        let session = file.into_iter().find(|(section, _)| is_sso_session(section, name));
        Ok(session.map(|(_, config)| Self { name: name.to_owned(), config, found: true, ..Self::default() }))
    }

    /// Reads both files. A missing file counts as empty.
    pub(super) async fn read(env: &Env, explicit: Option<&str>) -> Result<Self, Error> {
        let name = explicit.map(str::to_owned).or_else(|| env.var("AWS_PROFILE"));
        let named = name.is_some();
        let name = name.unwrap_or_else(|| "default".into());
        let config = path(env, "AWS_CONFIG_FILE", ".aws/config");
        let credentials = path(env, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
        let mut profile = Self { name, ..Self::default() };
        for (section, settings) in sections(config).await? {
            if section_of_profile(&section).as_deref() == Some(&profile.name) {
                (profile.config, profile.found) = (settings, true);
            }
        }
        for (section, settings) in sections(credentials).await? {
            if section == profile.name {
                (profile.credentials, profile.found) = (settings, true);
            }
        }
        if named && !profile.found {
            let message = format!(
                "the AWS profile {} is in neither the config nor the credentials file; list them with: aws configure list-profiles",
                profile.name
            );
            return Err(if explicit.is_some() {
                Error::setting("profile", message)
            } else {
                Error::variable("AWS_PROFILE", message)
            });
        }
        Ok(profile)
    }

    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        self.in_credentials(key).or_else(|| self.in_config(key))
    }

    pub(super) fn in_credentials(&self, key: &str) -> Option<&str> {
        self.credentials.get(key).map(|value| value.expose().as_str())
    }

    pub(super) fn in_config(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(|value| value.expose().as_str())
    }
}

/// `[default]` or `[profile NAME]`, NAME perhaps quoted.
fn section_of_profile(section: &str) -> Option<String> {
    if section == "default" {
        return Some(section.to_owned());
    }
    match shlex::split(section)?.as_slice() {
        [word, name] if word == "profile" => Some(name.clone()),
        _ => None,
    }
}

/// `[sso-session NAME]`, NAME perhaps quoted.
fn is_sso_session(section: &str, wanted: &str) -> bool {
    let words = shlex::split(section).unwrap_or_default();
    matches!(words.as_slice(), [word, name] if word == "sso-session" && name == wanted)
}

fn path(env: &Env, name: &str, usual: &str) -> Option<PathBuf> {
    let home = env.var("HOME").map(PathBuf::from);
    match env.var(name) {
        Some(path) => match (path.strip_prefix("~/"), home) {
            (Some(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(path.into()),
        },
        None => Some(home?.join(usual)),
    }
}

async fn sections(path: Option<PathBuf>) -> Result<Vec<(String, Settings)>, Error> {
    // AWS_CONFIG_FILE=/dev/null is how people say that there is none.
    let Some(path) = path.filter(|path| path != Path::new("/dev/null")) else { return Ok(Vec::new()) };
    // They can name a program (`credential_process`). Others may read them: AWS' own clients do not mind.
    let owned = path.clone();
    let read = read_file::off_thread(&path, move || {
        let content = private_file::read(&owned, Holds::Programs, Stage::Identity, MAX_FILE)?;
        parse(&content.text).map_err(|line| {
            let message = format!("{} line {line} is not a setting", owned.display());
            unusable(&owned, FileFault::Malformed, message)
        })
    });
    match read.await {
        Err(error) if error.file_fault() == Some(&FileFault::Missing) => Ok(Vec::new()),
        read => read,
    }
}

/// Real ones have some hundred lines.
const MAX_FILE: u64 = 1024 * 1024;

/// The error is the number of the first line that cannot be read.
fn parse(text: &str) -> Result<Vec<(String, Settings)>, usize> {
    let mut sections: Vec<(String, Settings)> = Vec::new();
    // The setting that an indented line would continue, and its own indentation.
    let mut open: Option<(String, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let current = sections.last_mut();
        if let (Some((key, own)), Some((_, settings))) = (&open, current)
            && indent > *own
        {
            let before = settings.get(key).map(|value| value.expose().as_str()).unwrap_or_default();
            let joined = Secret::new(format!("{before}\n{content}"));
            settings.insert(key.clone(), joined);
            continue;
        }
        if let Some((name, _)) = content.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')) {
            sections.push((name.to_owned(), Settings::new()));
            open = None;
            continue;
        }
        let Some((key, value)) = content.split_once(['=', ':']) else { return Err(number + 1) };
        let key = key.trim().to_lowercase();
        let Some((_, settings)) = sections.last_mut() else { return Err(number + 1) };
        settings.insert(key.clone(), Secret::new(value.trim().to_owned()));
        open = Some((key, indent));
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        let sections = parse(text).expect("parses");
        let flat = |settings: Settings| {
            settings.into_iter().map(|(key, value)| (key, value.expose().clone())).collect()
        };
        sections.into_iter().map(|(name, settings)| (name, flat(settings))).collect()
    }

    #[test]
    fn files_read_as_botocore_reads_them() {
        let text = "# c\n[default]\nRegion = eu-west-1\n  ; c\nkey: a=b # kept\n\n[profile \"two words\"]\n\
                    s3 =\n  a = 1\n  b = 2\nnext=x\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            flat(text),
            [
                ("default".to_owned(), vec![pair("key", "a=b # kept"), pair("region", "eu-west-1")]),
                ("profile \"two words\"".to_owned(), vec![pair("next", "x"), pair("s3", "\na = 1\nb = 2")]),
            ]
        );
        assert_eq!(section_of_profile("profile \"two words\"").as_deref(), Some("two words"));
        assert_eq!(section_of_profile("preview"), None);
        assert_eq!(section_of_profile("sso-session x"), None);
        assert!(is_sso_session("sso-session x", "x") && !is_sso_session("profile x", "x"));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_by_its_number_only() {
        assert_eq!(parse("[a]\nAKIAPLANTED").err(), Some(2));
        assert_eq!(parse("x = 1").err(), Some(1), "a setting outside any section");
    }
}
