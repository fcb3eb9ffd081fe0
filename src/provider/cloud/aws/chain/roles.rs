//! Roles that an AWS profile assumes with other credentials (`role_arn` with `source_profile` or `credential_source`), in a row
//! where the source assumes a role itself. In botocore's order.

use serde::Deserialize;

use super::{
    Assumed, Chain, Credentials, Profile, Sts, VERSION, container_url, keys, metadata, role_refused,
    unsupported,
};
use crate::error::Error;

/// One `AssumeRole`, as its profile says.
struct Role {
    form: Vec<(String, String)>,
    arn: String,
}

/// Whether the profile assumes a role with other credentials.
pub(super) fn assumes(profile: &Profile) -> bool {
    let set = |key| profile.setting(key).is_some();
    set("role_arn") && (set("source_profile") || set("credential_source"))
}

impl Chain {
    /// The credentials of the profile's role.
    pub(super) async fn of_role(&self, region: &str, profile: Profile) -> Result<Credentials, Error> {
        // The last one is assumed first.
        let mut roles = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        let mut current = profile;
        let mut credentials = loop {
            roles.push(self.role(&current)?);
            seen.push(current.name.clone());
            let name = &current.name;
            let source = match (current.setting("source_profile"), current.setting("credential_source")) {
                (Some(source), None) => source,
                (None, Some(source)) => break self.named_source(name, source).await?,
                _ => {
                    let message =
                        format!("the AWS profile {name} has both source_profile and credential_source");
                    return Err(Error::setting("profile", message));
                }
            };
            let next = Profile::read(&self.cx.env, Some(source)).await.map_err(|error| {
                error.context(format_args!("the source_profile of the AWS profile {name}"))
            })?;
            // Keys win over a role: a profile may be its own source.
            let has_keys = keys(&next, Profile::setting)?.is_some();
            if has_keys || !assumes(&next) {
                let own = self.of_profile(region, &next, false).await?;
                break own.ok_or_else(|| {
                    let message = format!("the AWS profile {source}, a source_profile, has no credentials");
                    Error::setting("profile", message)
                })?;
            }
            if seen.contains(&next.name) {
                let message = format!("the AWS profile {name} leads back to itself by source_profile");
                return Err(Error::setting("profile", message));
            }
            current = next;
        };
        while let Some(role) = roles.pop() {
            credentials = self.assume_role(region, &role, &credentials).await?;
        }
        Ok(credentials)
    }

    fn role(&self, profile: &Profile) -> Result<Role, Error> {
        let name = &profile.name;
        if profile.setting("mfa_serial").is_some() {
            return Err(unsupported(name, "asks for an MFA code (mfa_serial)"));
        }
        let arn = profile.setting("role_arn").unwrap_or_default().to_owned();
        let session = profile
            .setting("role_session_name")
            .map_or_else(|| format!("wandb-cred-{}", self.cx.clock.now().wall.as_second()), str::to_owned);
        let mut form = vec![
            ("Action".to_owned(), "AssumeRole".to_owned()),
            ("Version".to_owned(), VERSION.to_owned()),
            ("RoleArn".to_owned(), arn.clone()),
            ("RoleSessionName".to_owned(), session),
        ];
        for (key, parameter) in [("duration_seconds", "DurationSeconds"), ("external_id", "ExternalId")] {
            if let Some(value) = profile.setting(key) {
                form.push((parameter.to_owned(), value.to_owned()));
            }
        }
        Ok(Role { form, arn })
    }

    /// `credential_source`.
    async fn named_source(&self, profile: &str, source: &str) -> Result<Credentials, Error> {
        match source.to_ascii_lowercase().as_str() {
            "environment" => self.in_environment(),
            "ec2instancemetadata" => self.imds.credentials().await,
            "ecscontainer" => match container_url(&self.cx.env)? {
                Some(url) => metadata::container(&self.cx, url, self.imds.timeout).await,
                None => Err(Error::variable(
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                    format!(
                        "the AWS profile {profile} takes its credentials from a container endpoint, and there is none here"
                    ),
                )),
            },
            _ => Err(Error::setting(
                "profile",
                format!(
                    "the AWS profile {profile} has a credential_source that is none of Environment, Ec2InstanceMetadata and \
                     EcsContainer"
                ),
            )),
        }
    }

    async fn assume_role(
        &self,
        region: &str,
        role: &Role,
        source: &Credentials,
    ) -> Result<Credentials, Error> {
        let sts = Sts::new(&self.cx, self.endpoint.as_deref(), region, self.timeout)?;
        let answer = sts.call::<Answer>(&role.form, Some(source)).await.map_err(|refusal| {
            let from = source.source;
            let hint = format!(
                "the trust policy of {} must allow sts:AssumeRole to the credentials {from}",
                role.arn
            );
            role_refused(refusal.error, &hint)
        })?;
        answer.result.credentials("of the assumed role")
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "AssumeRoleResult")]
    result: Assumed,
}
