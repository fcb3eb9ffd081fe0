//! Follows one profile's session: wakes its keepers after a sign-in, empties them after a sign-out, and notifies the
//! desktop, once, of a session that is about to end or has ended.

use std::sync::Arc;
use std::time::Duration;

use super::notify::notify;
use crate::clock::Clock;
use crate::error::Kind;
use crate::oidc::session::{Change, Session};
use crate::profile::Profile;
use crate::token::Expires as _;

/// Returns when the profile's session or keepers are gone.
pub async fn follow(profile: Arc<Profile>, session: Arc<Session>, clock: Clock) {
    let mut changes = session.changes();
    // Whoever has a session has an identity.
    let Some(keeper) = &profile.identity else { return };
    let mut identity = keeper.subscribe();
    let mut notified_needed = false;
    let mut notified_end = None;
    loop {
        let now = clock.now();
        let (needed, outlook) = keeper.read(|snapshot| {
            let needed = snapshot.error.as_ref().is_some_and(|error| error.kind == Kind::NeedsLogin);
            (needed, snapshot.token.as_ref().and_then(|token| token.renewal().outlook))
        });
        if needed && !notified_needed && profile.demand.is_hot(now) {
            let next = format!("Run: wandb-cred login --profile {}", profile.name);
            notify(&format!("Sign in for W&B ({})", profile.name), &next).await;
        }
        notified_needed = needed;
        let mut wait = None;
        if let Some(outlook) = outlook.filter(|outlook| notified_end != Some(outlook.until)) {
            let left = Duration::try_from(outlook.until.duration_since(now.wall)).unwrap_or_default();
            if left > WARN_BEFORE_END {
                wait = Some(left - WARN_BEFORE_END);
            } else {
                notified_end = Some(outlook.until);
                let body = format!("{}. Run: wandb-cred login --profile {}", outlook.reason, profile.name);
                notify(&format!("Your W&B session ({}) is about to end", profile.name), &body).await;
            }
        }
        let due = async {
            match wait {
                Some(wait) => drop(clock.sleep(wait).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => match changed.map(|()| *changes.borrow_and_update()) {
                Ok(Change::SignedIn(_)) => {
                    keeper.reset();
                    profile.access.reset();
                }
                Ok(Change::SignedOut(_)) => {
                    keeper.forget();
                    profile.access.forget();
                }
                Ok(Change::None) => {}
                Err(_) => return,
            },
            changed = identity.changed() => if changed.is_err() { return },
            () = due => {}
        }
    }
}

/// Enough time to finish a thought and sign in.
const WARN_BEFORE_END: Duration = Duration::from_secs(10 * 60);
