//! `spiffe`: a JWT-SVID from the SPIFFE Workload API, as SPIRE's agent serves it.
//!
//! One unary call on its own connection: nothing is cached, and no task outlives the call.
//!
//! `iss` is the trust domain's issuer if an OIDC discovery provider is deployed (SPIRE: `jwt_issuer`, without
//! which W&B cannot check the token), `sub` is `spiffe://TRUST-DOMAIN/PATH`, `aud` is what is asked for.
//!
//! ```toml
//! [profile.mesh]
//! audience = "acme"
//! [profile.mesh.provider.spiffe]
//! socket = "unix:///run/spire/agent-sockets/api.sock"   # else SPIFFE_ENDPOINT_SOCKET
//! spiffe-id = "spiffe://example.org/trainer"            # if the workload has several
//! ```

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use spiffe::transport::{Endpoint, GrpcStatusCode, TransportError};
use spiffe::{SpiffeId, WorkloadApiClient, WorkloadApiError};
use zeroize::Zeroizing;

use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, FileFault, NetworkFault, Reason};
use crate::provider::detect::Detect;
use crate::provider::source::{AUDIENCE_IGNORED, Context, Provider};
use crate::redact::redact;
use crate::token::IdentityToken;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The Workload API, `unix:///PATH` or `tcp://127.0.0.1:PORT`; by default what `SPIFFE_ENDPOINT_SOCKET` says.
    #[serde(default)]
    pub socket: Option<String>,
    /// The identity to ask for, if the workload has several.
    #[serde(default)]
    pub spiffe_id: Option<String>,
    /// The hint of the identity to take, if the workload has several.
    #[serde(default)]
    pub hint: Option<String>,
    /// For one request; 10 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Spiffe, Error> {
        let socket = self.socket.or_else(|| cx.env.var(SOCKET)).ok_or_else(|| {
            let message = format!("provider spiffe: set `socket`, or {SOCKET}, to the agent's socket");
            Error::setting("socket", message)
        })?;
        let endpoint = Endpoint::parse(&socket).map_err(|why| {
            let message = format!("{socket:?} is not a SPIFFE endpoint ({why}); write it as unix:///PATH");
            Error::setting("socket", message)
        })?;
        if let Endpoint::Tcp { host, .. } = &endpoint
            && !host.is_loopback()
        {
            let message = format!(
                "the SPIFFE endpoint {socket:?} is on the network, where the token would travel unencrypted; use \
                 the agent's Unix socket"
            );
            return Err(Error::setting("socket", message));
        }
        let spiffe_id = self.spiffe_id.as_deref().map(SpiffeId::new).transpose().map_err(|why| {
            let id = self.spiffe_id.as_deref().unwrap_or_default();
            Error::setting("spiffe-id", format!("spiffe-id {id:?}: {why}"))
        })?;
        cx.require_audience("spiffe")?;
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        Ok(Spiffe { socket, endpoint, spiffe_id, hint: self.hint, timeout, cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        match env.var(SOCKET).map(|socket| Endpoint::parse(&socket)) {
            Some(Ok(Endpoint::Unix(path))) if path.exists() => {}
            Some(Ok(Endpoint::Tcp { .. })) => {}
            _ => return Err(format!("{SOCKET} names no socket")),
        }
        Ok(format!("{SOCKET} is set: a SPIFFE Workload API"))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct Spiffe {
    socket: String,
    endpoint: Endpoint,
    spiffe_id: Option<SpiffeId>,
    hint: Option<String>,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for Spiffe {
    fn name(&self) -> &'static str {
        "spiffe"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let jwt = tokio::time::timeout(self.timeout, self.ask()).await.map_err(|_| {
            let (socket, timeout) = (&self.socket, self.timeout);
            let reason = Reason::TimedOut { host: AGENT.to_owned(), seconds: timeout.as_secs() };
            Error::transient(format!("{AGENT} at {socket} did not answer within {timeout:?}")).because(reason)
        })??;
        self.cx.identity(&jwt, AGENT, AUDIENCE_IGNORED)
    }
}

impl Spiffe {
    async fn ask(&self) -> Result<Zeroizing<String>, Error> {
        let audience = [self.cx.require_audience("spiffe")?];
        let id = self.spiffe_id.as_ref();
        let connected = WorkloadApiClient::connect(self.endpoint.clone()).await;
        let client = connected.map_err(|error| self.error(&error))?;
        // The client, and with it the connection's task, ends with this function.
        match &self.hint {
            None => client.fetch_jwt_token(audience, id).await.map(Zeroizing::new),
            Some(hint) => client
                .fetch_jwt_svid_by_hint(audience, id, hint)
                .await
                .map(|svid| Zeroizing::new(svid.token().to_owned())),
        }
        .map_err(|error| self.error(&error))
    }

    fn error(&self, error: &WorkloadApiError) -> Error {
        let message = format!("{AGENT} at {}: {}", self.socket, redact(&error.to_string(), MAX_SHOWN));
        match error {
            WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
                // Not final: a registration entry reaches the agent some seconds after it was made.
                Error::transient(format!(
                    "{message}; it knows no registration entry for this process: spire-server entry create \
                     -spiffeID ... -parentID ... -selector unix:uid:{}",
                    rustix::process::geteuid().as_raw()
                ))
            }
            WorkloadApiError::HintNotFound(_) => Error::setting("hint", message),
            WorkloadApiError::Transport(TransportError::Status(status)) => match status.code() {
                GrpcStatusCode::InvalidArgument | GrpcStatusCode::Unimplemented => {
                    Error::misconfigured(message)
                }
                GrpcStatusCode::Unauthenticated => Error::rejected(message),
                _ => Error::transient(message),
            },
            WorkloadApiError::Transport(_) => match &self.endpoint {
                Endpoint::Unix(path) if !Path::new(path).exists() => {
                    Error::transient(format!("{message}; {} does not exist (yet)", path.display()))
                        .because(Reason::File { path: path.to_path_buf(), fault: FileFault::Missing })
                }
                _ => Error::transient(message)
                    .because(Reason::Unreachable { host: AGENT.to_owned(), fault: NetworkFault::Other }),
            },
            WorkloadApiError::JwtSvid(_) | WorkloadApiError::SpiffeId(_) => Error::rejected(message)
                .because(Reason::UnreadableAnswer { host: AGENT.to_owned(), field: None }),
            _ => Error::transient(message),
        }
    }
}

const AGENT: &str = "the SPIFFE agent";
const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest foreign text in a message, in characters.
const MAX_SHOWN: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::provider::source::test::context;

    fn build(config: Config, socket: &str) -> Result<Spiffe, Error> {
        config.build(context(&[(SOCKET, socket)]))
    }

    #[test]
    fn the_token_never_crosses_a_network_in_the_clear() {
        assert!(build(Config::default(), "tcp://127.0.0.1:8081").is_ok());
        assert!(build(Config::default(), "unix:///run/spire/api.sock").is_ok());
        for bad in ["tcp://10.0.0.1:8081", "tcp://host:1", "/run/api.sock", "unix://", ""] {
            assert!(
                matches!(build(Config::default(), bad), Err(Error { kind: Kind::Misconfigured, .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_malformed_id_is_named() {
        let config = Config { spiffe_id: Some("https://x".into()), ..Config::default() };
        let error = build(config, "unix:///s").err().expect("not a SPIFFE ID").to_string();
        assert!(error.contains("https://x"), "{error}");
    }

    #[tokio::test]
    async fn an_agent_not_up_yet_is_transient() {
        let dir = tempfile::tempdir().expect("temp dir");
        let socket = format!("unix://{}/none.sock", dir.path().display());
        let error = build(Config::default(), &socket).expect("built").fetch().await.expect_err("no agent");
        assert!(error.kind == Kind::Transient && error.message.contains("does not exist"), "{error}");
        assert!(Config::in_environment(&context(&[(SOCKET, &socket)]).env).is_err());
    }

    #[test]
    fn each_refusal_has_its_kind() {
        let provider = build(Config::default(), "unix:///s").expect("built");
        let denied = WorkloadApiError::PermissionDenied("nope".into());
        assert!((provider.error(&denied)).kind == Kind::Transient);
        let hint = WorkloadApiError::HintNotFound("h".into());
        assert!((provider.error(&hint)).kind == Kind::Misconfigured);
        assert!((provider.error(&WorkloadApiError::EmptyResponse)).kind == Kind::Transient);
    }
}
