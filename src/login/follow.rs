//! Follows one profile's session: a sign-in wakes its keepers, a sign-out empties them, and a session that
//! ends is told on the desktop, once.

use std::sync::Arc;
use std::time::Duration;

use super::notify::notify;
use crate::clock::Clock;
use crate::error::Kind;
use crate::oidc::session::{Change, Session};
use crate::profile::Profile;
use crate::token::Expires as _;

/// Runs as long as the profile does.
pub async fn follow(profile: Arc<Profile>, session: Arc<Session>, clock: Clock) {
    let mut changes = session.changes();
    let mut identity = profile.identity.subscribe();
    let mut told_needed = false;
    let mut told_end = None;
    loop {
        let now = clock.now();
        let (needed, outlook) = profile.identity.read(|snapshot| {
            let needed = snapshot.error.as_ref().is_some_and(|error| error.kind == Kind::NeedsLogin);
            (needed, snapshot.token.as_ref().and_then(|token| token.renewal().outlook))
        });
        if needed && !told_needed && profile.demand.is_hot(now) {
            let next = format!("Run: wandb-cred login --profile {}", profile.name);
            notify(&format!("Sign in for W&B ({})", profile.name), &next).await;
        }
        told_needed = needed;
        let mut wait = None;
        if let Some(outlook) = outlook.filter(|outlook| told_end != Some(outlook.until)) {
            let left = Duration::try_from(outlook.until.duration_since(now.wall)).unwrap_or_default();
            if left > AHEAD {
                wait = Some(left - AHEAD);
            } else {
                told_end = Some(outlook.until);
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
                    profile.identity.reset();
                    profile.access.reset();
                }
                Ok(Change::SignedOut(_)) => {
                    profile.identity.forget();
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

/// Time enough to finish a thought and sign in.
const AHEAD: Duration = Duration::from_secs(10 * 60);
