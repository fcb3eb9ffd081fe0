//! `~/.netrc`: an entry of a W&B host there (`wandb login` writes one) is what Python's requests sends in place of a token that a
//! program names itself (psf/requests#3929). `exec` shows its command a copy without such entries, and the doctor tells.
//!
//! The copy is as private as the original, and lies below the same home folder, so that every node and container that has the
//! one has the other. Its reader holds a lock on it, which the kernel frees with the last process that has it: a copy that
//! nobody holds is removed by whoever looks next, the daemon at the end of a job or the next `exec`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::env::Env;
use crate::{paths, read_file};

/// The file that requests and its like read: `NETRC`, else `~/.netrc`, else `~/_netrc`.
pub fn path(env: &Env) -> Option<PathBuf> {
    let home = env.path("HOME");
    if let Some(path) = env.path(VARIABLE) {
        return match (path.strip_prefix("~"), home) {
            (Ok(below), Some(home)) => Some(home.join(below)),
            _ => Some(path),
        };
    }
    let home = home?;
    [".netrc", "_netrc"].into_iter().map(|name| home.join(name)).find(|path| path.exists())
}

/// Its text; `None` if it is not there, or not to be read.
pub fn read(path: &Path) -> Option<Zeroizing<String>> {
    let owned = path.to_owned();
    let bytes = read_file::within_time(path, move || read_file::read(&owned, MAX_NETRC)).ok()?;
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

/// Whether there is an entry for `host` itself.
pub fn has(text: &str, host: &str) -> bool {
    entries(text).is_some_and(|entries| entries.iter().any(|entry| entry.is_of(host)))
}

/// Whether every host without an entry of its own gets this one.
pub fn has_default(text: &str) -> bool {
    entries(text).is_some_and(|entries| entries.iter().any(|entry| entry.host.is_none()))
}

/// The text without the entries of these hosts; `None` if it has none, or is not understood.
pub fn without(text: &str, hosts: &[String]) -> Option<Zeroizing<String>> {
    let (mut rest, mut from) = (Zeroizing::new(String::with_capacity(text.len())), 0);
    for entry in entries(text)?.iter().filter(|entry| hosts.iter().any(|host| entry.is_of(host))) {
        rest.push_str(&text[from..entry.start]);
        from = entry.end;
    }
    rest.push_str(&text[from..]);
    (from > 0).then_some(rest)
}

/// The lock of a copy that somebody uses, to be inherited.
pub struct Copy {
    pub path: PathBuf,
    pub lock: File,
}

/// Writes a copy that is removed when its lock is free.
pub fn write_copy(env: &Env, text: &str) -> io::Result<Copy> {
    let folder = folder(env).ok_or(io::ErrorKind::NotFound)?;
    paths::private_dir(&folder).map_err(io::Error::other)?;
    for _ in 0..ATTEMPTS {
        let path = folder.join(format!("{:016x}", fastrand::u64(..)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let locked = file.try_lock_shared();
        // Whoever sweeps may have come between.
        if matches!(locked, Err(std::fs::TryLockError::WouldBlock)) || !path.exists() {
            continue;
        }
        let written = locked.map_err(io::Error::from).and_then(|()| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        return Ok(Copy { path, lock: file });
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Removes the copies that nobody uses any more.
pub fn sweep(env: &Env) {
    let Some(entries) = folder(env).and_then(|folder| folder.read_dir().ok()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
        // Removed under the lock: nobody takes it up in between.
        if let Ok(file) = OpenOptions::new().write(true).custom_flags(flags).open(&path)
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// [`sweep`], without waiting longer than a healthy file system needs.
pub async fn sweep_in_time(env: Env) {
    let Some(folder) = folder(&env) else { return };
    let _ = read_file::off_thread(&folder, move || {
        sweep(&env);
        Ok(())
    })
    .await;
}

fn folder(env: &Env) -> Option<PathBuf> {
    Some(paths::home_state_dir(env).ok()?.join("netrc"))
}

/// `machine HOST ...` or `default ...`, and where it is in the text.
struct Entry {
    /// Absent for the default.
    host: Option<String>,
    start: usize,
    end: usize,
}

impl Entry {
    fn is_of(&self, host: &str) -> bool {
        self.host.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(host))
    }
}

/// As Python's `netrc` reads it (3.11 and later). `None` where that gives up, and requests then uses none of it.
fn entries(text: &str) -> Option<Vec<Entry>> {
    let mut lexer = Lexer { text, at: 0 };
    let mut entries: Vec<Entry> = Vec::new();
    let mut open = false;
    while let Some((start, word)) = lexer.word() {
        let keyword = matches!(&*word, "machine" | "default" | "macdef");
        if open && keyword {
            entries.last_mut().expect("one is open").end = start;
            open = false;
        }
        match &*word {
            comment if comment.starts_with('#') => lexer.end_of_line(),
            "machine" | "default" => {
                let host = if word == "machine" { Some(lexer.word()?.1) } else { None };
                entries.push(Entry { host, start, end: text.len() });
                open = true;
            }
            "macdef" => lexer.end_of_macro(),
            "login" | "user" | "account" | "password" if open => drop(Zeroizing::new(lexer.word()?.1)),
            _ => return None,
        }
    }
    Some(entries)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    /// The next word and where it begins: up to white space, or in double quotes; a backslash takes what follows as it is.
    fn word(&mut self) -> Option<(usize, String)> {
        let rest = &self.text[self.at..];
        let start = self.at + rest.find(|c| !SPACE.contains(&c))?;
        let mut chars = self.text[start..].char_indices().peekable();
        let quoted = chars.next_if(|(_, c)| *c == '"').is_some();
        let mut word = String::new();
        self.at = self.text.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => word.extend(chars.next().map(|(_, next)| next)),
                '"' if quoted => {
                    self.at = start + at + 1;
                    break;
                }
                c if !quoted && SPACE.contains(&c) => {
                    self.at = start + at;
                    break;
                }
                c => word.push(c),
            }
        }
        Some((start, word))
    }

    fn end_of_line(&mut self) {
        self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
    }

    /// A macro ends at the first empty line.
    fn end_of_macro(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.find("\n\n").map_or(rest.len(), |end| end + 2);
    }
}

pub const VARIABLE: &str = "NETRC";
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
const MAX_NETRC: u64 = 256 * 1024;
const ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\nmachine github.com login x password machine\n\nmachine api.wandb.ai\n  login user\n  \
                        password \"a b\\\" machine x\" # key\nmacdef init\nmachine api.wandb.ai\n\nmachine pypi.corp user u \
                        account a password p\n";

    #[test]
    fn only_the_entries_of_these_hosts_go() {
        let hosts = ["API.wandb.ai".to_owned(), "other".to_owned()];
        let rest = without(TEXT, &hosts).expect("there was one");
        let expected =
            TEXT.replace("machine api.wandb.ai\n  login user\n  password \"a b\\\" machine x\" # key\n", "");
        assert_eq!(*rest, expected);
        assert!(has(TEXT, "pypi.corp") && has(&rest, "github.com") && !has(&rest, "api.wandb.ai"));
        assert_eq!(without(&rest, &hosts).as_deref(), None, "nothing is left to remove");
    }

    #[test]
    fn what_python_gives_up_on_is_left_alone() {
        let hosts = ["a".to_owned()];
        for text in ["machine a login x password y what", "machine", "login x", "machine a password"] {
            assert!(without(text, &hosts).is_none(), "{text}");
        }
        assert!(has_default("default login x password y") && !has_default(TEXT));
    }

    #[test]
    fn a_copy_lives_as_long_as_its_lock() {
        let home = tempfile::tempdir().expect("temp dir");
        let env = Env::fixed([("HOME", home.path().to_str().expect("text"))]);
        let copy = write_copy(&env, "machine x login y password z\n").expect("written");
        sweep(&env);
        let text = std::fs::read_to_string(&copy.path).expect("still there");
        assert_eq!(text, "machine x login y password z\n");
        let mode = std::os::unix::fs::MetadataExt::mode(&copy.path.metadata().expect("there"));
        assert_eq!(mode & 0o777, 0o600);
        let Copy { path, lock } = copy;
        drop(lock);
        sweep(&env);
        assert!(!path.exists());
    }
}
