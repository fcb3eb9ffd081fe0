//! `auto`: the first identity source that is here, found without a configuration.
//!
//! What the environment names explicitly wins over what the machine is (firmware and files), and that over what
//! the network answers. Metadata addresses are asked only when nothing else was found, all at once, for half
//! a second: where they are a black hole, that is all it costs. [`survey`] tells what was looked for and why each
//! source was passed over; `wandb-cred init` and the start without a configuration read it too.
//!
//! ```toml
//! [profile.anywhere]
//! audience = "acme"
//! [profile.anywhere.provider.auto]
//! ```

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::ci::{buildkite, circleci, github_actions, gitlab};
use super::cloud::{aws, azure, gcp};
use super::cluster::{kubernetes, spiffe};
use super::local::{file, wandb_sso};
use super::{Context, Provider};
use crate::env::Env;
use crate::error::Error;
use crate::paths;
use crate::token::IdentityToken;

/// Whoever wants to choose names the kind instead.
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
    pub fn build(self, cx: Context) -> Result<Auto, Error> {
        Ok(Auto { probe: self.probe, chosen: OnceCell::new(), cx })
    }
}

/// What was learnt of one kind of source.
#[derive(Clone, Debug)]
pub struct Finding {
    /// As the configuration spells it.
    pub kind: &'static str,
    pub found: bool,
    /// What speaks for it, or what was looked for and is not here.
    pub why: String,
    /// The provider's table, ready for a profile.
    pub config: super::Config,
}

/// Looks for every kind; what was found comes first, the best at the top.
pub async fn survey(cx: &Context) -> Vec<Finding> {
    look(cx, true).await
}

async fn look(cx: &Context, probe: bool) -> Vec<Finding> {
    let env = cx.env.clone();
    // A file on a dead network mount must not stop this.
    let looking =
        tokio::task::spawn_blocking(move || ROWS.iter().map(|row| row.look(&env)).collect::<Vec<_>>());
    let mut looks = match tokio::time::timeout(PATIENCE, looking).await {
        Ok(Ok(looks)) => looks,
        _ => ROWS.iter().map(|_| Look::Passed("its files could not be looked at in time".into())).collect(),
    };
    if probe && !looks.iter().any(|look| matches!(look, Look::Named(_) | Look::Local(_))) {
        let probes = ROWS.iter().map(|row| row.probe.map(|probe| probe(cx.clone()))).collect();
        for (look, answer) in looks.iter_mut().zip(ask(probes, PATIENCE).await) {
            match (answer, &*look) {
                (Some(Ok(why)), _) => *look = Look::Answered(why),
                (Some(Err(why)), Look::Passed(before)) => *look = Look::Passed(format!("{before}; {why}")),
                _ => {}
            }
        }
    }
    let mut findings: Vec<(u8, Finding)> = ROWS
        .iter()
        .zip(looks)
        .map(|(row, look)| {
            let (rank, why) = match look {
                Look::Named(why) => (0, why),
                Look::Local(why) => (1, why),
                Look::Answered(why) => (2, why),
                Look::Passed(why) => (3, why),
            };
            (rank, Finding { kind: row.kind, found: rank < 3, why, config: (row.config)(&cx.env) })
        })
        .collect();
    // Stable: within a rank, the table's order decides.
    findings.sort_by_key(|(rank, _)| *rank);
    findings.into_iter().map(|(_, finding)| finding).collect()
}

pub struct Auto {
    probe: bool,
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
}

impl Auto {
    async fn choose(&self) -> Result<Box<dyn Provider>, Error> {
        let findings = look(&self.cx, self.probe).await;
        let Some(best) = findings.first().filter(|finding| finding.found) else {
            return Err(nothing(&self.cx.profile, &findings));
        };
        tracing::info!(profile = %self.cx.profile, kind = best.kind, why = %best.why, "identity source found");
        best.config.clone().build(self.cx.clone())
    }
}

fn nothing(profile: &str, findings: &[Finding]) -> Error {
    let passed: Vec<_> =
        findings.iter().map(|finding| format!("{} ({})", finding.kind, finding.why)).collect();
    Error::misconfigured(format!(
        "found no identity source here; name one in [profile.{profile}.provider.KIND]. Looked for: {}",
        passed.join(", ")
    ))
}

type Answer = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// One kind of source: how it is recognised, and the table that uses it.
struct Row {
    kind: &'static str,
    /// Named by the environment, or mounted for us; the error says what is missing.
    named: fn(&Env) -> Result<String, String>,
    /// What the machine is, by its firmware and files.
    local: fn(&Env) -> Option<String>,
    /// What a metadata address answers.
    probe: Option<fn(Context) -> Answer>,
    config: fn(&Env) -> super::Config,
}

enum Look {
    Named(String),
    Local(String),
    Answered(String),
    Passed(String),
}

impl Row {
    fn look(&self, env: &Env) -> Look {
        match (self.named)(env) {
            Ok(why) => Look::Named(why),
            Err(missing) => (self.local)(env).map_or(Look::Passed(missing), Look::Local),
        }
    }
}

/// Runs all probes at once; whatever has not answered by `patience` is told so and dropped.
async fn ask(probes: Vec<Option<Answer>>, patience: Duration) -> Vec<Option<Result<String, String>>> {
    let late = || Err(format!("no answer within {} ms", patience.as_millis()));
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
    // Late probes are told apart by the answer they were given above; dropping the set aborts them.
    let _ = tokio::time::timeout(patience, collecting).await;
    answers
}

/// The order within each rank.
const ROWS: &[Row] = &[
    Row {
        kind: "wandb-sso",
        named: |env| {
            let found = token_file(env).and_then(|_| wandb_sso::present(env).ok_or_else(String::new));
            found.map_err(|_| format!("{TOKEN_FILE} names no file of `wandb login sso`"))
        },
        local: |_| None,
        probe: None,
        config: |_| super::Config::WandbSso(wandb_sso::Config::default()),
    },
    Row {
        kind: "file",
        named: |env| token_file(env).map(|path| format!("{TOKEN_FILE} names {}", path.display())),
        local: |_| None,
        probe: None,
        config: |env| {
            let path = env.var(TOKEN_FILE).unwrap_or_default();
            super::Config::File(file::Config { path: path.into() })
        },
    },
    Row {
        kind: "github-actions",
        named: |env| github_actions::present(env).ok_or_else(|| github_actions::absent(env)),
        local: |_| None,
        probe: None,
        config: |_| super::Config::GithubActions(github_actions::Config::default()),
    },
    Row {
        kind: "gitlab",
        named: |env| gitlab::present(env).ok_or_else(|| unset(env, "GITLAB_CI", "WANDB_ID_TOKEN")),
        local: |_| None,
        probe: None,
        config: |_| super::Config::Gitlab(gitlab::Config::default()),
    },
    Row {
        kind: "buildkite",
        named: |env| {
            buildkite::present(env)
                .ok_or_else(|| unset(env, "BUILDKITE_JOB_ID", "BUILDKITE_AGENT_ACCESS_TOKEN"))
        },
        local: |_| None,
        probe: None,
        config: |_| super::Config::Buildkite(buildkite::Config::default()),
    },
    Row {
        kind: "circleci",
        named: |env| circleci::present(env).ok_or_else(|| unset(env, "CIRCLECI", "CIRCLE_OIDC_TOKEN_V2")),
        local: |_| None,
        probe: None,
        config: |_| super::Config::Circleci(circleci::Config::default()),
    },
    Row {
        kind: "spiffe",
        named: |env| spiffe::present(env).ok_or_else(|| "SPIFFE_ENDPOINT_SOCKET names no socket".into()),
        local: |_| None,
        probe: None,
        config: |_| super::Config::Spiffe(spiffe::Config::default()),
    },
    Row {
        kind: "aws",
        named: |env| any_set(env, &aws::NAMED),
        local: aws::present,
        probe: Some(|cx| Box::pin(async move { aws::probe(&cx).await })),
        config: |_| super::Config::Aws(aws::Config::default()),
    },
    Row {
        kind: "azure",
        named: |env| any_set(env, &azure::NAMED),
        local: azure::present,
        probe: Some(|cx| Box::pin(async move { azure::probe(&cx).await })),
        config: |_| super::Config::Azure(azure::Config::default()),
    },
    Row {
        kind: "gcp",
        named: |env| any_set(env, &["GCE_METADATA_HOST", "GCE_METADATA_ROOT"]),
        local: gcp::present,
        probe: Some(|cx| Box::pin(async move { gcp::probe(&cx).await })),
        config: |_| super::Config::Gcp(gcp::Config::default()),
    },
    Row {
        kind: "kubernetes",
        named: |env| kubernetes::present(env).ok_or_else(|| "no projected token is mounted for W&B".into()),
        // Behind the clouds: a pod's account may ask for tokens only where somebody gave it the role.
        local: kubernetes::in_pod,
        probe: None,
        config: |_| super::Config::Kubernetes(kubernetes::Config::default()),
    },
];

/// The file that the environment names, unless it is one that we write ourselves: a daemon started from a shell
/// that was set up for the SDK would read its own output and never renew it.
fn token_file(env: &Env) -> Result<PathBuf, String> {
    let path = PathBuf::from(env.var(TOKEN_FILE).ok_or_else(|| format!("{TOKEN_FILE} is not set"))?);
    let own = paths::socket(env).ok().and_then(|socket| Some(socket.parent()?.join("profiles")));
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let ours = own.is_some_and(|own| path.starts_with(&own) || real(&path).starts_with(real(&own)));
    if ours {
        return Err(format!("{TOKEN_FILE} names {}, which wandb-cred writes itself", path.display()));
    }
    Ok(path)
}

fn unset(env: &Env, first: &str, second: &str) -> String {
    match env.var(first) {
        Some(_) => format!("{first} is set, but {second} is not"),
        None => format!("{first} is not set"),
    }
}

fn any_set(env: &Env, names: &[&str]) -> Result<String, String> {
    match names.iter().find(|name| env.var(name).is_some()) {
        Some(name) => Ok(format!("{name} is set")),
        None => Err(format!("none of {} is set", names.join(", "))),
    }
}

const TOKEN_FILE: &str = "WANDB_IDENTITY_TOKEN_FILE";

/// For looking at files, and again for asking the network.
const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::provider::answer::test::{context, jwt};

    const QUIET: Config = Config { probe: false };

    /// A test may run on a machine of any cloud, or in a pod.
    const OF_THE_MACHINE: [&str; 4] = ["gcp", "azure", "aws", "kubernetes"];

    /// Kinds found without asking the network, and without those of the machine that the test happens to run on.
    async fn found(vars: &[(&str, &str)]) -> Vec<&'static str> {
        let findings = look(&context(vars), false).await;
        findings
            .iter()
            .filter(|finding| finding.found && !OF_THE_MACHINE.contains(&finding.kind))
            .map(|finding| finding.kind)
            .collect()
    }

    #[test]
    fn every_kind_is_once_in_the_table_and_spelt_as_in_the_configuration() {
        let env = Env::fixed([("WANDB_IDENTITY_TOKEN_FILE", "/x")]);
        for row in ROWS {
            let shape = format!("{:?}", (row.config)(&env));
            let table = format!("[{}]\n{}", row.kind, if row.kind == "file" { "path = \"/x\"" } else { "" });
            let parsed: crate::provider::Config = toml::from_str(&table).expect(row.kind);
            assert_eq!(format!("{parsed:?}"), shape, "{}", row.kind);
            assert_eq!(ROWS.iter().filter(|other| other.kind == row.kind).count(), 1);
        }
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
            let findings = look(&cx, false).await;
            let file = findings.iter().find(|finding| finding.kind == "file").expect("in the table");
            assert!(!file.found && file.why.contains("wandb-cred writes itself"), "{file:?}");
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
        let error = nothing("work", &look(&context(&[("GITHUB_ACTIONS", "true")]), false).await);
        let message = error.to_string();
        assert!((error).kind == Kind::Misconfigured);
        for row in ROWS {
            assert!(message.contains(row.kind), "{message}");
        }
        assert!(message.contains("id-token: write"), "{message}");
    }

    #[tokio::test]
    async fn the_choice_is_the_provider() {
        let token = jwt(60, "");
        let vars = [("GITLAB_CI", "true"), ("WANDB_ID_TOKEN", token.as_str())];
        let auto = QUIET.build(context(&vars)).expect("built");
        assert_eq!(auto.name(), "auto");
        auto.fetch().await.expect("a token");
        assert_eq!(auto.name(), "gitlab");
    }

    #[tokio::test(start_paused = true)]
    async fn a_black_hole_costs_half_a_second_and_holds_up_no_answer() {
        let started = tokio::time::Instant::now();
        let probes: Vec<Option<Answer>> = vec![
            Some(Box::pin(std::future::pending())),
            None,
            Some(Box::pin(async { Ok("here".to_owned()) })),
        ];
        let answers = ask(probes, PATIENCE).await;
        assert_eq!(started.elapsed(), PATIENCE);
        assert_eq!(answers[0], Some(Err("no answer within 500 ms".to_owned())));
        assert_eq!(answers[1], None);
        assert_eq!(answers[2], Some(Ok("here".to_owned())));
    }
}
