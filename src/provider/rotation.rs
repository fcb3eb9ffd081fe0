//! Whether somebody replaces the JWT in a file: asking such a source again brings a new one only then.
//!
//! Until a change has been seen, the JWT's own end is the source's outlook. A volume of the kubelet's needs no proof.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::read_file;
use crate::token::{Expires as _, IdentityToken, Outlook, Renewal, TokenHash};

/// What has been seen of one file.
#[derive(Default)]
pub(crate) struct Rotation(Mutex<Seen>);

#[derive(Clone, Copy, Default)]
enum Seen {
    #[default]
    Nothing,
    One(TokenHash),
    Change,
}

impl Rotation {
    /// Takes note of what was just read from `path`, and says how long it will do.
    pub(crate) async fn note(&self, token: IdentityToken, path: &Path) -> IdentityToken {
        let changes = self.see(token.hash()) || is_kubelets(path).await;
        let outlook = (!changes).then(|| Outlook {
            until: token.expiry().wall(),
            reason: format!(
                "nobody has been seen to replace the JWT in {} since this daemon started; what renews it?",
                path.display()
            )
            .into(),
        });
        token.with_renewal(Renewal { outlook, ..Renewal::default() })
    }

    fn see(&self, hash: TokenHash) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = match *seen {
            Seen::Nothing => Seen::One(hash),
            Seen::One(before) if before == hash => Seen::One(hash),
            Seen::One(_) | Seen::Change => Seen::Change,
        };
        matches!(*seen, Seen::Change)
    }
}

/// Whether the path goes through the link that the kubelet renames over the old one (`..data`) in each volume that it keeps
/// up to date. A single file of a volume (`subPath`) does not, and is not kept up to date.
async fn is_kubelets(path: &Path) -> bool {
    let owned = path.to_owned();
    let look = move || {
        let target = std::fs::read_link(&owned).unwrap_or_default();
        Ok([&owned, &target].iter().any(|path| path.iter().any(|part| part == KUBELETS_LINK)))
    };
    read_file::off_thread(path, look).await.unwrap_or_default()
}

const KUBELETS_LINK: &str = "..data";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::provider::source::test::{context, jwt};

    fn token(life: i64) -> IdentityToken {
        context(&[]).parse(&jwt(life, ""), "a test").expect("a JWT")
    }

    #[tokio::test]
    async fn the_outlook_goes_once_a_change_was_seen_and_stays_away() {
        let (rotation, path) = (Rotation::default(), Path::new("/a/jwt"));
        let (first, second) = (token(60), token(90));
        for _ in 0..2 {
            let noted = rotation.note(first.clone(), path).await;
            let outlook = noted.renewal().outlook.expect("no change was seen");
            assert_eq!(outlook.until, first.expiry().wall());
            assert!(outlook.reason.contains("/a/jwt"), "{}", outlook.reason);
        }
        for next in [&second, &second, &first] {
            assert_eq!(rotation.note(next.clone(), path).await.renewal().outlook, None);
        }
    }

    #[tokio::test]
    async fn a_volume_of_the_kubelet_is_known_to_change() {
        let volume = tempfile::tempdir().expect("temp dir");
        let at = |name: &str| volume.path().join(name);
        std::fs::create_dir(at("..2026")).expect("made");
        std::fs::write(at("..2026/token"), "").expect("written");
        symlink("..2026", at("..data")).expect("linked");
        symlink("..data/token", at("token")).expect("linked");
        assert!(is_kubelets(&at("token")).await && is_kubelets(&at("..data/token")).await);
        assert!(!is_kubelets(&at("..2026/token")).await && !is_kubelets(Path::new("/nonexistent")).await);
    }
}
