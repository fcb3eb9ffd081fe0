//! Application Default Credentials: the file that `gcloud auth application-default login` writes, or the one that
//! `GOOGLE_APPLICATION_CREDENTIALS` names. It is read, never changed.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::env::Env;
use crate::error::{Error, FileFault, Kind};
use crate::provider::files::{self, unusable};

/// What the file is good for here: a user's credentials, and perhaps the account that they are to be used as.
#[derive(Debug)]
pub(super) struct Adc {
    pub(super) path: PathBuf,
    pub(super) user: User,
    /// The account, of a file that `--impersonate-service-account` made.
    pub(super) account: Option<String>,
    /// Accounts in between, each of which may act as the next.
    pub(super) delegates: Vec<String>,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) client_id: String,
    pub(super) client_secret: Zeroizing<String>,
    pub(super) refresh_token: Zeroizing<String>,
    /// The project that pays for the calls of a user.
    pub(super) quota_project: Option<String>,
}

/// Where the file is, in the order of Google's own libraries.
pub(super) fn place(env: &Env) -> Option<PathBuf> {
    let folder = || env.path("CLOUDSDK_CONFIG").or_else(|| Some(env.path("HOME")?.join(".config/gcloud")));
    env.path(VARIABLE).or_else(|| Some(folder()?.join(FILE)))
}

/// The account that the file at `path` impersonates, if it is such a file. May block.
pub(super) fn impersonates(path: &Path) -> Option<String> {
    parse(path, &files::read(path).ok()?).ok()?.account
}

/// The file, if there is one.
pub(super) async fn read(path: &Path) -> Result<Option<Adc>, Error> {
    match files::read_off_thread(path).await {
        Ok(content) => parse(path, &content).map(Some),
        Err(error) if error.file_fault() == Some(&FileFault::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(path: &Path, content: &str) -> Result<Adc, Error> {
    let shown = path.display();
    let malformed = |message: String| unusable(path, FileFault::Malformed, message);
    // The parser's text would quote the file. A half-written file may be whole next time.
    let file: File = serde_json::from_str(content).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        malformed(format!("{shown} is not Google's credentials file (line {line}, column {column})"))
            .kind(Kind::Transient)
    })?;
    let quota = file.quota_project_id.clone();
    let (source, account, delegates) = match file.kind.as_str() {
        IMPERSONATED => {
            let url = file.service_account_impersonation_url.unwrap_or_default();
            let account = url.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(name, _)| name);
            let account = account.filter(|account| is_account(account)).ok_or_else(|| {
                malformed(format!("{shown} names no account in service_account_impersonation_url"))
            })?;
            let source = file
                .source_credentials
                .ok_or_else(|| malformed(format!("{shown} has no source_credentials")))?;
            (*source, Some(account.to_owned()), file.delegates.unwrap_or_default())
        }
        _ => (file, None, Vec::new()),
    };
    if source.kind != USER {
        // Its own words, which a file of another make can hold anything in.
        let kind = match source.kind.as_str() {
            known @ ("service_account" | "external_account" | "external_account_authorized_user") => known,
            _ => "unknown",
        };
        return Err(malformed(format!(
            "{shown} holds credentials of the type {kind}, which are left to gcloud: use a command provider with \
             argv = [\"gcloud\", \"auth\", \"print-identity-token\", \"--audiences=AUDIENCE\"]"
        )));
    }
    let (Some(client_id), Some(client_secret), Some(refresh_token)) =
        (source.client_id, source.client_secret, source.refresh_token)
    else {
        return Err(malformed(format!(
            "{shown} lacks client_id, client_secret or refresh_token; run: {LOGIN}"
        )));
    };
    let quota_project = source.quota_project_id.or(quota);
    let user = User { client_id, client_secret, refresh_token, quota_project };
    Ok(Adc { path: path.to_owned(), user, account, delegates })
}

/// The account becomes a path segment.
pub(super) fn is_account(account: &str) -> bool {
    !account.is_empty() && account.bytes().all(|b| b.is_ascii_alphanumeric() || b"@.-_:".contains(&b))
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "type", default)]
    kind: String,
    client_id: Option<String>,
    client_secret: Option<Zeroizing<String>>,
    refresh_token: Option<Zeroizing<String>>,
    quota_project_id: Option<String>,
    source_credentials: Option<Box<Self>>,
    service_account_impersonation_url: Option<String>,
    delegates: Option<Vec<String>>,
}

pub(super) const LOGIN: &str = "gcloud auth application-default login";
const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const FILE: &str = "application_default_credentials.json";
const USER: &str = "authorized_user";
const IMPERSONATED: &str = "impersonated_service_account";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_where_googles_libraries_look() {
        let at = |vars: &[(&str, &str)]| {
            place(&Env::fixed(vars.iter().copied())).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/home/ada");
        assert_eq!(at(&[home, (VARIABLE, "/x.json")]).as_deref(), Some("/x.json"));
        let file = format!("/home/ada/.config/gcloud/{FILE}");
        assert_eq!(at(&[home]), Some(file));
        assert_eq!(at(&[home, ("CLOUDSDK_CONFIG", "/c")]), Some(format!("/c/{FILE}")));
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn no_refusal_shows_what_is_in_the_file() {
        for text in [
            r#"{"type":"planted"}"#,
            r#"{"type":"service_account","private_key":"planted"}"#,
            r#"{"type":"authorized_user","client_id":"planted"}"#,
            r#"{"type":"impersonated_service_account","service_account_impersonation_url":"planted/../:x"}"#,
            r#"{"type":"authorized_user","client_id":7,"refresh_token":"planted"}"#,
            "planted",
        ] {
            let error = parse(Path::new("/adc.json"), text).expect_err(text);
            assert!(error.message.contains("/adc.json") && !error.message.contains("planted"), "{error}");
        }
    }
}
