//! A JWT in an environment variable of the daemon.

use super::source::Context;
use crate::error::{Error, Kind};
use crate::token::{Expires as _, IdentityToken, Outlook, Renewal};

/// The token in `variable`, which is the only one there will be: the environment of a process does not change.
pub(crate) fn token_in(cx: &Context, variable: &str) -> Result<IdentityToken, Error> {
    let raw = cx.env.var(variable).ok_or_else(|| {
        let message = format!(
            "the variable {variable} is not set in the daemon's environment; set it before the daemon starts"
        );
        Error::variable(variable, message)
    })?;
    let token =
        cx.parse(&raw, format_args!("the variable {variable}")).map_err(|error| match error.kind {
            // It cannot change any more: trying again cannot help.
            Kind::Transient => error.kind(Kind::Misconfigured),
            _ => error,
        })?;
    Ok(only_one(token, variable))
}

/// The token, with the outlook of one that nothing follows.
pub(crate) fn only_one(token: IdentityToken, variable: &str) -> IdentityToken {
    let outlook = Outlook {
        until: token.expiry().wall(),
        reason: format!("the identity token in {variable} cannot be renewed while the daemon runs").into(),
    };
    token.with_renewal(Renewal { outlook: Some(outlook), ..Renewal::default() })
}
