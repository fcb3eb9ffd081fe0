//! The identity source and its JWT: is there one, is it one, how long does it live, what will W&B see in it.

use super::report::{Report, Step, span};
use super::{Case, Source, subject};
use crate::error::{Error, Exit, Kind, Malformed, Reason};
use crate::token::{Expires as _, IdentityToken};

/// Asks the source once, and says what that tells of it.
pub(super) async fn fetch(case: &Case<'_>, source: &Source, report: &mut Report) -> Option<IdentityToken> {
    let error = match source.identity().await {
        Ok(token) => {
            let kind = source.chosen().unwrap_or(case.provider);
            match source.riding_out() {
                None => report.ok(Step::Provider, format!("{kind} gives identity tokens")),
                Some(error) => report.warn(
                    Step::Provider,
                    format!("the last good token is in use, and its renewal fails for now: {error}"),
                    hint(kind, &error),
                ),
            }
            report.ok(Step::Jwt, form(&token));
            return Some(token);
        }
        Err(error) => error,
    };
    let step = step_of(&error.reason);
    let remedy = match &error.reason {
        Reason::MalformedToken { how } => not_a_jwt(how).to_owned(),
        Reason::TokenExpired { .. } => {
            "have the source write a new token before the old one ends; if the token is new, this machine's clock is wrong"
                .to_owned()
        }
        Reason::AudienceMismatch { .. } => for_audience(case),
        _ => hint(source.chosen().unwrap_or(case.provider), &error),
    };
    if step != Step::Provider {
        report.ok(Step::Provider, "the source answers");
    }
    report.fail(step, Exit::from(&error), &*error.message, remedy);
    let rest: Vec<Step> = AFTER.iter().copied().filter(|other| *other != step).collect();
    report.skip(&rest, "needs an identity token");
    None
}

/// The steps that need the JWT.
const AFTER: [Step; 8] = [
    Step::Jwt,
    Step::Lifetime,
    Step::Issuer,
    Step::Signature,
    Step::Subject,
    Step::StableSubject,
    Step::Audience,
    Step::Outlook,
];

pub(super) fn examine(case: &Case<'_>, token: &IdentityToken, report: &mut Report) {
    lifetime(case, token, report);
    subject::examine(case, token.claims(), report);
    audience(case, token, report);
    match token.renewal().outlook {
        None => report.ok(Step::Outlook, "no end of this identity is known"),
        Some(outlook) => {
            let left = outlook.until.duration_since(case.clock.now().wall).as_secs();
            let found = format!(
                "new identity tokens until {} (in {}): {}",
                outlook.until,
                span(left),
                outlook.reason
            );
            if left < SOON {
                let remedy = "start what runs longer in a job of its own, with an identity of its own; \
                              `wandb-cred token --need 72h` asks before a job is queued";
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

fn lifetime(case: &Case<'_>, token: &IdentityToken, report: &mut Report) {
    let now = case.clock.now();
    let left = i64::try_from(token.expiry().remaining(now).as_secs()).unwrap_or(i64::MAX);
    let claims = token.claims();
    let life = claims.exp.zip(claims.iat).map(|(exp, iat)| (exp - iat) as i64);
    let mut found = match life {
        Some(life) => format!("lives {}, {} left", span(life), span(left)),
        None => format!("{} left", span(left)),
    };
    found += &match token.renewal().not_before_expiry {
        Some(margin) => format!(
            "; the source keeps it, so it is renewed {} before its end",
            span(i64::try_from(margin.as_secs()).unwrap_or(i64::MAX))
        ),
        None => format!("; renewed about every {}", span(life.unwrap_or(left) * 65 / 100)),
    };
    let not_before = claims.other.get("nbf").and_then(serde_json::Value::as_f64);
    let early = not_before.map_or(0, |nbf| nbf as i64 - now.wall.as_second());
    if early > TOLERATED {
        found = format!("not valid before {} from now (`nbf`)", span(early));
        report.fail(
            Step::Lifetime,
            Exit::TryLater,
            found,
            "this machine's clock is behind, or the issuer's is ahead: compare the step `clock`",
        );
    } else if left < SHORT {
        report.warn(
            Step::Lifetime,
            found,
            "have the source renew its token earlier: W&B may see it too late",
        );
    } else if life.unwrap_or(left) > LONG {
        let remedy = "ask the identity provider for tokens of an hour or less: whoever gets a copy of this one \
                      is you until it ends";
        report.warn(Step::Lifetime, found, remedy);
    } else {
        report.ok(Step::Lifetime, found);
    }
}

fn audience(case: &Case<'_>, token: &IdentityToken, report: &mut Report) {
    let given = &token.claims().aud;
    let shown = given.iter().map(|aud| format!("{aud:?}")).collect::<Vec<_>>().join(", ");
    match case.audience {
        _ if given.is_empty() => {
            let found = "the JWT has no `aud`, and W&B expects your organization's name there";
            report.fail(Step::Audience, Exit::Configuration, found, for_audience(case));
        }
        Some(wanted) if !given.iter().any(|aud| aud == wanted) => {
            let near = given.iter().any(|aud| aud.trim().eq_ignore_ascii_case(wanted.trim()));
            let why = if near { " (case and white space count)" } else { "" };
            let found = format!("`aud` is {shown}, where the profile expects {wanted:?}{why}");
            report.fail(Step::Audience, Exit::Configuration, found, for_audience(case));
        }
        Some(_) => report.ok(Step::Audience, format!("`aud` is {shown}, as the profile expects")),
        None => report.ok(
            Step::Audience,
            format!(
                "`aud` is {shown}; the profile names none, W&B compares it with your organization's name"
            ),
        ),
    }
}

fn for_audience(case: &Case<'_>) -> String {
    let profile = case.profile;
    let ask = match case.provider {
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
        "circleci" => "only the CLI gives another audience: provider circleci with its command",
        _ => "ask the source for that audience",
    };
    format!(
        "{ask}; `audience` in [profile.{profile}] must be the name of the W&B organization. Dedicated Cloud and \
         Self-Managed servers accept what FEDERATED_AUTH_AUDIENCES lists"
    )
}

/// The step that an identity error is about.
fn step_of(reason: &Reason) -> Step {
    match reason {
        Reason::AudienceMismatch { .. } => Step::Audience,
        Reason::TokenExpired { .. } => Step::Lifetime,
        Reason::MalformedToken { .. } => Step::Jwt,
        _ => Step::Provider,
    }
}

fn not_a_jwt(how: &Malformed) -> &'static str {
    match how {
        // RFC 7516, section 3: a JWE has five parts.
        Malformed::NotThreeParts { count: 5 } => "this is an encrypted JWT (JWE); have the issuer sign only",
        Malformed::Unsigned => "have the issuer sign with RS256 or ES256",
        Malformed::Empty => "look at what writes it: the write may be under way, or have failed",
        _ => {
            "the source must give the JWT alone: an ID token, or an access token in JWT form, no opaque token, no JSON \
             around it"
        }
    }
}

/// Where to fix the source, by its kind.
fn hint(kind: &str, error: &Error) -> String {
    let own = match kind {
        "file" => "look at the file and at what writes it: ls -l on its path",
        "env" => "set the variable in the environment that starts the daemon",
        "command" => "run the command by hand in the daemon's environment (HOME, PATH)",
        "github-actions" => {
            "give the job `permissions: id-token: write`; pull requests from forks never get it"
        }
        "gitlab" => "add to the job: id_tokens: {WANDB_ID_TOKEN: {aud: YOUR_ORGANIZATION}}",
        "buildkite" => "run within a job, whose agent sets BUILDKITE_AGENT_ACCESS_TOKEN and BUILDKITE_JOB_ID",
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
        "spiffe" => "ask the agent by hand: spire-agent api fetch jwt -audience YOUR_ORGANIZATION",
        "wandb-sso" => "sign in: wandb login sso",
        "client-credentials" => {
            "look at the client at its issuer (Okta: Applications; Entra ID: App registrations > Certificates & \
             secrets; Auth0: Applications; Keycloak: Clients > Credentials)"
        }
        "oidc" => "sign in: wandb-cred login",
        "auto" => "see what is offered here: wandb-cred init --dry-run",
        _ => "fix the profile's table: wandb-cred check",
    };
    match error.kind {
        Kind::Transient => format!("may pass by itself; if not: {own}"),
        _ => own.to_owned(),
    }
}

/// What clocks may differ by.
const TOLERATED: i64 = 30;
/// Too little for the way to W&B and a queue there.
const SHORT: i64 = 30;
/// Two days.
const LONG: i64 = 48 * 3600;
/// An outlook to warn of.
const SOON: i64 = 1800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_jwt_is_told_from_other_text() {
        assert!(not_a_jwt(&Malformed::NotThreeParts { count: 5 }).contains("JWE"));
        assert!(not_a_jwt(&Malformed::NotThreeParts { count: 1 }).contains("opaque"));
    }
}
