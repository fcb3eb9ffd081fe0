//! Whether a person could sign in: the provider's own description and the store for the session, as `login` itself looks at
//! them. A sign-in that still works can hide that the next one will not.

use super::Source;
use super::report::{Report, Step};
use crate::error::{Error, Exit, Kind, Reason};

pub(super) async fn check(source: &Source, report: &mut Report) {
    let Some(session) = source.session() else { return };
    let metadata = match session.party.check().await {
        Ok(metadata) => metadata,
        Err(error) => {
            let found = format!("nobody can sign in: {error}");
            return report.fail(Step::SignIn, Exit::from(&error), found, remedy(&error));
        }
    };
    if let Err(error) = session.check_store().await {
        let remedy =
            "make room for the session, or choose another place: `token-store` in the provider's table";
        report.fail(Step::SignIn, Exit::from(&error), format!("no sign-in can be saved: {error}"), remedy);
    } else {
        let device = if metadata.has_device_flow() {
            ""
        } else {
            ", with a browser only: it offers no device sign-in"
        };
        let issuer = session.party.settings.issuer.as_str();
        report.ok(Step::SignIn, format!("people can sign in at {issuer}{device}"));
    }
}

fn remedy(error: &Error) -> &'static str {
    match (&error.reason, error.kind) {
        (Reason::UnreadableAnswer { .. }, _) => {
            "have the provider's administrator fix the document that it publishes"
        }
        (_, Kind::Transient) => "is there a network? Then try again: wandb-cred doctor",
        _ => {
            "set `issuer` in the provider's table to what the provider calls itself, to the slash; then: wandb-cred check"
        }
    }
}
