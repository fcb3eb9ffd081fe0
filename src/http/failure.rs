//! Why no answer came, as an error. Names the host, never the path or query, which can hold secrets.

use std::time::Duration;

use super::CONNECT_TIMEOUT;
use super::addresses::LookupError;
use crate::error::foreign::{ProxyRefusal, is_lookup_without_answer, proxy_refusal};
use crate::error::{Error, NetworkFault, Reason};

pub(super) fn unusable(why: impl std::fmt::Display) -> Error {
    Error::misconfigured(format!("the request cannot be made: {why}"))
}

pub(super) fn timed_out(host: &str, after: Duration) -> Error {
    let reason = Reason::TimedOut { host: host.to_owned(), seconds: after.as_secs() };
    Error::transient(format!("{host} did not answer within {after:?}")).because(reason)
}

pub(super) fn failed(host: &str, error: &reqwest::Error, proxy: Option<&Hop>) -> Error {
    if error.is_timeout() {
        return through(timed_out(host, CONNECT_TIMEOUT), proxy);
    }
    let (host, why) = (host.to_owned(), plain(error));
    if error.is_connect() {
        return not_connected(&host, network_fault(error), &why, proxy);
    }
    let error = Error::transient(format!("{host} broke off its answer: {why}"))
        .because(Reason::ConnectionLost { host });
    through(error, proxy)
}

/// A proxy on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// `HOST:PORT`, without user and password.
    pub(super) at: String,
    /// It is asked for an address, so the name of the host is looked up here (`socks5`, not `socks5h`).
    pub(super) looks_up: bool,
}

/// Says what made no connection: the host, or the proxy on the way to it.
pub(super) fn not_connected(host: &str, fault: NetworkFault, why: &str, proxy: Option<&Hop>) -> Error {
    let unreachable = |message: String, host: &str, fault| {
        let error = match fault {
            // It gets no better by waiting, and companies lock accounts for trying.
            NetworkFault::ProxyPassword => Error::misconfigured(message),
            _ => Error::transient(message),
        };
        error.because(Reason::Unreachable { host: host.to_owned(), fault })
    };
    let Some(Hop { at, looks_up }) = proxy else {
        return unreachable(format!("cannot connect to {host}: {why}"), host, fault);
    };
    let refusal = proxy_refusal(why);
    // Whatever is refused or not found here is the proxy: only that is connected to.
    let not_there = fault == NetworkFault::Refused
        || fault == NetworkFault::UnknownName && !looks_up
        || refusal == Some(ProxyRefusal::NotThere);
    if not_there {
        return unreachable(
            format!("cannot connect to the proxy {at} on the way to {host}: {why}"),
            at,
            fault,
        );
    }
    let said = match refusal {
        Some(ProxyRefusal::WantsPassword) => {
            let message = format!(
                "through the proxy {at}: it asks for a user name and a password (407): set HTTPS_PROXY=http://USER:PASSWORD@{at} \
                 for the daemon"
            );
            return unreachable(message, host, NetworkFault::ProxyPassword);
        }
        Some(ProxyRefusal::Refuses) => "the proxy refuses the connection",
        Some(ProxyRefusal::HangsUp) => "the proxy closed the connection",
        Some(ProxyRefusal::NotThere) | None => why,
    };
    unreachable(format!("through the proxy {at}: cannot connect to {host}: {said}"), host, fault)
}

/// Says which proxy the request went through: it may be what failed.
pub(super) fn through(error: Error, proxy: Option<&Hop>) -> Error {
    match proxy {
        Some(proxy) => error.context(format_args!("through the proxy {}", proxy.at)),
        None => error,
    }
}

/// What the causes of a failed connection are, by their types.
pub(super) fn network_fault(error: &(dyn std::error::Error + 'static)) -> NetworkFault {
    use rustls::CertificateError as Certificate;
    for error in causes(error) {
        if let Some(lookup) = error.downcast_ref::<LookupError>() {
            return match lookup {
                LookupError::Unknown(error) if is_lookup_without_answer(&error.to_string()) => {
                    NetworkFault::Other
                }
                LookupError::Unknown(_) => NetworkFault::UnknownName,
                LookupError::Forbidden(_) | LookupError::NotLoopback(_) | LookupError::NotWithin(_) => {
                    NetworkFault::ForbiddenAddress
                }
            };
        }
        match proxy_refusal(&error.to_string()) {
            Some(ProxyRefusal::WantsPassword) => return NetworkFault::ProxyPassword,
            Some(ProxyRefusal::Refuses) => return NetworkFault::ProxyRefuses,
            Some(ProxyRefusal::HangsUp | ProxyRefusal::NotThere) | None => {}
        }
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return NetworkFault::Refused;
        }
        if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
            return match why {
                Certificate::Expired | Certificate::ExpiredContext { .. } => NetworkFault::CertificateExpired,
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                    NetworkFault::CertificateName
                }
                _ => NetworkFault::CertificateUntrusted,
            };
        }
    }
    NetworkFault::Other
}

/// The error, and what led to it.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // What an io::Error wraps is not among its sources, and rustls' error comes wrapped twice.
        let io = error.downcast_ref::<std::io::Error>();
        let wrapped =
            io.and_then(std::io::Error::get_ref).map(|inner| inner as &(dyn std::error::Error + 'static));
        wrapped.or_else(|| error.source())
    })
}

/// The innermost cause, without the URL that reqwest puts in front.
pub(super) fn plain(error: &reqwest::Error) -> String {
    // What answers to TLS with something else: a server of plain http, most of the time.
    if causes(error).any(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))) {
        return "what answers there does not speak TLS; is it plain http?".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::eq(cause as *const _ as *const (), error as *const _ as *const ()) {
        return "unexpected end or malformed HTTP".to_owned();
    }
    cause.to_string()
}
