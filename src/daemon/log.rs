//! Where the log goes: to the journal, with fields, if systemd runs us; else to standard error.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Mutex;

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

/// Logs to a file of limited size, for a daemon that is started on demand: nobody's terminal is its own.
pub(super) fn init_file(path: &Path, level: LevelFilter) -> std::io::Result<()> {
    let file = Mutex::new(LimitedFile::create(path)?);
    let own_events = Targets::new().with_target("wandb_cred", level);
    let layer = tracing_subscriber::fmt::layer().with_writer(file).with_ansi(false).with_target(false);
    let _ = Registry::default().with(layer.with_filter(own_events)).try_init();
    Ok(())
}

/// A log that starts again when it is full.
struct LimitedFile {
    file: File,
    written: u64,
}

impl LimitedFile {
    fn create(path: &Path) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        Ok(Self { file: options.open(path)?, written: 0 })
    }
}

impl Write for LimitedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.written > MAX_LOG {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.written = 0;
        }
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

const MAX_LOG: u64 = 256 * 1024;

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
