//! The one place that chooses the command to type next.

use super::{ProblemKind, State};
use crate::error::Reason;

/// What helps after a problem of this kind with `profile`, if a command does.
pub fn next_command(kind: ProblemKind, profile: Option<&str>) -> Option<String> {
    let for_profile = |command: &str| match profile {
        Some(profile) => format!("{command} --profile {profile}"),
        None => command.to_owned(),
    };
    Some(match kind {
        ProblemKind::BadRequest => "wandb-cred --help".to_owned(),
        ProblemKind::NotFound | ProblemKind::MethodNotAllowed => {
            "restart wandb-credd, so that it has the same version as wandb-cred".to_owned()
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

/// What helps after a sign-in that failed.
pub fn next_after_sign_in(reason: &Reason, profile: &str) -> String {
    match reason {
        // The same command again would fail the same way.
        Reason::PortUnavailable { .. } => format!("wandb-cred login --device --profile {profile}"),
        _ => format!("wandb-cred login --profile {profile}"),
    }
}

/// What helps while `profile` is in `state`, if a command does.
pub fn next_command_in(state: State, provider: &str, profile: &str) -> Option<String> {
    match state {
        State::NeedsLogin if provider == "oidc" => next_command(ProblemKind::NeedsLogin, Some(profile)),
        // Only they know with what people sign in to other providers.
        State::NeedsLogin => Some(format!("sign in, then: wandb-cred refresh --profile {profile}")),
        // Nobody can ask for more where a feed has ended.
        State::Failed if provider == "feed" => None,
        State::Failed => Some(format!("wandb-cred refresh --profile {profile}")),
        State::Starting | State::Fresh | State::Stale => None,
    }
}
