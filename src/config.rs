//! The configuration file: parsed into valid types, checked, and explained where it is wrong.
//!
//! `daemon` reads it at start and on SIGHUP. A mistake inside one profile's table breaks only that profile; a mistake
//! outside refuses the whole file. Every message names the file, the line, and what to write.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::env::Env;
use crate::error::{Error, FileFault, Kind, Mistake, Reason, Stage};
use crate::private_file::{self, Content, Holds};
use crate::profile::BaseUrl;
use crate::{profile, provider, read_file, server, spelling};

mod every;
mod excerpt;
mod mistake;

pub use excerpt::Excerpt;

/// What the daemon runs with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The file this was read from; `None` if there is none, and the environment alone decides.
    pub path: Option<PathBuf>,
    /// The keys outside any profile.
    pub server: server::Config,
    /// By name, in order.
    pub profiles: BTreeMap<String, profile::Config>,
    /// The profiles that are written wrong, by name.
    pub broken: BTreeMap<String, Mistake>,
}

impl Config {
    /// [`Self::load`], without waiting longer than a healthy file system needs.
    pub async fn load_in_time(path: &Path, env: &Env) -> Result<Self, Error> {
        let (owned, env) = (path.to_owned(), env.clone());
        let loaded = read_file::off_thread(path, move || Self::load(&owned, &env)).await;
        loaded.map_err(|error| match error.file_fault() {
            Some(FileFault::TimedOut) => error.at(Stage::Configuration).kind(Kind::Misconfigured),
            _ => error,
        })
    }

    /// Reads `path`. If there is no such file, and WANDB_CRED_CONFIG does not ask for one, the environment decides.
    pub fn load(path: &Path, env: &Env) -> Result<Self, Error> {
        let Content { text, mode } = match read(path) {
            Ok(content) => content,
            Err(error)
                if error.file_fault() == Some(&FileFault::Missing)
                    && env.var("WANDB_CRED_CONFIG").is_none() =>
            {
                return from_env(env);
            }
            Err(error) => return Err(error),
        };
        let mut config = Self::parse(&text).map_err(|mistake| mistakes_in(path, vec![mistake]))?;
        config.path = Some(path.to_owned());
        if mode & 0o077 != 0
            && let Some((name, _)) = config.profiles.iter().find(|(_, profile)| profile.secret().is_some())
        {
            let shown = path.display();
            let message = format!(
                "{shown} holds the secret of profile `{name}` and can be read by others (mode {mode:04o}); run: chmod 600 {shown}"
            );
            return Err(unusable(path, FileFault::Loose { mode }, message));
        }
        Ok(config)
    }

    /// As [`Self::load`] and [`Self::strict`], but says all that is wrong at once, and is stricter: it must be clear which
    /// profile `exec` takes. Without a file there is no excerpt.
    pub fn examine(path: &Path, env: &Env) -> Result<(Self, Option<Excerpt>), Error> {
        let Ok(Content { text, .. }) = read(path) else { return Ok((Self::load(path, env)?, None)) };
        let mistakes = every::mistakes(&text);
        let excerpt = Excerpt::new(path, text);
        if mistakes.is_empty() {
            return Ok((Self::load(path, env)?.strict()?, Some(excerpt)));
        }
        let shown: Vec<_> = mistakes.iter().map(|mistake| excerpt.show(mistake)).collect();
        Err(Error { message: shown.join("\n"), ..mistakes_in(path, mistakes) })
    }

    /// Fails on what concerns the whole file; a profile's own mistakes go to [`Self::broken`].
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let root = DeTable::parse(text).map_err(|error| mistake::from_toml(text, None, &error))?;
        let mut root = root.into_inner();
        let profiles = root.remove("profile");
        let rest = ValueDeserializer::from(spanned(DeValue::Table(root), text));
        // `profile` was taken out above, but it is a key to suggest.
        let server = server::Config::deserialize(rest)
            .map_err(|error| mistake::from_table(text, None, &error, &["profile"]))?;
        let mut config = Self { server, ..Self::default() };
        let Some(profiles) = profiles else {
            return Err(Mistake::new(
                "there is no [profile.NAME] table; write one, or run: wandb-cred init --force",
            ));
        };
        let span = profiles.span();
        let DeValue::Table(profiles) = profiles.into_inner() else {
            return Err(mistake::at(text, span, "`profile` must hold tables: write [profile.NAME]"));
        };
        for (name, table) in profiles {
            let (span, name) = (name.span(), name.into_inner().into_owned());
            if !is_name(&name) {
                let message = format!(
                    "`{}` is not a profile name; use up to 64 letters, digits, '-', '_' and '.'",
                    name.escape_debug()
                );
                return Err(mistake::at(text, span, message));
            }
            let plain = table.get_ref().as_table().and_then(plain_http);
            let whole = table.get_ref().as_table().cloned();
            let named = |message: &str| whole.as_ref().and_then(|table| mistake::named(table, message));
            match profile::Config::deserialize(ValueDeserializer::from(table)) {
                Ok(profile) => drop(config.profiles.insert(name, profile)),
                Err(error) => {
                    let mistake = mistake::from_toml(text, Some(&name), &error);
                    // What concerns the table as a whole is said at its head.
                    let span = plain.or(named(error.message())).unwrap_or(span);
                    let place = mistake.place.or(mistake::at(text, span, "").place);
                    let mistake = Mistake { place, ..mistake };
                    config.broken.insert(name, mistake);
                }
            }
        }
        if let Some(default) = &config.server.default_profile
            && !config.names().any(|name| name == default)
        {
            let message = format!("default-profile is `{default}`, but there is no [profile.{default}]");
            let suggestion = spelling::nearest(default, config.names()).map(str::to_owned);
            return Err(Mistake { suggestion, ..mistake::at_key(text, "default-profile", message) });
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
        match (&self.server.default_profile, names.next(), names.next()) {
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
        Err(mistakes_in(&path, self.broken.into_values().collect()))
    }
}

/// The deserializer needs to know where a table stood in the text; the root is all of it.
fn spanned<'i>(value: DeValue<'i>, text: &str) -> toml::Spanned<DeValue<'i>> {
    toml::Spanned::new(0..text.len(), value)
}

/// Names become folder names and metric labels.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(fits)
}

/// The file names programs to run, so only this user (or root) may be able to write it.
fn read(path: &Path) -> Result<Content, Error> {
    private_file::read(path, Holds::Programs, Stage::Configuration, MAX_FILE).map_err(|mut error| {
        let shown = path.display();
        match error.file_fault() {
            Some(FileFault::Missing) => {
                error.message =
                    format!("there is no configuration at {shown}, which WANDB_CRED_CONFIG names");
                error
            }
            Some(FileFault::TooLarge) => error.hint("is it a configuration?"),
            _ => error,
        }
    })
}

/// Without a file: one profile, `default`, from whatever identity source is here, for the W&B server and the
/// audience that the environment names.
fn from_env(env: &Env) -> Result<Config, Error> {
    let base_url = match env.var(BASE_URL) {
        Some(url) => url.parse().map_err(|error| {
            let reason = Reason::Variable { name: BASE_URL.to_owned() };
            let message = format!("{BASE_URL}: {error}");
            Error::new(Stage::Configuration, Kind::Misconfigured, reason, message)
        })?,
        None => BaseUrl::default(),
    };
    let provider = provider::Config::Auto(provider::auto::Config::default());
    let audience = env.var("WANDB_CRED_AUDIENCE");
    let profile = profile::Config { base_url, audience, ..profile::Config::new(provider) };
    Ok(Config { profiles: BTreeMap::from([("default".to_owned(), profile)]), ..Config::default() })
}

fn unusable(path: &Path, fault: FileFault, message: String) -> Error {
    Error::file(Stage::Configuration, path, fault, message)
}

fn mistakes_in(path: &Path, mistakes: Vec<Mistake>) -> Error {
    let lines: Vec<_> = mistakes.iter().map(|mistake| format!("{}{mistake}", path.display())).collect();
    let reason = Reason::Mistakes { path: path.to_owned(), mistakes };
    // A line for each, as in compilers' messages. None holds foreign text.
    Error { message: lines.join("\n"), ..Error::new(Stage::Configuration, Kind::Misconfigured, reason, "") }
}

const BASE_URL: &str = "WANDB_BASE_URL";

const MAX_FILE: u64 = 1024 * 1024;

/// Where the profile names a W&B server by plain http, without a word that it may: that mistake is known only when the whole
/// table has been read.
fn plain_http(profile: &DeTable<'_>) -> Option<Range<usize>> {
    let url = profile.get("base-url").filter(|_| !profile.contains_key("allow-plain-http"))?;
    url.get_ref().as_str()?.parse::<BaseUrl>().is_err().then(|| url.span())
}

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
        let Err(Error { reason: Reason::Mistakes { mistakes, .. }, .. }) = config.strict() else {
            panic!("a broken profile is refused");
        };
        let mistake = &mistakes[0];
        assert_eq!((mistake.place, mistake.profile.as_deref()), (Some((6, 1)), Some("work")));
        assert_eq!(mistake.suggestion.as_deref(), Some("audience"));
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
            (
                "timeout = \"30s\"",
                "timeout = \"soon\"",
                10,
                vec!["`timeout` must be a duration like \"30s\""],
            ),
            ("argv = [\"true\"]", "argv = \"true\"", 9, vec!["profile `work`"]),
            ("https://", "http://", 5, vec!["https"]),
            ("https://api.wandb.ai/", "api.wandb.ai", 5, vec!["write \"https://api.wandb.ai\""]),
            ("= \"work\"", "= \"wrok\"", 2, vec!["no [profile.wrok]", "did you mean `work`?"]),
            ("[profile.lab.", "[profile.\"../x\".", 12, vec!["not a profile name"]),
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
        let refused = load(0o640).expect_err("readable by the group");
        assert_eq!(refused.file_fault(), Some(&FileFault::Loose { mode: 0o640 }));
        let message = &refused.message;
        assert!(
            message.contains("chmod 600") && message.contains("profile `a`") && !message.contains("planted")
        );
        assert!(load(0o600).is_ok());
        let refused = load(0o622).expect_err("writable by others");
        assert_eq!(refused.file_fault(), Some(&FileFault::Loose { mode: 0o622 }));
    }

    #[test]
    fn a_missing_file_matters_only_if_it_is_named() {
        let path = Path::new("/nonexistent/config.toml");
        let config =
            Config::load(path, &Env::fixed([("HOME", "/nonexistent")])).expect("from the environment");
        assert_eq!((config.path, config.profiles.len()), (None, 1));
        let named = Env::fixed([("WANDB_CRED_CONFIG", "/nonexistent/config.toml")]);
        let refused = Config::load(path, &named).expect_err("it was named");
        assert_eq!(refused.file_fault(), Some(&FileFault::Missing));
        let bad_url = Env::fixed([("WANDB_BASE_URL", "http://wandb.example")]);
        let refused = Config::load(path, &bad_url).expect_err("not https");
        assert_eq!(refused.reason, Reason::Variable { name: "WANDB_BASE_URL".to_owned() });
    }

    #[test]
    fn a_profile_without_provider_says_so() {
        let said = mistakes("[profile.a]\naudience = \"x\"\n");
        assert!(said.contains("[profile.a.provider.KIND]"), "{said}");
    }

    #[test]
    fn an_upstream_takes_the_place_of_a_provider() {
        let config = |more: &str| Config::parse(&format!("[profile.a]\nupstream = \"unix:/s\"\n{more}"));
        let good = config("upstream-profile = \"b\"\nkeep-warm = true\n").expect("good");
        assert_eq!((good.profiles["a"].kind(), good.profiles["a"].keep_warm), ("upstream", true));
        for (text, words) in [
            ("[profile.a]\nupstream = \"unix:/s\"\n[profile.a.provider.file]\npath = \"/x\"\n", "not both"),
            ("[profile.a]\nupstream = \"/s\"\n", "\"unix:\" and the absolute path"),
            ("[profile.a]\nupstream = \"unix:s\"\n", "the absolute path"),
            ("[profile.a]\nupstream = \"unix:/s\"\naudience = \"x\"\n", "belong to the profile there"),
            (
                "[profile.a]\nupstream-profile = \"b\"\n[profile.a.provider.file]\npath = \"/x\"\n",
                "there is none here",
            ),
            ("[profile.a]\nupstrem = \"unix:/s\"\n", "did you mean `upstream`?"),
        ] {
            let said = mistakes(text);
            assert!(said.contains(words) && said.contains("profile `a`"), "{text}: {said}");
            assert!(said.starts_with(":1:") || said.starts_with(":2:"), "{text}: {said}");
        }
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
