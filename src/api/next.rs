//! The one place that chooses the command to type next.

use super::{LoginMethod, ProblemKind, State};
use crate::error::{Error, Reason, Stage};

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
        ProblemKind::LifetimeTooShort => for_profile("wandb-cred status"),
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

/// What helps after what happened to `profile`.
pub fn next_command_after(error: &Error, profile: &str) -> Option<String> {
    use Reason::{
        AudienceMismatch, File, MalformedToken, NoCertificates, NoSource, NotYetValid, PlainHttp, Program,
        TokenExpired, Unreachable, Variable,
    };
    let kind = ProblemKind::from(error);
    match (kind, &error.reason) {
        // It was renewed just now: there is no more to be had. What is typed takes its time too.
        (_, Reason::LifetimeTooShort { left, .. }) => {
            Some(format!("ask for less: wandb-cred token --min-ttl {}s --profile {profile}", left * 9 / 10))
        }
        // Only they know with what people sign in to other sources.
        (ProblemKind::NeedsLogin, _) if error.stage == Stage::Identity => Some(after_signing_in(profile)),
        // The configuration is valid: what it names is missing, or not what it should be.
        (
            ProblemKind::Misconfigured | ProblemKind::UpstreamUnavailable,
            AudienceMismatch { .. }
            | File { .. }
            | MalformedToken { .. }
            | NoCertificates { .. }
            | NoSource
            | NotYetValid { .. }
            | PlainHttp { .. }
            | Program { .. }
            | TokenExpired { .. }
            | Unreachable { .. }
            | Variable { .. },
        ) => Some(format!("wandb-cred doctor --profile {profile}")),
        (_, Reason::SessionOfNewerVersion { .. }) => {
            Some(format!("update wandb-cred, or start over: wandb-cred logout --profile {profile}"))
        }
        _ => next_command(kind, Some(profile)),
    }
}

fn after_signing_in(profile: &str) -> String {
    format!("sign in, then: wandb-cred refresh --profile {profile}")
}

/// What helps after a sign-in that failed.
pub fn next_after_sign_in(reason: &Reason, method: LoginMethod, profile: &str) -> String {
    let login = match method {
        LoginMethod::Browser => "wandb-cred login",
        LoginMethod::Device => "wandb-cred login --device",
    };
    match reason {
        // The same command again would fail the same way.
        Reason::PortUnavailable { .. } => format!("wandb-cred login --device --profile {profile}"),
        // It takes the address at which the browser ends, wherever that is.
        Reason::NoDeviceFlow => format!("wandb-cred login --no-browser --profile {profile}"),
        Reason::Unreachable { .. } | Reason::TimedOut { .. } | Reason::ConnectionLost { .. } => {
            format!("check the network and `issuer`, then: {login} --profile {profile}")
        }
        Reason::StoreLocked | Reason::StoreUnavailable => {
            format!("unlock the keyring, or set `token-store`, then: {login} --profile {profile}")
        }
        _ => format!("{login} --profile {profile}"),
    }
}

/// What helps while `profile` is in `state`, if a command does.
pub fn next_command_in(state: State, provider: &str, profile: &str) -> Option<String> {
    match state {
        State::NeedsLogin if provider == "oidc" => next_command(ProblemKind::NeedsLogin, Some(profile)),
        State::NeedsLogin => Some(after_signing_in(profile)),
        // Nobody can ask for more where a feed has ended.
        State::Failed if provider == "feed" => None,
        State::Failed => Some(format!("wandb-cred refresh --profile {profile}")),
        State::Starting | State::Fresh | State::Stale => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_next_command_finds_out_more_than_the_one_that_failed() {
        let next = |stage, kind, reason| next_command_after(&Error::new(stage, kind, reason, "x"), "work");
        let program =
            || Reason::Program { program: "gcloud".into(), fault: crate::error::ProgramFault::NotFound };
        let no_certificates = Reason::NoCertificates { variable: None, path: None };
        for (stage, kind, reason, expected) in [
            (Stage::Identity, Kind::Misconfigured, program(), "wandb-cred doctor --profile work"),
            (Stage::Exchange, Kind::Misconfigured, no_certificates, "wandb-cred doctor --profile work"),
            (Stage::Identity, Kind::Transient, program(), "wandb-cred doctor --profile work"),
            (Stage::Configuration, Kind::Misconfigured, Reason::Other, "wandb-cred check"),
            (Stage::SignIn, Kind::NeedsLogin, Reason::SignedOut, "wandb-cred login --profile work"),
            // `wandb login sso` and the like.
            (
                Stage::Identity,
                Kind::NeedsLogin,
                Reason::Other,
                "sign in, then: wandb-cred refresh --profile work",
            ),
        ] {
            assert_eq!(next(stage, kind, reason.clone()).as_deref(), Some(expected), "{reason:?}");
        }
    }
}
