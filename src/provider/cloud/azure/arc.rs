//! The key that the Azure Arc agent asks for before it gives a token: proof that we may read its folder.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{Error, FileFault};
use crate::http::Answer;
use crate::provider::answer;
use crate::provider::files::unusable;
use crate::read_file::{self, off_thread};

/// The key that `challenge` names. The answer holds a whole path; only the file's name is taken from it, and the folder
/// is fixed, or whoever answers on the agent's port could ask for any file of this machine.
pub(super) async fn key(who: &str, dir: &Path, challenge: &Answer) -> Result<Zeroizing<String>, Error> {
    let rejected = |message: String| {
        answer::unreadable(who, Some("www-authenticate"), message).kind(crate::error::Kind::Rejected)
    };
    if challenge.status == 200 {
        return Err(rejected(format!("{who} gave a token without asking for its key")));
    }
    let header = challenge.headers.get("www-authenticate").and_then(|value| value.to_str().ok());
    let realm = header.and_then(|header| {
        let (scheme, realm) = header.split_once('=')?;
        scheme.trim().eq_ignore_ascii_case("basic realm").then(|| realm.trim().trim_matches('"'))
    });
    let name = realm.and_then(|realm| Path::new(realm).file_name()).map(PathBuf::from);
    let Some(name) = name.filter(|name| name.extension().is_some_and(|end| end == "key")) else {
        return Err(rejected(format!("{who} answered 401 without naming a .key file")));
    };
    let path = dir.join(name);
    let owned = path.clone();
    off_thread(&path, move || read(&owned)).await
}

fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let failed = |fault: FileFault, why: &dyn std::fmt::Display| {
        let shown = path.display();
        let message =
            format!("cannot read the Arc agent's key {shown}: {why}; add this user to the group himds");
        unusable(path, fault, message)
    };
    let unread = |error: Error| failed(error.file_fault().cloned().unwrap_or(FileFault::Unreadable), &error);
    let (file, meta) = read_file::open(path).map_err(unread)?;
    if meta.len() > MAX_KEY {
        return Err(failed(FileFault::TooLarge, &"it is larger than 4 KiB"));
    }
    read_file::content(file, path, MAX_KEY).and_then(|key| read_file::text(key, path)).map_err(unread)
}

pub(super) const KEY_DIR: &str = "/var/opt/azcmagent/tokens";
const MAX_KEY: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn the_arc_agent_names_a_file_of_its_own_folder_only() {
        let dir = tempfile::tempdir().expect("temp dir");
        let tokens = dir.path().join("tokens");
        std::fs::create_dir(&tokens).expect("made");
        std::fs::write(tokens.join("good.key"), "proof").expect("written");
        std::fs::write(tokens.join("big.key"), "x".repeat(5000)).expect("written");
        std::fs::write(dir.path().join("outside.key"), "planted").expect("written");
        let key = async |challenge: &str| {
            let mut headers = reqwest::header::HeaderMap::new();
            headers.insert("www-authenticate", challenge.parse().expect("a header"));
            let (sent, body) = (Clock::system().now(), Zeroizing::default());
            let answer = Answer { status: 401, headers, body, sent, retry_after: None, skew: None };
            key("the agent", &tokens, &answer).await.map(|key| key.to_string())
        };
        assert_eq!(key("Basic realm=/var/opt/azcmagent/tokens/good.key").await.expect("read"), "proof");
        assert_eq!(key("Basic realm=/elsewhere/good.key").await.expect("the name alone counts"), "proof");
        for challenge in [
            "Basic realm=../outside.key",
            "Basic realm=/etc/passwd",
            "Basic realm=big.key",
            "Basic realm=missing.key",
            "Basic realm=",
            "Basic realm=..",
            "Bearer realm=good.key",
            "nonsense",
        ] {
            assert!(key(challenge).await.is_err(), "{challenge}");
        }
    }
}
