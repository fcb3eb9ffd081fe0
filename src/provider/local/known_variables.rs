//! Variables in which platforms hand a JWT to a job, with what its `aud` and `sub` are. `auto` looks for them; the `env`
//! provider reads them; the doctor knows which subjects W&B cannot match.

/// One platform's variable.
pub struct KnownVariable {
    pub name: &'static str,
    pub platform: &'static str,
    /// What `aud` is, and how it is chosen where it can be.
    pub audience: &'static str,
    pub subject: &'static str,
    pub issuer: Issuer,
    /// What the subject changes with from run to run, where W&B cannot match it: it compares the whole of it.
    pub changes_with: Option<&'static str>,
}

/// How an `iss` of the platform is recognised.
#[derive(Clone, Copy)]
pub enum Issuer {
    Begins(&'static str),
    /// An address of the organization's own: the subject says whose it is.
    Own {
        host: &'static str,
    },
}

impl Issuer {
    fn is(self, issuer: &str) -> bool {
        match self {
            Self::Begins(start) => issuer
                .strip_prefix(start)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || start.ends_with('/')),
            Self::Own { host } => issuer
                .strip_prefix("https://")
                .and_then(|rest| rest.split('/').next())
                .is_some_and(|name| name.ends_with(host)),
        }
    }
}

/// The platform's entry, for a variable.
pub fn named(variable: &str) -> Option<&'static KnownVariable> {
    KNOWN.iter().find(|known| known.name == variable)
}

/// What the subject of a token of this issuer changes with, and the platform.
pub fn unmatched(issuer: &str) -> Option<(&'static str, &'static str)> {
    // Fly.io's token is in no variable (provider `fly`).
    if Issuer::Begins("https://oidc.fly.io/").is(issuer) {
        return Some(("the machine", "Fly.io"));
    }
    KNOWN
        .iter()
        .filter(|known| known.issuer.is(issuer))
        .find_map(|known| Some((known.changes_with?, known.platform)))
}

/// From the platforms' documentation. A platform that has a provider of its own (GitLab, CircleCI, ...) is not here.
pub static KNOWN: &[KnownVariable] = &[
    KnownVariable {
        name: "BITBUCKET_STEP_OIDC_TOKEN",
        platform: "Bitbucket Pipelines",
        audience: "the workspace's, or what the step's `oidc: {audiences: [acme]}` says",
        subject: "{REPOSITORY}:{STEP}",
        issuer: Issuer::Begins("https://api.bitbucket.org/2.0/workspaces/"),
        changes_with: Some("each step of each run"),
    },
    KnownVariable {
        name: "TFC_WORKLOAD_IDENTITY_TOKEN",
        platform: "HCP Terraform",
        audience: "what TFC_WORKLOAD_IDENTITY_AUDIENCE of the workspace says",
        subject: "organization:ORG:project:PROJECT:workspace:NAME:run_phase:PHASE",
        issuer: Issuer::Begins("https://app.terraform.io"),
        changes_with: None,
    },
    KnownVariable {
        name: "SPACELIFT_OIDC_TOKEN",
        platform: "Spacelift",
        audience: "the account's host name; the W&B server must accept it (FEDERATED_AUTH_AUDIENCES)",
        subject: "space:SPACE:stack:STACK:run_type:TYPE:scope:SCOPE",
        issuer: Issuer::Own { host: ".spacelift.io" },
        changes_with: None,
    },
    KnownVariable {
        name: "SEMAPHORE_OIDC_TOKEN",
        platform: "Semaphore",
        audience: "the organization's address; the W&B server must accept it (FEDERATED_AUTH_AUDIENCES)",
        subject: "org:ORG:project:ID:repo:NAME:ref_type:branch:ref:refs/heads/BRANCH",
        issuer: Issuer::Own { host: ".semaphoreci.com" },
        changes_with: None,
    },
    KnownVariable {
        name: "VERCEL_OIDC_TOKEN",
        platform: "Vercel",
        audience: "https://vercel.com/TEAM; the W&B server must accept it (FEDERATED_AUTH_AUDIENCES)",
        subject: "owner:TEAM:project:NAME:environment:ENVIRONMENT",
        issuer: Issuer::Begins("https://oidc.vercel.com"),
        changes_with: None,
    },
    KnownVariable {
        name: "MODAL_IDENTITY_TOKEN",
        platform: "Modal",
        audience: "always oidc.modal.com; the W&B server must accept it (FEDERATED_AUTH_AUDIENCES)",
        subject: "modal:workspace_id:ID:environment_name:NAME:app_name:NAME:function_name:NAME:container_id:ID",
        issuer: Issuer::Begins("https://oidc.modal.com"),
        changes_with: Some("each container"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_that_change_are_known_by_their_issuer() {
        for (issuer, platform) in [
            ("https://oidc.modal.com", Some("Modal")),
            ("https://oidc.modal.com.evil.example", None),
            (
                "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
                Some("Bitbucket Pipelines"),
            ),
            ("https://oidc.fly.io/acme", Some("Fly.io")),
            ("https://oidc.vercel.com/acme", None),
            ("https://acme.app.spacelift.io", None),
            ("https://accounts.google.com", None),
        ] {
            assert_eq!(unmatched(issuer).map(|(_, platform)| platform), platform, "{issuer}");
        }
    }

    #[test]
    fn every_variable_is_one_of_the_documentation() {
        let page = include_str!("../../../docs/platforms.md");
        for known in KNOWN {
            assert!(
                page.contains(&format!("`{}`", known.name)),
                "{} is not in docs/platforms.md",
                known.name
            );
        }
    }
}
