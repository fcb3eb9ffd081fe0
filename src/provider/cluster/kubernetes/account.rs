//! The service account whose token is asked for, and what the API server says of it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Kind};
use crate::http::Answer;
use crate::provider::answer;
use crate::token::Claims;

/// The service account whose token is asked for, and the one that asks.
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The `boundObjectRef`.
    pub(super) pod: Option<Value>,
    /// Namespace and name.
    asker: (String, String),
}

impl Account {
    /// `own` and `pod` are the pod's own account (namespace, name) and the reference to the pod, as far as its token
    /// says them.
    pub(super) fn new(
        namespace: String,
        name: String,
        own: Option<(String, String)>,
        pod: Option<Value>,
        bind_to_pod: Option<bool>,
    ) -> Result<Self, Error> {
        if ![&namespace, &name].into_iter().all(|name| is_name(name)) {
            let message = format!("{namespace:?} / {name:?} is not the name of a service account");
            return Err(Error::setting("service-account", message));
        }
        let is_own = own.as_ref().is_some_and(|own| own.0 == namespace && own.1 == name);
        let pod = pod.filter(|_| bind_to_pod.unwrap_or(is_own));
        let asker = own.unwrap_or_else(|| (namespace.clone(), name.clone()));
        Ok(Self { namespace, name, pod, asker })
    }

    /// The API server's refusal, with the commands that fix it.
    pub(super) fn refused(&self, service: &str, answer: &Answer) -> Error {
        let status: Option<Status> = answer::json(service, answer).ok();
        let said = status.as_ref().and_then(|status| status.message.as_deref());
        let Self { namespace, name, asker: (from, asker), .. } = self;
        let error = answer::refusal(service, answer, said);
        match answer.status {
            403 => error.kind(Kind::Misconfigured).hint(format_args!(
                "let the account ask for tokens: kubectl create role wandb-cred -n {namespace} \
                 --verb=create --resource=serviceaccounts/token --resource-name={name} && kubectl create \
                 rolebinding wandb-cred -n {namespace} --role=wandb-cred --serviceaccount={from}:{asker}"
            )),
            401 => error.hint("the API server does not accept the pod's own token"),
            404 => error.hint(format_args!(
                "check that the account exists: kubectl get serviceaccount {name} -n {namespace}"
            )),
            _ if error.is_transient() => {
                let asked = status.and_then(|status| status.details?.retry_after_seconds);
                let wait = error.retry_after.or(asked.map(Duration::from_secs));
                error.retry_after(wait)
            }
            _ => error,
        }
    }
}

/// The API server's error object.
#[derive(Deserialize)]
struct Status {
    message: Option<String>,
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(rename = "retryAfterSeconds")]
    retry_after_seconds: Option<u64>,
}

/// Namespace and name out of `system:serviceaccount:NAMESPACE:NAME`.
pub(super) fn own_account(claims: &Claims) -> Option<(String, String)> {
    let (namespace, name) = claims.sub.as_deref()?.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some((namespace.to_owned(), name.to_owned()))
}

/// The reference to the pod that the kubelet bound the pod's own token to.
pub(super) fn own_pod(claims: &Claims) -> Option<Value> {
    let pod = claims.other.get("kubernetes.io")?.get("pod")?;
    let (name, uid) = (pod.get("name")?.as_str()?, pod.get("uid")?.as_str()?);
    Some(json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid }))
}

/// A DNS subdomain name (RFC 1123), as the API server demands; also keeps a name within its segment of the path.
fn is_name(name: &str) -> bool {
    let letters = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    !name.is_empty() && name.len() <= 253 && name.bytes().all(letters) && !name.starts_with('.')
}
