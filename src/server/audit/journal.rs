//! The audit log in systemd's journal, by its own protocol (systemd's "Native Journal Protocol"): a datagram of
//! `FIELD=value` lines. Not by `tracing`, whose level would decide what is recorded, and which tells of no failure.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::PROXY;
use super::record::Record;

pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self { socket })
    }

    pub(super) fn send(&self, record: &Record) -> io::Result<()> {
        self.socket.send(entry(record).as_bytes()).map(drop)
    }
}

fn entry(record: &Record) -> String {
    let what = match (record.route, record.total) {
        (_, Some(_)) => "a job is over that used",
        (PROXY, None) => "a job used a token through",
        _ => "a token was handed out by",
    };
    let mut entry = format!(
        "MESSAGE=profile {}: {what} {}\nPRIORITY=6\nSYSLOG_IDENTIFIER=wandb-credd\nWANDB_CRED_AUDIT=1\n",
        record.profile, record.route
    );
    for (name, value) in record.fields() {
        // The values are of one line: foreign ones were cleaned where they came in.
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        entry += &format!("WANDB_CRED_{}={value}\n", name.to_ascii_uppercase());
    }
    entry
}

pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::process::Facts;

    #[test]
    fn a_record_is_a_datagram_of_fields() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("bound");
        let facts = Facts { command: Some("curl".into()), ..Facts::default() };
        let record = Record {
            route: "/v1/token",
            profile: "work".into(),
            uid: Some(7),
            facts: Some(Arc::new(facts)),
            ..Record::default()
        };
        Journal::open(&path).expect("connected").send(&record).expect("sent");
        let mut bytes = [0; 4096];
        let length = journal.recv(&mut bytes).expect("received");
        let text = std::str::from_utf8(&bytes[..length]).expect("text");
        for field in ["WANDB_CRED_PROFILE=work", "WANDB_CRED_UID=7", "WANDB_CRED_COMMAND=curl", "PRIORITY=6"]
        {
            assert!(text.lines().any(|line| line == field), "{field} in {text}");
        }
        assert!(Journal::open(Path::new("/nonexistent")).is_err());
    }
}
