//! `github-actions`: the ID token of a GitHub Actions or Forgejo Actions job.
//!
//! The runner gives the job a request URL and a request token; each call mints a new JWT of 5 minutes. The
//! request token itself ends about six hours after the job began, and nothing renews it: that is the outlook.
//!
//! The job needs `permissions: id-token: write`, which pull requests from forks never get; on Forgejo
//! `enable-openid-connect: true`.
//! `iss` is `https://token.actions.githubusercontent.com` (GitHub Enterprise: `https://HOST/_services/token`;
//! Forgejo: `https://HOST/api/actions`), `sub` is `repo:OWNER/REPO:ref:refs/heads/BRANCH`,
//! `repo:OWNER/REPO:environment:NAME` or `repo:OWNER/REPO:pull_request`, unless the repository customizes it.
//!
//! ```toml
//! [profile.ci]
//! audience = "acme"
//! [profile.ci.provider.github-actions]
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, Malformed, Reason};
use crate::http::Destination;
use crate::provider::answer;
use crate::provider::detect::Detect;
use crate::provider::settings::variable_url;
use crate::provider::source::{AUDIENCE_IGNORED, Context, Provider};
use crate::token::{Expires as _, IdentityToken, Outlook, Renewal, Secret};

/// The runner's variables and the profile's audience say all that is needed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// For one request; 15 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<GithubActions, Error> {
        let var = |name| cx.env.var(name).ok_or_else(|| Error::variable(name, missing(&cx.env)));
        let (url, token) = (var(URL)?, var(TOKEN)?);
        // https, or the runner of a test on this machine: the request token goes nowhere else.
        let mut url = variable_url(URL, &url, Destination::Network)?;
        url.query_pairs_mut().append_pair("audience", cx.require_audience(KIND)?);
        let built = cx.clock.now().wall;
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        Ok(GithubActions { url, token: Secret::new(token), built, timeout, cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        if env.var(URL).is_none() || env.var(TOKEN).is_none() {
            return Err(missing(env));
        }
        let system = if env.var("FORGEJO_ACTIONS").is_some() { "Forgejo" } else { "GitHub" };
        Ok(format!("{URL} is set: a {system} Actions job with `id-token: write`"))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct GithubActions {
    url: Url,
    token: Secret<String>,
    built: Timestamp,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for GithubActions {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let outlook = self.outlook()?;
        let bearer = Zeroizing::new(format!("bearer {}", self.token.expose()));
        let http = &self.cx.http;
        let request = http
            .request(Destination::Network, Method::GET, self.url.clone())
            .header(AUTHORIZATION, bearer.as_str())
            .header(ACCEPT, "application/json; api-version=2.0");
        let answer = http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        match answer.status {
            200 => {}
            401 | 403 => {
                let hint = "the job's request token was refused: it ends about 6 h after the job began, and the job \
                            needs `permissions: id-token: write` all the time";
                return Err(answer::refusal(SERVICE, &answer, None).hint(hint));
            }
            _ => return Err(answer::refusal(SERVICE, &answer, None)),
        }
        let minted: Minted = answer::json(SERVICE, &answer)?;

        let token = self.cx.identity(&minted.value, SERVICE, AUDIENCE_IGNORED)?;
        Ok(token.with_renewal(Renewal { outlook: Some(outlook), ..Renewal::default() }))
    }
}

impl GithubActions {
    /// When the request token ends: by its own `exp` if it is a JWT, as GitHub's are, else by estimate.
    fn outlook(&self) -> Result<Outlook, Error> {
        let until = match IdentityToken::parse_insecure(self.token.expose(), self.cx.clock.now()) {
            Ok(token) => {
                let reason = "the job's request token expires then, and nothing renews it within the job";
                return Ok(Outlook { until: token.expiry().wall(), reason: Arc::from(reason) });
            }
            Err(Malformed::Expired { at }) => {
                let message = format!(
                    "the job's request token ({TOKEN}) expired at {at}, and nothing renews it within the job; \
                     split the work into jobs of under 6 h"
                );
                return Err(Error::rejected(message).because(Reason::Variable { name: TOKEN.to_owned() }));
            }
            Err(_) => self.built + REQUEST_TOKEN_LIFE,
        };
        let reason = "estimate: a job's request token lives about 6 h 10 min, counted from the start of this \
                      daemon, since the start of the job is not known";
        Ok(Outlook { until, reason: Arc::from(reason) })
    }
}

#[derive(Deserialize)]
struct Minted {
    value: Zeroizing<String>,
}

fn missing(env: &Env) -> String {
    let is = |name| env.var(name).is_some();
    // Forgejo's runner calls itself Gitea's and GitHub's too, and Gitea's calls itself GitHub's.
    let why = if is("FORGEJO_ACTIONS") {
        "so the job may not ask for ID tokens; add `enable-openid-connect: true` to the workflow or the job (Forgejo 15 or later)"
    } else if is("GITEA_ACTIONS") {
        "and Gitea Actions has no ID tokens; use another identity, such as `client-credentials`"
    } else if is("GITHUB_ACTIONS") {
        "so the job may not ask for ID tokens; add `permissions: id-token: write` to the job (pull requests from forks \
         never get it)"
    } else {
        return format!(
            "provider {KIND}: {URL} and {TOKEN} are not set: this is not a job of GitHub or Forgejo Actions"
        );
    };
    format!("{URL} and {TOKEN} are not set, {why}")
}

const KIND: &str = "github-actions";
const SERVICE: &str = "the Actions ID token service";
const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 128 * 1024;

/// 6 h 10 min, as seen in a job's trace; GitHub does not document it.
const REQUEST_TOKEN_LIFE: Duration = Duration::from_secs(6 * 3600 + 600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::provider::source::test::{context, jwt};

    fn build(url: &str, token: &str) -> Result<GithubActions, Error> {
        Config::default().build(context(&[(URL, url), (TOKEN, token)]))
    }

    #[test]
    fn the_request_token_goes_by_https_or_to_this_machine_only() {
        assert!(build("https://x.actions.githubusercontent.com/t?api-version=2.0", "t").is_ok());
        assert!(build("http://127.0.0.1:9/t", "t").is_ok());
        for url in ["http://metadata.internal/t", "http://169.254.169.254/t", "https://u:p@x/t", "nonsense"] {
            assert!(matches!(build(url, "t"), Err(Error { kind: Kind::Misconfigured, .. })), "{url}");
        }
    }

    #[test]
    fn the_audience_joins_the_query_of_the_runner() {
        let provider = build("https://x/t?api-version=2.0", "t").expect("built");
        assert_eq!(provider.url.query(), Some("api-version=2.0&audience=acme"));
    }

    #[test]
    fn a_job_without_the_permission_learns_which_one() {
        let error =
            Config::default().build(context(&[("GITHUB_ACTIONS", "true")])).err().expect("no permission");
        assert!(error.to_string().contains("id-token: write"), "{error}");
        assert!(Config::in_environment(&context(&[("GITHUB_ACTIONS", "true")]).env).is_err());
    }

    #[test]
    fn other_runners_that_call_themselves_github_get_their_own_remedy() {
        let gitea = [("GITHUB_ACTIONS", "true"), ("GITEA_ACTIONS", "true")];
        let forgejo = [gitea[0], gitea[1], ("FORGEJO_ACTIONS", "true")];
        for (vars, remedy) in [(&gitea[..], "no ID tokens"), (&forgejo[..], "enable-openid-connect: true")] {
            let error = Config::default().build(context(vars)).err().expect("no variables").to_string();
            assert!(error.contains(remedy) && !error.contains("permissions"), "{error}");
        }
    }

    #[test]
    fn the_outlook_is_the_request_tokens_own_end_where_it_says_so() {
        let provider = build("https://x/t", &jwt(3600, "")).expect("built");
        let outlook = provider.outlook().expect("alive");
        let left = outlook.until.duration_since(provider.built).as_secs();
        assert!((3595..=3600).contains(&left), "{left}");
        assert!(!outlook.reason.contains("estimate"));
    }

    #[test]
    fn the_outlook_of_an_opaque_request_token_is_called_an_estimate() {
        let provider = build("https://x/t", "opaque").expect("built");
        let outlook = provider.outlook().expect("an estimate");
        assert_eq!(outlook.until, provider.built + REQUEST_TOKEN_LIFE);
        assert!(outlook.reason.contains("estimate"));
    }

    #[test]
    fn an_expired_request_token_is_refused_without_a_request() {
        let provider = build("https://x/t", &jwt(-5, "")).expect("built");
        assert!(matches!(provider.outlook(), Err(Error { kind: Kind::Rejected, .. })));
    }
}
