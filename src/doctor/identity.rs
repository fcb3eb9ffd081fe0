//! The identity source and its JWT: does the source answer, is it a JWT, how long does it live, who is it for.

use std::time::Duration;

use super::report::{Report, Step};
use super::{Context, Source, subject};
use crate::duration;
use crate::error::{Error, Exit, FileFault, Kind, Malformed, Reason};
use crate::token::{Claims, Expires as _, IdentityToken};

/// Asks the source once, and reports what that says about it.
pub(super) async fn fetch(cx: &Context<'_>, source: &Source, report: &mut Report) -> Option<IdentityToken> {
    let error = match source.identity().await {
        Ok(token) => {
            if source.is_direct() {
                wait_until_valid(cx, &token).await;
            }
            let kind = source.detected_provider().unwrap_or(cx.provider);
            match source.identity_error() {
                None => report.ok(Step::Provider, format!("{kind} gives identity tokens")),
                Some(error) => report.warn(
                    Step::Provider,
                    format!("the last token is still valid, but its renewal fails: {error}"),
                    source_remedy(kind, &error),
                ),
            }
            report.ok(Step::Jwt, form(&token));
            return Some(token);
        }
        Err(error) => error,
    };
    let step = step_of(&error.reason);
    let remedy = match &error.reason {
        Reason::MalformedToken { how } => malformed_remedy(how).to_owned(),
        Reason::TokenExpired { .. } => {
            "have the source write a new token before the old one expires; if the token is new, this machine's clock is wrong"
                .to_owned()
        }
        Reason::NotYetValid { .. } => EARLY_REMEDY.to_owned(),
        Reason::AudienceMismatch { .. } => audience_remedy(cx),
        _ => match report.failed(&[Step::SignIn]) {
            Some(step) => format!("fix `{step}` first, above"),
            None => source_remedy(source.detected_provider().unwrap_or(cx.provider), &error),
        },
    };
    if step != Step::Provider {
        report.ok(Step::Provider, "the source answers");
    }
    report.fail(step, Exit::from(&error), &*error.message, remedy);
    let rest: Vec<Step> = TOKEN_STEPS.iter().copied().filter(|other| *other != step).collect();
    report.skip(&rest, "needs an identity token");
    None
}

/// As a daemon does, which uses an early token (`nbf`) once it is valid.
async fn wait_until_valid(cx: &Context<'_>, token: &IdentityToken) {
    if token.not_yet(cx.clock.now()).is_none() {
        return;
    }
    // It may be our clock that is behind.
    cx.http.ask_time(cx.base_url.url()).await;
    match token.not_yet(cx.clock.now()) {
        Some((wait, _)) if wait <= MAX_EARLY => drop(cx.clock.sleep(wait).await),
        _ => {}
    }
}

/// The steps that need the JWT.
pub(super) const TOKEN_STEPS: [Step; 8] = [
    Step::Jwt,
    Step::Lifetime,
    Step::Issuer,
    Step::Signature,
    Step::Subject,
    Step::StableSubject,
    Step::Audience,
    Step::Outlook,
];

pub(super) fn check(cx: &Context<'_>, token: &IdentityToken, report: &mut Report) {
    lifetime(cx, token, report);
    subject::check(cx, token.claims(), report);
    audience(cx, token, report);
    match token.renewal().outlook {
        None => report.ok(Step::Outlook, "no end of this identity is known"),
        Some(outlook) => {
            let left = outlook.until.duration_since(cx.clock.now().wall).as_secs();
            let found = format!(
                "new identity tokens until {} (in {}): {}",
                outlook.until,
                duration::text(left),
                outlook.reason
            );
            if left < MIN_OUTLOOK {
                let remedy = "run longer work in a job of its own, with an identity of its own; \
                              check with `wandb-cred token --need 72h` before you queue a job";
                report.warn(Step::Outlook, found, remedy);
            } else {
                report.ok(Step::Outlook, found);
            }
        }
    }
}

fn form(token: &IdentityToken) -> String {
    let kid = token.header().kid.as_deref().map_or(String::new(), |kid| format!(", key {kid:?}"));
    format!("well-formed, algorithm {}{kid}", token.header().alg)
}

fn lifetime(cx: &Context<'_>, token: &IdentityToken, report: &mut Report) {
    let now = cx.clock.now();
    let left = i64::try_from(token.expiry().remaining(now).as_secs()).unwrap_or(i64::MAX);
    let claims = token.claims();
    let life = life(claims);
    let mut found = match life {
        Some(life) => format!("lives {}, {} left", duration::text(life), duration::text(left)),
        None => format!("{} left", duration::text(left)),
    };
    found += &match token.renewal().not_before_expiry {
        Some(margin) => format!(
            "; the source caches it, so it is renewed {} before it expires",
            duration::text(margin.as_secs())
        ),
        None => format!("; renewed about every {}", duration::text(life.unwrap_or(left) * 65 / 100)),
    };
    let early = claims.nbf.map_or(0, |nbf| (nbf as i64).saturating_sub(now.wall.as_second()));
    if early > MAX_SKEW {
        found = format!("not valid before {} from now (`nbf`)", duration::text(early));
        report.fail(Step::Lifetime, Exit::TryLater, found, EARLY_REMEDY);
    } else if left < MIN_LIFETIME {
        report.warn(
            Step::Lifetime,
            found,
            "have the source renew its token earlier: W&B may see it too late",
        );
    } else if life.unwrap_or(left) > MAX_LIFETIME {
        let remedy = "ask the identity provider for tokens of an hour or less: a stolen copy of this one works \
                      until it expires";
        report.warn(Step::Lifetime, found, remedy);
    } else {
        report.ok(Step::Lifetime, found);
    }
}

/// From `iat` to `exp`, where both are times of this century's clocks.
fn life(claims: &Claims) -> Option<i64> {
    let (exp, iat) = claims.exp.zip(claims.iat)?;
    let plausible = |time: &f64| (0.0..LAST_TIME).contains(time);
    (plausible(&exp) && plausible(&iat)).then_some((exp - iat) as i64)
}

fn audience(cx: &Context<'_>, token: &IdentityToken, report: &mut Report) {
    let given = &token.claims().aud;
    let shown = given.iter().map(|aud| format!("{aud:?}")).collect::<Vec<_>>().join(", ");
    match cx.audience {
        _ if given.is_empty() => {
            let found = "the JWT has no `aud`, but W&B expects your organization's name there";
            report.fail(Step::Audience, Exit::Configuration, found, audience_remedy(cx));
        }
        Some(wanted) if !given.iter().any(|aud| aud == wanted) => {
            let near = given.iter().any(|aud| aud.trim().eq_ignore_ascii_case(wanted.trim()));
            let why = if near { " (case and white space count)" } else { "" };
            let found = format!("`aud` is {shown}, but the profile expects {wanted:?}{why}");
            report.fail(Step::Audience, Exit::Configuration, found, audience_remedy(cx));
        }
        Some(_) => report.ok(Step::Audience, format!("`aud` is {shown}, as the profile expects")),
        None => report.ok(
            Step::Audience,
            format!(
                "`aud` is {shown}; the profile names none, and W&B compares it with your organization's name"
            ),
        ),
    }
}

fn audience_remedy(cx: &Context<'_>) -> String {
    let profile = cx.profile;
    let action = match cx.provider {
        "gitlab" => "set `aud` under the job's `id_tokens`",
        "kubernetes" => "set `audience` of the projected serviceAccountToken volume",
        "azure" => {
            "register the organization's name as an application ID URI in the tenant, or ask for W&B's \
                    FEDERATED_AUTH_AUDIENCES (Dedicated Cloud and Self-Managed)"
        }
        "client-credentials" | "oidc" => {
            "set the audience at the issuer (Auth0: APIs; Okta: Security > API; \
                                          Keycloak: Client scopes > audience mapper)"
        }
        "circleci" => {
            "only the CircleCI CLI gives another audience: set source = \"command\" in the provider's table"
        }
        _ => "ask the source for that audience",
    };
    format!(
        "{action}; `audience` in [profile.{profile}] must be the name of the W&B organization. Dedicated Cloud and \
         Self-Managed servers accept what FEDERATED_AUTH_AUDIENCES lists"
    )
}

/// The step that an identity error is about.
fn step_of(reason: &Reason) -> Step {
    match reason {
        Reason::AudienceMismatch { .. } => Step::Audience,
        Reason::TokenExpired { .. } | Reason::NotYetValid { .. } => Step::Lifetime,
        Reason::MalformedToken { .. } => Step::Jwt,
        _ => Step::Provider,
    }
}

fn malformed_remedy(how: &Malformed) -> &'static str {
    match how {
        // RFC 7516, section 3: a JWE has five parts.
        Malformed::NotThreeParts { count: 5 } => {
            "this is an encrypted JWT (JWE); have the issuer sign it only"
        }
        Malformed::Json => {
            "name the field that holds the JWT: provider `command`, for example with argv [\"cat\", FILE], and `field`"
        }
        Malformed::Claim { .. } => "have the issuer write the claim as RFC 7519 says; W&B reads it too",
        Malformed::Unsigned => "have the issuer sign with RS256 or ES256",
        Malformed::Empty => "check what writes it: the write may be in progress, or have failed",
        _ => {
            "the source must give the JWT alone: an ID token, or an access token that is a JWT; no opaque token, and no \
             JSON around it"
        }
    }
}

/// How to fix the source, by what is wrong or by its kind.
fn source_remedy(kind: &str, error: &Error) -> String {
    let here = match (kind, &error.reason) {
        (
            _,
            Reason::File {
                path, fault: FileFault::Missing | FileFault::Unreadable | FileFault::Empty, ..
            },
        ) => Some(format!("ls -l {} (what writes that file has not, or not for this user)", path.display())),
        (_, Reason::File { path, fault: FileFault::Loose { .. } }) => {
            Some(format!("chmod 600 {}", path.display()))
        }
        ("env", Reason::Variable { name }) => Some(format!(
            "export {name}=\"$(COMMAND that prints a JWT)\" in the environment that starts the daemon"
        )),
        _ => None,
    };
    if let Some(here) = here {
        return here;
    }
    let remedy = match kind {
        "file" => "check the file and what writes it",
        "env" => "set the variable in the environment that starts the daemon",
        "command" => "run the command by hand in the daemon's environment (HOME, PATH)",
        "github-actions" => {
            "give the job `permissions: id-token: write` (Forgejo: `enable-openid-connect: true`); pull requests from \
             forks never get it"
        }
        "gitlab" => "add to the job: id_tokens: {WANDB_ID_TOKEN: {aud: YOUR_ORGANIZATION}}",
        "buildkite" => "run inside a job: its agent sets BUILDKITE_AGENT_ACCESS_TOKEN and BUILDKITE_JOB_ID",
        "circleci" => {
            "give the job a context (Organization Settings > Contexts): without one there is no OIDC token"
        }
        "gcp" => {
            "attach a service account: gcloud compute instances set-service-account VM --service-account EMAIL \
             --scopes cloud-platform; on GKE use workload identity"
        }
        "azure" => "assign a managed identity: az vm identity assign --resource-group GROUP --name VM",
        "aws" => {
            "aws iam enable-outbound-web-identity-federation, and allow the role sts:GetWebIdentityToken \
             (aws sts get-caller-identity names the role)"
        }
        "kubernetes" => {
            "mount a projected serviceAccountToken volume with the audience, or allow the pod's account `create` \
             on serviceaccounts/token"
        }
        "vault" => {
            "ask Vault by hand: vault token lookup, then vault read identity/oidc/token/ROLE (the token's policy must allow \
             that path)"
        }
        "azure-pipelines" => "map the token into the step: env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)",
        "fly" => "run on a Fly Machine: its /.fly/api socket gives tokens to the machine's own user",
        "spiffe" => "ask the agent by hand: spire-agent api fetch jwt -audience YOUR_ORGANIZATION",
        "wandb-sso" => "sign in: wandb login sso",
        "client-credentials" => {
            "check the client at its issuer (Okta: Applications; Entra ID: App registrations > Certificates & \
             secrets; Auth0: Applications; Keycloak: Clients > Credentials)"
        }
        "oidc" => "sign in: wandb-cred login",
        "auto" => "see what is found on this machine: wandb-cred init --dry-run",
        _ => "fix the profile's table: wandb-cred check",
    };
    match error.kind {
        Kind::Transient => format!("this may pass by itself; if not: {remedy}"),
        _ => remedy.to_owned(),
    }
}

const EARLY_REMEDY: &str = "this machine's clock is behind, or the issuer's is ahead: see the step `clock`";
/// The year 9999.
const LAST_TIME: f64 = 253_402_300_800.0;
/// How far clocks may differ.
const MAX_SKEW: i64 = 30;

/// How long an early token is waited for.
const MAX_EARLY: Duration = Duration::from_secs(20);
/// Less may run out on the way to W&B or in a queue there.
const MIN_LIFETIME: i64 = 30;
/// Two days.
const MAX_LIFETIME: i64 = 48 * 3600;
/// Half an hour: an earlier end is worth a warning.
const MIN_OUTLOOK: i64 = 1800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_of_absurd_times_is_unknown() {
        let life = |exp, iat| life(&Claims { exp: Some(exp), iat: Some(iat), ..Claims::default() });
        assert_eq!(life(1_800_000_600.0, 1_800_000_000.0), Some(600));
        for (exp, iat) in [(1_800_000_000.0, -1e308), (1e308, 1_800_000_000.0), (1_800_000_000.0, f64::MAX)] {
            assert_eq!(life(exp, iat), None, "{exp} {iat}");
        }
    }

    #[test]
    fn an_encrypted_jwt_has_its_own_remedy() {
        assert!(malformed_remedy(&Malformed::NotThreeParts { count: 5 }).contains("JWE"));
        assert!(malformed_remedy(&Malformed::NotThreeParts { count: 1 }).contains("opaque"));
    }
}
