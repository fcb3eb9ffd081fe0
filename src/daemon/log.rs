//! Where the log goes: to the journal, with fields, if systemd runs us; else to standard error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry};

use crate::env::Env;
use crate::output;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// Sets up logging, once. Only this crate's events are logged: those of a dependency could contain a request, and with
/// it a token.
pub(super) fn init(format: Option<Format>, level: LevelFilter) {
    let own_events = Targets::new().with_target("wandb_cred", level);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Some(Format::Json) => {
            Box::new(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
        }
        None if let Some(journal) = journal() => journal,
        None | Some(Format::Text) => Box::new(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(output::stderr_has_colour(&Env::system()))
                .with_target(false),
        ),
    };
    // Fails on a second call (in tests), which changes nothing.
    let _ = Registry::default().with(layer.with_filter(own_events)).try_init();
}

/// The journal, if standard error is connected to it (systemd.exec(5), `$JOURNAL_STREAM`).
#[cfg(target_os = "linux")]
fn journal() -> Option<Box<dyn Layer<Registry> + Send + Sync>> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = stream.split_once(':')?;
    let stat = rustix::fs::fstat(std::io::stderr()).ok()?;
    let connected = device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino);
    let layer = connected.then(tracing_journald::layer)?.ok()?;
    let layer = layer.with_field_prefix(Some("WANDB_CRED".to_owned()));
    Some(Box::new(layer.with_syslog_identifier("wandb-credd".to_owned())))
}

#[cfg(not(target_os = "linux"))]
fn journal() -> Option<Box<dyn Layer<Registry> + Send + Sync>> {
    None
}
