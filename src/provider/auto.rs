//! `auto`: the first identity source that is found, without a configuration.
//!
//! What the environment names explicitly comes before what the machine is (firmware and files), and that before what
//! the network answers: [`Evidence`] decides this. Within each of the three, the order of the table of kinds decides.
//! Metadata addresses are asked only when nothing else was found, all at once, for half a second: where nobody answers
//! there, that is all it costs. [`survey`] says what was looked for and why each source was passed over; `wandb-cred
//! init` and the start without a configuration read it too.
//!
//! ```toml
//! [profile.anywhere]
//! audience = "acme"
//! [profile.anywhere.provider.auto]
//! ```

use std::io::ErrorKind;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::detect::{Detector, Probe};
use super::source::{Context, Provider};
use crate::blocking;
use crate::env::Env;
use crate::error::{Error, Reason};
use crate::token::IdentityToken;

/// To choose a source, name its kind instead.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Whether to ask the clouds' metadata addresses when nothing else was found.
    pub probe: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { probe: true }
    }
}

impl Config {
    pub(super) fn build(self, cx: Context, detectors: &'static [Detector]) -> Result<Auto, Error> {
        Ok(Auto { probe: self.probe, detectors, chosen: OnceCell::new(), cx })
    }
}

/// What was learnt of one kind of source.
#[derive(Clone)]
pub struct Detection {
    /// As the configuration spells it.
    pub kind: &'static str,
    pub found: bool,
    /// The evidence, or what was looked for and is missing.
    pub why: String,
    /// The keys of the provider's table, ready for a profile.
    pub settings: Vec<(&'static str, String)>,
    build: fn(Context) -> Result<Box<dyn Provider>, Error>,
}

/// What speaks for a source, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    Environment,
    Machine,
    Metadata,
    None,
}

/// Looks for every kind; what was found comes first, the best at the top.
pub(super) async fn survey(cx: &Context, detectors: &'static [Detector], probe: bool) -> Vec<Detection> {
    // All at once, as one may take its whole time.
    let looks: Vec<_> =
        detectors.iter().map(|detector| tokio::spawn(look(detector, cx.env.clone()))).collect();
    let mut results = Vec::with_capacity(looks.len());
    for look in looks {
        results.push(look.await.unwrap_or_else(|error| (Evidence::None, error.to_string())));
    }
    if probe && results.iter().all(|(evidence, _)| *evidence == Evidence::None) {
        let probes = detectors.iter().map(|detector| (detector.probe)(cx.clone())).collect();
        for ((evidence, why), answer) in results.iter_mut().zip(ask(probes, PROBE_TIMEOUT).await) {
            match answer {
                Some(Ok(found)) => (*evidence, *why) = (Evidence::Metadata, found),
                Some(Err(missing)) => *why = format!("{why}; {missing}"),
                None => {}
            }
        }
    }
    let mut ranked: Vec<_> = detectors.iter().zip(results).collect();
    // Stable: if the evidence is equal, the order of the table decides.
    ranked.sort_by_key(|(_, (evidence, _))| *evidence);
    ranked
        .into_iter()
        .map(|(detector, (evidence, why))| Detection {
            kind: detector.kind,
            found: evidence != Evidence::None,
            why,
            settings: (detector.settings)(&cx.env),
            build: detector.build,
        })
        .collect()
}

/// A file on a dead mount must stop neither this nor the other detectors.
async fn look(detector: &'static Detector, env: Env) -> (Evidence, String) {
    let looking = blocking::within(LOOK_TIMEOUT, detector.kind, move || {
        let missing = match (detector.in_environment)(&env) {
            Ok(why) => return (Evidence::Environment, why),
            Err(missing) => missing,
        };
        match (detector.on_machine)(&env) {
            Some(why) => (Evidence::Machine, why),
            None => (Evidence::None, missing),
        }
    });
    looking.await.unwrap_or_else(|error| match error.kind() {
        ErrorKind::TimedOut => (Evidence::None, "its files could not be looked at in time".to_owned()),
        _ => (Evidence::None, format!("its files could not be looked at: {error}")),
    })
}

pub struct Auto {
    probe: bool,
    detectors: &'static [Detector],
    /// The choice, not a token: a machine does not change its platform while we run.
    chosen: OnceCell<Box<dyn Provider>>,
    cx: Context,
}

#[async_trait]
impl Provider for Auto {
    fn name(&self) -> &'static str {
        self.chosen.get().map_or("auto", |chosen| chosen.name())
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        self.chosen.get_or_try_init(|| self.choose()).await?.fetch().await
    }

    async fn restored(&self, token: IdentityToken) -> IdentityToken {
        match self.chosen.get_or_try_init(|| self.choose()).await {
            Ok(chosen) => chosen.restored(token).await,
            Err(_) => token,
        }
    }
}

impl Auto {
    async fn choose(&self) -> Result<Box<dyn Provider>, Error> {
        let detections = survey(&self.cx, self.detectors, self.probe).await;
        let Some(best) = detections.first().filter(|detection| detection.found) else {
            return Err(nothing_found(&self.cx.profile, &detections));
        };
        tracing::info!(profile = %self.cx.profile, kind = best.kind, why = %best.why, "identity source found");
        (best.build)(self.cx.clone())
    }
}

fn nothing_found(profile: &str, detections: &[Detection]) -> Error {
    let passed: Vec<_> =
        detections.iter().map(|detection| format!("{} ({})", detection.kind, detection.why)).collect();
    Error::misconfigured(format!(
        "found no identity source here; name one in [profile.{profile}.provider.KIND]. Looked for: {}",
        passed.join(", ")
    ))
    .because(Reason::NoSource)
}

/// Runs all probes at once. One that has not answered by `timeout` is dropped, and said to be late.
async fn ask(probes: Vec<Option<Probe>>, timeout: Duration) -> Vec<Option<Result<String, String>>> {
    let late = || Err(format!("no answer within {} ms", timeout.as_millis()));
    let mut answers: Vec<_> = probes.iter().map(|probe| probe.as_ref().map(|_| late())).collect();
    let mut running = JoinSet::new();
    for (at, probe) in probes.into_iter().enumerate() {
        if let Some(probe) = probe {
            running.spawn(async move { (at, probe.await) });
        }
    }
    let collecting = async {
        while let Some(done) = running.join_next().await {
            if let Ok((at, answer)) = done {
                answers[at] = Some(answer);
            }
        }
    };
    // Late probes have their answer from above; dropping the set aborts them.
    let _ = tokio::time::timeout(timeout, collecting).await;
    answers
}

/// For looking at files.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);
/// For asking the network.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::error::Kind;
    use crate::provider::DETECTORS;
    use crate::provider::source::test::{context, jwt};

    const NO_PROBE: Config = Config { probe: false };

    /// A test may run on a machine of any cloud, or in a pod.
    const OF_THE_MACHINE: [&str; 4] = ["gcp", "azure", "aws", "kubernetes"];

    /// Kinds found without asking the network, except those of the machine that the test happens to run on.
    async fn found(vars: &[(&str, &str)]) -> Vec<&'static str> {
        let detections = survey(&context(vars), DETECTORS, false).await;
        detections
            .iter()
            .filter(|detection| detection.found && !OF_THE_MACHINE.contains(&detection.kind))
            .map(|detection| detection.kind)
            .collect()
    }

    #[test]
    fn every_kind_is_in_the_table_once_and_its_settings_are_a_valid_configuration() {
        let env = Env::fixed([("WANDB_IDENTITY_TOKEN_FILE", "/x")]);
        for detector in DETECTORS {
            let keys: toml::Table = (detector.settings)(&env)
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.into()))
                .collect();
            let table = toml::Table::from_iter([(detector.kind.to_owned(), keys.into())]);
            let config: crate::provider::Config = table.try_into().expect(detector.kind);
            assert_eq!(config.kind(), detector.kind);
            assert_eq!(DETECTORS.iter().filter(|other| other.kind == detector.kind).count(), 1);
        }
    }

    #[test]
    fn the_order_of_the_table_is_the_documented_precedence() {
        let kinds: Vec<_> = DETECTORS.iter().map(|detector| detector.kind).collect();
        let expected = [
            "wandb-sso",
            "file",
            "github-actions",
            "gitlab",
            "buildkite",
            "circleci",
            "azure-pipelines",
            "env",
            "spiffe",
            "fly",
            "aws",
            "azure",
            "gcp",
            "kubernetes",
        ];
        assert_eq!(kinds, expected);
    }

    #[tokio::test]
    async fn what_the_environment_names_is_found_in_the_tables_order() {
        let dir = tempfile::tempdir().expect("temp dir");
        let token = dir.path().join("token");
        std::fs::write(&token, jwt(60, "")).expect("written");
        let github =
            [("ACTIONS_ID_TOKEN_REQUEST_URL", "https://x/t"), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t")];
        assert_eq!(found(&github).await, ["github-actions"]);
        let both = [&github[..], &[("WANDB_IDENTITY_TOKEN_FILE", token.to_str().expect("UTF-8"))]].concat();
        assert_eq!(found(&both).await, ["file", "github-actions"]);
        let gitlab = [("GITLAB_CI", "true"), ("WANDB_ID_TOKEN", "x")];
        assert_eq!(found(&gitlab).await, ["gitlab"]);
    }

    #[tokio::test]
    async fn our_own_output_is_never_taken_for_a_source() {
        let dir = tempfile::tempdir().expect("temp dir");
        let runtime = dir.path().join("wandb-cred");
        std::fs::create_dir_all(runtime.join("profiles/work")).expect("made");
        let own = runtime.join("profiles/work/identity-token");
        std::fs::write(&own, jwt(60, "")).expect("written");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&own, &link).expect("linked");
        let xdg = dir.path().to_str().expect("UTF-8");
        for path in [&own, &link] {
            let path = path.to_str().expect("UTF-8");
            let cx = context(&[("XDG_RUNTIME_DIR", xdg), ("WANDB_IDENTITY_TOKEN_FILE", path)]);
            let detections = survey(&cx, DETECTORS, false).await;
            let file = detections.iter().find(|detection| detection.kind == "file").expect("in the table");
            assert!(!file.found && file.why.contains("wandb-cred writes itself"), "{}", file.why);
        }
    }

    #[tokio::test]
    async fn a_detector_that_hangs_does_not_hide_what_the_others_find() {
        const HANGS: Detector = Detector {
            kind: "hangs",
            in_environment: |_| loop {
                std::thread::park();
            },
            on_machine: |_| None,
            probe: |_| None,
            settings: |_| Vec::new(),
            build: |_| unreachable!("never found"),
        };
        static TWO: LazyLock<Vec<Detector>> = LazyLock::new(|| {
            let gitlab = DETECTORS.iter().find(|detector| detector.kind == "gitlab").expect("in the table");
            vec![HANGS, Detector { ..*gitlab }]
        });
        let cx = context(&[("GITLAB_CI", "true"), ("WANDB_ID_TOKEN", "x")]);
        for _ in 0..2 {
            let detections = survey(&cx, &TWO, false).await;
            assert_eq!((detections[0].kind, detections[0].found), ("gitlab", true));
            assert!(!detections[1].found && detections[1].why.contains("in time"), "{}", detections[1].why);
        }
    }

    #[tokio::test]
    async fn a_file_of_wandb_login_sso_is_told_from_a_bare_jwt() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("identity.json");
        std::fs::write(&path, r#"{"version":1,"accounts":{}}"#).expect("written");
        let vars = [("WANDB_IDENTITY_TOKEN_FILE", path.to_str().expect("UTF-8"))];
        assert_eq!(found(&vars).await.first(), Some(&"wandb-sso"));
    }

    #[tokio::test]
    async fn nothing_found_says_what_was_looked_for() {
        let detections = survey(&context(&[("GITHUB_ACTIONS", "true")]), DETECTORS, false).await;
        let error = nothing_found("work", &detections);
        assert_eq!((error.kind, error.reason), (Kind::Misconfigured, Reason::NoSource));
        let message = error.message;
        for detector in DETECTORS {
            assert!(message.contains(detector.kind), "{message}");
        }
        assert!(message.contains("id-token: write"), "{message}");
    }

    #[tokio::test]
    async fn the_choice_is_the_provider() {
        let token = jwt(60, "");
        let vars = [("GITLAB_CI", "true"), ("WANDB_ID_TOKEN", token.as_str())];
        let auto = NO_PROBE.build(context(&vars), DETECTORS).expect("built");
        assert_eq!(auto.name(), "auto");
        auto.fetch().await.expect("a token");
        assert_eq!(auto.name(), "gitlab");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_never_answers_costs_half_a_second_and_delays_no_other_answer() {
        let started = tokio::time::Instant::now();
        let probes: Vec<Option<Probe>> = vec![
            Some(Box::pin(std::future::pending())),
            None,
            Some(Box::pin(async { Ok("here".to_owned()) })),
        ];
        let answers = ask(probes, PROBE_TIMEOUT).await;
        assert_eq!(started.elapsed(), PROBE_TIMEOUT);
        assert_eq!(answers[0], Some(Err("no answer within 500 ms".to_owned())));
        assert_eq!(answers[1], None);
        assert_eq!(answers[2], Some(Ok("here".to_owned())));
    }
}
