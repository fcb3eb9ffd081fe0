//! The configuration file: parsed into valid types, checked, and explained where it is wrong.
//!
//! `daemon` reads it at start and on SIGHUP. A mistake inside one profile's table breaks that profile and no
//! other; a mistake outside refuses the file. Every message names the file, the line, and what to write.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::env::Env;
use crate::{profile, provider};

mod mistake;

pub use mistake::Mistake;

/// What the daemon runs with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The file this was read from; `None` when the environment alone says it.
    pub path: Option<PathBuf>,
    pub general: General,
    /// By name, in order.
    pub profiles: BTreeMap<String, profile::Config>,
    /// Profiles that are written wrong, by name.
    pub broken: BTreeMap<String, Mistake>,
}

/// Keys outside any profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct General {
    /// The profile of requests that name none. Needed only if there are several.
    pub default_profile: Option<String>,
    /// Other users who may ask for tokens. They must also be able to reach the socket.
    pub allow_uids: Vec<u32>,
    pub allow_gids: Vec<u32>,
}

impl Config {
    /// Reads `path`. Where there is no such file, and nobody said that there is one, the environment decides.
    pub fn load(path: &Path, env: &Env) -> Result<Self, Error> {
        let text = match read(path) {
            Ok(text) => text,
            Err(Error::Missing { .. }) if env.var("WANDB_CRED_CONFIG").is_none() => {
                return from_env(env);
            }
            Err(error) => return Err(error),
        };
        let mut config = Self::parse(&text)
            .map_err(|mistakes| Error::Mistakes { path: path.to_owned(), mistakes: vec![mistakes] })?;
        config.path = Some(path.to_owned());
        let mode = path.metadata().map_or(0, |meta| meta.mode() & 0o7777);
        if mode & 0o077 != 0
            && let Some((name, _)) =
                config.profiles.iter().find(|(_, profile)| profile.provider.secret().is_some())
        {
            return Err(Error::Readable { path: path.to_owned(), mode, profile: name.clone() });
        }
        Ok(config)
    }

    /// Fails on what concerns the whole file; a profile's own mistakes go to [`Self::broken`].
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let root = DeTable::parse(text).map_err(|error| Mistake::of(text, None, &error))?;
        let mut root = root.into_inner();
        let profiles = root.remove("profile");
        let general = DeValue::Table(root);
        let general = ValueDeserializer::from(serde_spanned(general, text));
        let general = General::deserialize(general).map_err(|error| {
            // `profile` was taken out above, but it is a key to suggest.
            Mistake::of(text, None, &error).or_expected("profile")
        })?;
        let mut config = Self { general, ..Self::default() };
        let Some(profiles) = profiles else {
            return Err(Mistake::plain("there is no [profile.NAME] table; run: wandb-cred init"));
        };
        let span = profiles.span();
        let DeValue::Table(profiles) = profiles.into_inner() else {
            return Err(Mistake::at(text, span, "`profile` must hold tables: write [profile.NAME]"));
        };
        for (name, table) in profiles {
            let (span, name) = (name.span(), name.into_inner().into_owned());
            if !is_name(&name) {
                let message = format!(
                    "`{}` is no profile name; use up to 64 letters, digits, '-', '_' and '.'",
                    name.escape_debug()
                );
                return Err(Mistake::at(text, span, &message));
            }
            match profile::Config::deserialize(ValueDeserializer::from(table)) {
                Ok(profile) => drop(config.profiles.insert(name, profile)),
                Err(error) => {
                    let mistake = Mistake::of(text, Some(&name), &error);
                    config.broken.insert(name, mistake);
                }
            }
        }
        if let Some(default) = &config.general.default_profile
            && !config.names().any(|name| name == default)
        {
            let known: Vec<_> = config.names().collect();
            let message = format!("default-profile is `{default}`, but there is no [profile.{default}]");
            return Err(Mistake::find(text, "default-profile", &message).suggest(default, &known));
        }
        Ok(config)
    }

    /// Every profile's name, good or broken.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().chain(self.broken.keys()).map(String::as_str)
    }

    /// The profile of requests that name none: the default, or the only one.
    pub fn default_profile(&self) -> Option<&str> {
        let mut names = self.names();
        match (&self.general.default_profile, names.next(), names.next()) {
            (Some(default), _, _) => Some(default),
            (None, Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// Fails if any profile is broken: for `check` and for reloads, which must not lose a working profile.
    pub fn strict(self) -> Result<Self, Error> {
        if self.broken.is_empty() {
            return Ok(self);
        }
        let path = self.path.unwrap_or_default();
        Err(Error::Mistakes { path, mistakes: self.broken.into_values().collect() })
    }
}

/// A table's deserializer wants to know where it stood; the root stands everywhere.
fn serde_spanned<'i>(value: DeValue<'i>, text: &str) -> toml::Spanned<DeValue<'i>> {
    toml::Spanned::new(0..text.len(), value)
}

/// Names become folder names and metric labels.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(fits)
}

fn read(path: &Path) -> Result<String, Error> {
    let at = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.to_owned() },
        _ => Error::Unreadable { path: path.to_owned(), source },
    };
    let meta = path.metadata().map_err(at)?;
    let uid = rustix::process::geteuid().as_raw();
    if meta.uid() != uid && meta.uid() != 0 {
        return Err(Error::Foreign { path: path.to_owned(), owner: meta.uid() });
    }
    // The file names programs to run: whoever can write it is this user.
    if meta.mode() & 0o022 != 0 {
        return Err(Error::Loose { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    if meta.len() > MAX_FILE {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(at)
}

/// Without a file: one profile, `default`, from whatever identity source is here, for the W&B server and the
/// audience that the environment names.
fn from_env(env: &Env) -> Result<Config, Error> {
    let base_url = match env.var("WANDB_BASE_URL") {
        Some(url) => url.parse().map_err(|error| Error::BaseUrlVariable { error })?,
        None => profile::BaseUrl::default(),
    };
    let provider = provider::Config::Auto(provider::auto::Config::default());
    let audience = env.var("WANDB_CRED_AUDIENCE");
    let profile = profile::Config { base_url, audience, ..profile::Config::new(provider) };
    Ok(Config { profiles: BTreeMap::from([("default".to_owned(), profile)]), ..Config::default() })
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that WANDB_CRED_CONFIG names does not exist.
    #[error("there is no configuration at {}; mend WANDB_CRED_CONFIG, or run: wandb-cred init", path.display())]
    Missing { path: PathBuf },
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} belongs to uid {owner}, neither to us nor to root; it names programs to run, so make it yours", path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("{} can be written by others (mode {mode:04o}), and it names programs to run; run: chmod go-w {}", path.display(), path.display())]
    Loose { path: PathBuf, mode: u32 },
    #[error("{} holds the secret of profile `{profile}` and can be read by others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Readable { path: PathBuf, mode: u32, profile: String },
    #[error("{} is larger than {MAX_FILE} bytes; is it a configuration?", path.display())]
    TooLarge { path: PathBuf },
    #[error("WANDB_BASE_URL: {error}")]
    BaseUrlVariable { error: String },
    #[error("{}", mistakes.iter().map(|mistake| format!("{}{mistake}", path.display())).collect::<Vec<_>>().join("\n"))]
    Mistakes { path: PathBuf, mistakes: Vec<Mistake> },
}

const MAX_FILE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
default-profile = "work"

[profile.work]
base-url = "https://api.wandb.ai/"
audience = "acme"

[profile.work.provider.command]
argv = ["true"]
timeout = "30s"

[profile.lab.provider.file]
path = "/x"
"#;

    fn mistakes(text: &str) -> String {
        match Config::parse(text) {
            Err(mistake) => mistake.to_string(),
            Ok(config) => config.broken.values().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn the_designs_example_parses() {
        let config = Config::parse(GOOD).expect("good");
        assert_eq!(config.names().collect::<Vec<_>>(), ["lab", "work"]);
        assert_eq!(config.default_profile(), Some("work"));
        assert_eq!(config.profiles["work"].base_url.as_str(), "https://api.wandb.ai");
        assert_eq!(config.profiles["lab"].base_url.as_str(), "https://api.wandb.ai");
    }

    #[test]
    fn a_broken_profile_leaves_the_others_alone() {
        let config =
            Config::parse(&GOOD.replace("audience", "audeince")).expect("the file as a whole is fine");
        assert!(config.profiles.contains_key("lab") && config.broken.contains_key("work"));
        assert!(config.strict().is_err());
    }

    #[test]
    fn each_mistake_is_reported_at_its_line_with_the_nearest_key() {
        for (from, to, line, words) in [
            (
                "audience",
                "audeince",
                6,
                vec!["unknown key `audeince`", "did you mean `audience`?", "profile `work`"],
            ),
            ("provider.command", "provider.comand", 8, vec!["`comand`", "did you mean `command`?"]),
            ("default-profile", "defualt-profile", 2, vec!["did you mean `default-profile`?"]),
            ("timeout = \"30s\"", "timeout = \"soon\"", 10, vec!["`soon` is not a duration"]),
            ("argv = [\"true\"]", "argv = \"true\"", 9, vec!["profile `work`"]),
            ("https://", "http://", 5, vec!["https"]),
            ("https://api.wandb.ai/", "api.wandb.ai", 5, vec!["not a URL"]),
            ("= \"work\"", "= \"wrok\"", 2, vec!["no [profile.wrok]", "did you mean `work`?"]),
            ("[profile.lab.", "[profile.\"../x\".", 12, vec!["no profile name"]),
            ("argv = [", "argv = [[", 10, vec![]),
        ] {
            let said = mistakes(&GOOD.replacen(from, to, 1));
            assert!(said.starts_with(&format!(":{line}:")), "{to}: {said}");
            assert!(words.iter().all(|word| said.contains(word)), "{to}: {said}");
        }
    }

    #[test]
    fn a_file_that_holds_a_secret_must_be_closed() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("config.toml");
        let text = "[profile.a.provider.oidc]\nissuer = \"https://i.example\"\nclient-id = \"c\"\nclient-secret = \"planted\"\n";
        std::fs::write(&path, text).expect("written");
        let load = |mode| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
            Config::load(&path, &Env::fixed([("HOME", "/nonexistent")]))
        };
        let refused = load(0o640).expect_err("readable by the group").to_string();
        assert!(
            refused.contains("chmod 600") && refused.contains("profile `a`") && !refused.contains("planted")
        );
        assert!(load(0o600).is_ok());
    }

    #[test]
    fn a_profile_without_provider_says_so() {
        let said = mistakes("[profile.a]\naudience = \"x\"\n");
        assert!(said.contains("[profile.a.provider.KIND]"), "{said}");
    }

    #[test]
    fn an_empty_file_says_what_to_do() {
        assert!(mistakes("").contains("wandb-cred init"));
    }

    #[test]
    fn a_value_that_may_be_secret_is_not_repeated() {
        let said = mistakes("[profile.a.provider.file]\npath = 7\nclient-secret = \"planted\"\n");
        assert!(!said.contains("planted"), "{said}");
    }
}
