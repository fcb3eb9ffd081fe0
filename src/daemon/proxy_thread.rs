//! The thread of the loopback proxy: bodies of any size go through it, and whoever asks the socket for a token must not wait for
//! one. It is there once a job has asked for the proxy.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tracing::{error, warn};

use super::runtime;
use crate::proxy::Proxy;

/// Serves once there is a port, until `stop` turns true.
pub(super) async fn run(proxy: Arc<Proxy>, mut stop: watch::Receiver<bool>) {
    let listener = tokio::select! {
        listener = proxy.listener() => listener,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let (give, given) = oneshot::channel();
    let (tell, ended) = oneshot::channel::<()>();
    let (own, stopping) = (Arc::clone(&proxy), stop.clone());
    let work = move || {
        let Ok(listener) = given.blocking_recv() else { return };
        match runtime() {
            Ok(runtime) => {
                runtime.block_on(own.serve(listener, stopping));
                runtime.shutdown_timeout(Duration::ZERO);
            }
            Err(error) => error!(%error, "the proxy cannot be served"),
        }
        drop(tell);
    };
    match thread::Builder::new().name("proxy".to_owned()).spawn(work) {
        Ok(_) => {
            let _ = give.send(listener);
            let _ = ended.await;
        }
        Err(error) => {
            warn!(%error, "the system gives no thread for the proxy, so callers may wait for what streams through it");
            proxy.serve(listener, stop).await;
        }
    }
}
