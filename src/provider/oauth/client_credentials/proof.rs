//! How a client proves itself at the token endpoint: with a secret, or with a JWT signed by its private key.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::error::{Error, FileFault};
use crate::provider::files::{read_private, unusable};
use crate::provider::source::Context;
use crate::read_file::off_thread;

/// What the client has. It is read for each call, so that a rotated secret is seen.
pub(super) enum Proof {
    SecretFile(PathBuf),
    SecretEnv(String),
    Key(PathBuf),
}

/// How a client sends its secret.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// In the `Authorization` header (`client_secret_basic`).
    Basic,
    /// In the form (`client_secret_post`).
    Post,
}

impl Auth {
    /// Basic is what every server must take (RFC 6749, section 2.3.1), and what an empty list means.
    pub(super) fn offered(methods: &[String]) -> Self {
        let offers = |method: &str| methods.iter().any(|one| one == method);
        if !offers("client_secret_basic") && offers("client_secret_post") { Self::Post } else { Self::Basic }
    }
}

/// The client, and the endpoint to which it proves itself.
pub(super) struct Client<'a> {
    pub(super) id: &'a str,
    pub(super) auth: Auth,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<&'a str>,
    pub(super) endpoint: &'a Url,
}

impl Client<'_> {
    /// Adds the client's proof to the form, or returns it as a header.
    pub(super) async fn prove(
        &self,
        proof: &Proof,
        cx: &Context,
        form: &mut Vec<(&str, Zeroizing<String>)>,
    ) -> Result<Option<Zeroizing<String>>, Error> {
        let secret = match proof {
            Proof::Key(path) => {
                let pem = private(path).await?;
                let now = cx.clock.now().wall.as_second();
                form.push(("client_assertion_type", Zeroizing::new(ASSERTION_TYPE.to_owned())));
                form.push(("client_assertion", self.assertion(&pem, path, now)?));
                return Ok(None);
            }
            Proof::SecretFile(path) => private(path).await?,
            Proof::SecretEnv(name) => Zeroizing::new(cx.env.var(name).ok_or_else(|| {
                Error::variable(name, format!("the variable {name} (client-secret-env) is not set"))
            })?),
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        match self.auth {
            Auth::Post => {
                form.push(("client_secret", Zeroizing::new(secret.to_owned())));
                Ok(None)
            }
            Auth::Basic => {
                // RFC 6749, section 2.3.1: both halves are form-encoded first.
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = Zeroizing::new(format!("{}:{}", encoded(self.id), encoded(secret)));
                Ok(Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))))
            }
        }
    }

    /// The client's own JWT (RFC 7523, section 3), good for one minute and one use.
    fn assertion(&self, pem: &str, path: &Path, now: i64) -> Result<Zeroizing<String>, Error> {
        let algorithm = self.algorithm;
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        let unusable_key = |_| {
            let shown = path.display();
            let message = format!(
                "{shown} does not hold a private key for {algorithm:?}; set `algorithm` to the key's"
            );
            unusable(path, FileFault::Malformed, message)
        };
        let key = key.map_err(unusable_key)?;
        // Unique, not secret: it only keeps the provider from taking two assertions for one.
        let id = fastrand::u128(..).to_ne_bytes();
        let claims = serde_json::json!({
            "iss": self.id, "sub": self.id, "aud": self.endpoint.as_str(),
            "iat": now, "exp": now + ASSERTION_LIFE, "jti": URL_SAFE_NO_PAD.encode(id),
        });
        let header = Header { kid: self.key_id.map(str::to_owned), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &claims, &key).map(Zeroizing::new).map_err(unusable_key)
    }
}

async fn private(path: &Path) -> Result<Zeroizing<String>, Error> {
    let owned = path.to_owned();
    off_thread(path, move || read_private(&owned)).await
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ASSERTION_LIFE: i64 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, Reason};
    use crate::provider::source::test::context;

    fn client<'a>(auth: Auth, endpoint: &'a Url) -> Client<'a> {
        Client { id: "c", auth, algorithm: Algorithm::RS256, key_id: None, endpoint }
    }

    #[tokio::test]
    async fn the_secret_is_sent_as_the_server_offers() {
        let endpoint = Url::parse("https://idp.example/token").expect("a URL");
        for (offered, header) in
            [(None, true), (Some("client_secret_post"), false), (Some("private_key_jwt"), true)]
        {
            let offered: Vec<_> = offered.into_iter().map(str::to_owned).collect();
            let (client, mut form) = (client(Auth::offered(&offered), &endpoint), Vec::new());
            let cx = context(&[("SECRET", "s/p:a")]);
            let proof =
                client.prove(&Proof::SecretEnv("SECRET".into()), &cx, &mut form).await.expect("proved");
            assert_eq!(proof.is_some(), header, "{offered:?}");
            match proof {
                Some(basic) => assert_eq!(*basic, format!("Basic {}", STANDARD.encode("c:s%2Fp%3Aa"))),
                None => assert_eq!(form[0].1.as_str(), "s/p:a"),
            }
        }
    }

    #[tokio::test]
    async fn a_missing_secret_is_named() {
        let endpoint = Url::parse("https://idp.example/token").expect("a URL");
        let client = client(Auth::Basic, &endpoint);
        let proof = Proof::SecretEnv("SECRET".into());
        let error = client.prove(&proof, &context(&[]), &mut Vec::new()).await.expect_err("not set");
        assert_eq!(error.kind, Kind::Misconfigured);
        assert_eq!(error.reason, Reason::Variable { name: "SECRET".to_owned() });
    }
}
