//! Why no answer came, as an error. Names the host, never the path or query, which can hold secrets.

use std::time::Duration;

use super::CONNECT_TIMEOUT;
use super::addresses::LookupError;
use crate::error::foreign::proxy_fault;
use crate::error::{Error, NetworkFault, Reason};

pub(super) fn unusable(why: impl std::fmt::Display) -> Error {
    Error::misconfigured(format!("the request cannot be made: {why}"))
}

pub(super) fn timed_out(host: &str, after: Duration) -> Error {
    let reason = Reason::TimedOut { host: host.to_owned(), seconds: after.as_secs() };
    Error::transient(format!("{host} did not answer within {after:?}")).because(reason)
}

pub(super) fn failed(host: &str, error: &reqwest::Error) -> Error {
    if error.is_timeout() {
        return timed_out(host, CONNECT_TIMEOUT);
    }
    let (host, why) = (host.to_owned(), plain(error));
    if error.is_connect() {
        let fault = network_fault(error);
        let message = format!("cannot connect to {host}: {why}");
        unreachable(message, host, fault)
    } else {
        Error::transient(format!("{host} broke off its answer: {why}"))
            .because(Reason::ConnectionLost { host })
    }
}

/// A wrong password at a proxy gets no better by waiting, and companies lock accounts for trying.
pub(super) fn unreachable(message: String, host: String, fault: NetworkFault) -> Error {
    let error = match fault {
        NetworkFault::ProxyPassword => Error::misconfigured(message),
        _ => Error::transient(message),
    };
    error.because(Reason::Unreachable { host, fault })
}

/// Says which proxy the request went through: it may be what failed.
pub(super) fn through(error: Error, proxy: Option<&str>) -> Error {
    match (proxy, &error.reason) {
        (
            Some(proxy),
            Reason::Unreachable { .. } | Reason::TimedOut { .. } | Reason::ConnectionLost { .. },
        ) => error.context(format_args!("through the proxy {proxy}")),
        _ => error,
    }
}

/// What the causes of a failed connection are, by their types.
pub(super) fn network_fault(error: &(dyn std::error::Error + 'static)) -> NetworkFault {
    use rustls::CertificateError as Certificate;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(lookup) = error.downcast_ref::<LookupError>() {
            return match lookup {
                LookupError::Unknown(_) => NetworkFault::UnknownName,
                LookupError::Forbidden(_) | LookupError::NotLoopback(_) | LookupError::NotWithin(_) => {
                    NetworkFault::ForbiddenAddress
                }
            };
        }
        if let Some(fault) = proxy_fault(&error.to_string()) {
            return fault;
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
        // What an io::Error wraps is not among its sources, and rustls' error comes wrapped twice.
        let wrapped =
            io.and_then(std::io::Error::get_ref).map(|inner| inner as &(dyn std::error::Error + 'static));
        cause = wrapped.or_else(|| error.source());
    }
    NetworkFault::Other
}

/// The innermost cause, without the URL that reqwest puts in front.
pub(super) fn plain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::eq(cause as *const _ as *const (), error as *const _ as *const ()) {
        return "unexpected end or malformed HTTP".to_owned();
    }
    cause.to_string()
}
