//! AWS credentials from the standard chain, in botocore's order: environment, web identity (IRSA), the shared
//! files with `credential_process`, the container endpoint (ECS, EKS Pod Identity), the instance role.
//!
//! Roles assumed with other credentials are in `roles`, profiles of IAM Identity Center in `sso`. `aws login` and MFA are not
//! supported, and the error says so: for each of them, use the AWS CLI as the `credential_process`.
//!
//! The credentials of a role are cached while they outlast the token asked for, and beyond that while their source
//! fails: the SDKs call it static stability, and it is what carries a machine over an outage of its metadata service.
//! Keys from the environment or a file are never cached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::credentials::{Credentials, timestamp};
use super::metadata::{self, Imds, container_url};
use super::shared_files::Profile;
use super::sts::{Sts, VERSION};
use crate::error::{Error, Kind, ProgramFault, Reason};
use crate::provider::program;
use crate::provider::source::Context;
use crate::read_file::{self, off_thread};
use crate::token::Secret;

mod roles;
mod sso;

pub(super) struct Chain {
    cx: Context,
    /// A profile that the configuration names: the environment's keys are then ignored, as in the SDKs.
    profile: Option<String>,
    endpoint: Option<String>,
    imds: Imds,
    timeout: Duration,
    cached: Mutex<Option<Credentials>>,
}

impl Chain {
    pub(super) fn new(
        cx: Context,
        profile: Option<String>,
        endpoint: Option<String>,
        imds: Imds,
        timeout: Duration,
    ) -> Result<Self, Error> {
        // So that a wrong address is reported at once, not at the first attempt.
        container_url(&cx.env)?;
        Ok(Self { cx, profile, endpoint, imds, timeout, cached: Mutex::default() })
    }

    /// Credentials that live for `life` if their source has such.
    pub(super) async fn credentials(&self, region: &str, life: Duration) -> Result<Credentials, Error> {
        let mut cached = self.cached.lock().await;
        let now = self.cx.clock.now();
        if let Some(credentials) = &*cached
            && credentials.remaining(now).is_some_and(|left| left > life + SLACK)
        {
            return Ok(credentials.clone());
        }
        match (self.load(region).await, &*cached) {
            (Ok(fresh), _) => {
                *cached = (fresh.renewable && fresh.expires.is_some()).then(|| fresh.clone());
                Ok(fresh)
            }
            (Err(error), Some(last))
                if error.is_transient() && last.remaining(now).is_some_and(|left| !left.is_zero()) =>
            {
                Ok(last.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Drops the cached credentials: STS refused them.
    pub(super) async fn forget(&self) {
        *self.cached.lock().await = None;
    }

    /// The region from the AWS profile or the instance.
    pub(super) async fn region(&self) -> Result<String, Error> {
        let profile = Profile::read(&self.cx.env, self.profile.as_deref()).await?;
        if let Some(region) = profile.setting("region") {
            return Ok(region.to_owned());
        }
        self.imds.region().await.map_err(|why| {
            let message = format!(
                "the AWS region is not known: set `region` or AWS_REGION; the instance was asked: {why}"
            );
            if why.is_transient() { Error { message, ..why } } else { Error::setting("region", message) }
        })
    }

    async fn load(&self, region: &str) -> Result<Credentials, Error> {
        let env = &self.cx.env;
        if self.profile.is_none() && env.var("AWS_ACCESS_KEY_ID").is_some() {
            return self.in_environment();
        }
        let profile = Profile::read(env, self.profile.as_deref()).await?;
        if roles::assumes(&profile) {
            return self.of_role(region, profile).await;
        }
        if let Some(credentials) = self.of_profile(region, &profile, self.profile.is_none()).await? {
            return Ok(credentials);
        }
        if let Some(url) = container_url(env)? {
            return metadata::container(&self.cx, url, self.imds.timeout).await;
        }
        self.imds.credentials().await.map_err(|why| {
            let message = format!(
                "no AWS credentials in the environment, the shared files (profile {}) or a container endpoint; {why}",
                profile.name
            );
            let kind = if why.is_transient() { Kind::Transient } else { Kind::Misconfigured };
            Error { kind, message, ..why }
        })
    }

    /// What the profile itself holds, or the environment says in its place.
    async fn of_profile(
        &self,
        region: &str,
        profile: &Profile,
        environment: bool,
    ) -> Result<Option<Credentials>, Error> {
        if let Some(assume) = self.web_identity(profile, environment)? {
            return self.assume(region, assume).await.map(Some);
        }
        if sso::signs_in(profile) {
            return self.of_sso(profile).await.map(Some);
        }
        if let Some(credentials) = keys(profile, Profile::in_credentials)? {
            return Ok(Some(credentials));
        }
        if profile.setting("login_session").is_some() {
            return Err(unsupported(&profile.name, "signs in by `aws login`"));
        }
        if let Some(line) = profile.setting("credential_process") {
            return process(line).await.map(Some);
        }
        keys(profile, Profile::in_config)
    }

    fn in_environment(&self) -> Result<Credentials, Error> {
        let env = &self.cx.env;
        let (Some(id), Some(secret)) = (env.var("AWS_ACCESS_KEY_ID"), env.var("AWS_SECRET_ACCESS_KEY"))
        else {
            let message = "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not";
            return Err(Error::variable("AWS_SECRET_ACCESS_KEY", message));
        };
        let source = "from the environment";
        Ok(Credentials {
            id,
            secret: Secret::new(secret),
            session: env.var("AWS_SECURITY_TOKEN").or_else(|| env.var("AWS_SESSION_TOKEN")).map(Secret::new),
            expires: env.var("AWS_CREDENTIAL_EXPIRATION").map(|at| timestamp(&at, source)).transpose()?,
            source,
            renewable: false,
        })
    }

    /// Each variable of the environment wins over the profile's setting, as in botocore.
    fn web_identity(&self, profile: &Profile, environment: bool) -> Result<Option<Assume>, Error> {
        let one = |name: &str, key: &str| {
            let from_env = if environment { self.cx.env.var(name) } else { None };
            from_env.or_else(|| profile.setting(key).map(str::to_owned))
        };
        let Some(file) = one("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file") else {
            return Ok(None);
        };
        let Some(role) = one("AWS_ROLE_ARN", "role_arn") else {
            let message = "AWS_WEB_IDENTITY_TOKEN_FILE is set, but no role: set AWS_ROLE_ARN, or role_arn in the AWS profile";
            return Err(Error::variable("AWS_ROLE_ARN", message));
        };
        let session = one("AWS_ROLE_SESSION_NAME", "role_session_name");
        Ok(Some(Assume { file: file.into(), role, session }))
    }

    async fn assume(&self, region: &str, assume: Assume) -> Result<Credentials, Error> {
        let path = assume.file.clone();
        let token = off_thread(&assume.file, move || {
            read_file::read_text(&path, read_file::LIMIT)
                .map_err(|error| error.kind(Kind::Transient).context("the web identity token"))
        });
        let token = token.await?;
        let session =
            assume.session.unwrap_or_else(|| format!("wandb-cred-{}", self.cx.clock.now().wall.as_second()));
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", VERSION),
            ("RoleArn", &assume.role),
            ("RoleSessionName", &session),
            ("WebIdentityToken", &token),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sts = Sts::new(&self.cx, self.endpoint.as_deref(), region, self.timeout)?;
        let assumed = sts.call::<ByWebIdentity>(&form, None).await;
        // The copies of the token in the form and in `token`.
        drop((form.map(|(_, value)| Zeroizing::new(value)), Zeroizing::new(token)));
        let given = assumed.map_err(|refusal| assume_refused(refusal.error, &assume.role))?;
        given.result.credentials("of the role assumed by web identity")
    }
}

/// A role to take by a token in a file.
struct Assume {
    file: PathBuf,
    role: String,
    session: Option<String>,
}

fn assume_refused(error: Error, role: &str) -> Error {
    let hint = format!(
        "the trust policy of {role} must allow sts:AssumeRoleWithWebIdentity to this token's issuer and subject"
    );
    role_refused(error, &hint)
}

/// What may help where STS did not give the role.
fn role_refused(error: Error, hint: &str) -> Error {
    match error.kind {
        Kind::Rejected | Kind::Misconfigured => error.kind(Kind::Rejected).hint(hint),
        _ => error,
    }
}

type InFile = for<'a> fn(&'a Profile, &str) -> Option<&'a str>;

fn keys(profile: &Profile, of: InFile) -> Result<Option<Credentials>, Error> {
    let Some(id) = of(profile, "aws_access_key_id") else { return Ok(None) };
    let Some(secret) = of(profile, "aws_secret_access_key") else {
        let name = &profile.name;
        let message = format!("the AWS profile {name} has aws_access_key_id but no aws_secret_access_key");
        return Err(Error::setting("profile", message));
    };
    let session = of(profile, "aws_security_token").or_else(|| of(profile, "aws_session_token"));
    Ok(Some(Credentials {
        id: id.to_owned(),
        secret: Secret::new(secret.to_owned()),
        session: session.map(|session| Secret::new(session.to_owned())),
        expires: None,
        source: "from the shared AWS files",
        renewable: false,
    }))
}

/// Runs the program without a shell, as botocore does.
async fn process(line: &str) -> Result<Credentials, Error> {
    let argv = shlex::split(line).filter(|argv| !argv.is_empty());
    let argv = argv
        .ok_or_else(|| Error::setting("profile", "credential_process has unbalanced quotes or is empty"))?;
    let output = program::run(&argv, &BTreeMap::new(), PROCESS_TIMEOUT).await?;
    let program = &argv[0];
    let source = "from credential_process";
    let unusable = |what: String| {
        let reason = Reason::Program { program: program.clone(), fault: ProgramFault::NoToken };
        output.explain(Error::rejected(format!("credential_process {program} {what}")).because(reason))
    };
    let said: Printed = serde_json::from_slice(&output.printed)
        .map_err(|_| unusable("did not print the JSON expected".to_owned()))?;
    if said.version != 1 {
        return Err(unusable(format!("printed version {}, not 1", said.version)));
    }
    Ok(Credentials {
        id: said.access_key_id,
        secret: Secret::new(said.secret_access_key),
        session: said.session_token.map(Secret::new),
        expires: said.expiration.map(|at| timestamp(&at, source)).transpose()?,
        source,
        renewable: true,
    })
}

fn unsupported(profile: &str, what: &str) -> Error {
    let message = format!(
        "the AWS profile {profile} {what}, which is left to the AWS CLI: make another profile with \
         credential_process = aws configure export-credentials --profile {profile} --format process, and name it"
    );
    Error::setting("profile", message)
}

#[derive(Deserialize)]
struct ByWebIdentity {
    #[serde(rename = "AssumeRoleWithWebIdentityResult")]
    result: Assumed,
}

#[derive(Deserialize)]
struct Assumed {
    #[serde(rename = "Credentials")]
    credentials: AssumedCredentials,
}

impl Assumed {
    fn credentials(self, source: &'static str) -> Result<Credentials, Error> {
        let given = self.credentials;
        Ok(Credentials {
            id: given.access_key_id,
            secret: Secret::new(given.secret_access_key),
            session: Some(Secret::new(given.session_token)),
            expires: Some(timestamp(&given.expiration, source)?),
            source,
            renewable: true,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumedCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);
/// Cached credentials must outlast the token by this.
const SLACK: Duration = Duration::from_secs(60);
