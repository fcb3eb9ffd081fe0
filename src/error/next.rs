//! The one place that chooses the command to type next.

use crate::api::ProblemKind;

/// What helps after a problem of this kind with `profile`, if a command does.
pub fn next_command(kind: ProblemKind, profile: Option<&str>) -> Option<String> {
    let for_profile = |command: &str| match profile {
        Some(profile) => format!("{command} --profile {profile}"),
        None => command.to_owned(),
    };
    Some(match kind {
        ProblemKind::BadRequest => "wandb-cred --help".to_owned(),
        ProblemKind::NotFound | ProblemKind::MethodNotAllowed => {
            "restart wandb-credd, so that it has the version of wandb-cred".to_owned()
        }
        ProblemKind::NeedsLogin => for_profile("wandb-cred login"),
        ProblemKind::Locked => "wandb-cred unlock".to_owned(),
        ProblemKind::LifetimeTooShort => for_profile("wandb-cred refresh"),
        ProblemKind::Misconfigured => "wandb-cred check".to_owned(),
        ProblemKind::ExchangeRejected | ProblemKind::IdentityRejected => for_profile("wandb-cred doctor"),
        ProblemKind::NoSuchProfile
        | ProblemKind::UpstreamUnavailable
        | ProblemKind::SdkFilesUnwritable
        | ProblemKind::TooManyRequests
        | ProblemKind::ShuttingDown => "wandb-cred status".to_owned(),
        ProblemKind::Forbidden => return None,
    })
}
