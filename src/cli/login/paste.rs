//! Takes the address at which a browser on another machine ended, while the sign-in is waited for.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use zeroize::Zeroizing;

use crate::api;
use crate::cli::command_error::CommandError;
use crate::cli::keys::Keys;
use crate::client::Client;
use crate::output::{eprint_line, printable};

pub(super) struct Paste<'a> {
    client: &'a Client,
    target: String,
    /// Nobody types where there are none.
    keys: Option<Keys>,
    typed: Zeroizing<Vec<u8>>,
}

impl<'a> Paste<'a> {
    pub(super) fn new(client: &'a Client, id: &str, keys: Option<Keys>) -> Self {
        let target = format!("/v1/login/{id}/callback");
        Self { client, target, keys, typed: Zeroizing::default() }
    }

    /// Takes what is typed until there is an answer. False if the person gives up.
    pub(super) fn until(&mut self, answer: &UnixStream) -> bool {
        let stdin = io::stdin();
        loop {
            let mut fds = vec![PollFd::new(answer, PollFlags::IN)];
            if self.keys.is_some() {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            if poll(&mut fds, None).is_err() {
                continue;
            }
            if !fds[0].revents().is_empty() {
                return true;
            }
            match self.keys.as_ref().map(Keys::read) {
                Some(Some(pressed)) if self.typed_more(&pressed) => {}
                // Ctrl-C, or the terminal is gone.
                Some(_) => return false,
                None => {}
            }
        }
    }

    fn typed_more(&mut self, pressed: &[u8]) -> bool {
        for &key in pressed {
            match key {
                CTRL_C | CTRL_D => return false,
                b'\r' | b'\n' => self.send(),
                BACKSPACE | DELETE => drop(self.typed.pop()),
                CTRL_U => self.typed.clear(),
                _ if self.typed.len() < MOST => self.typed.push(key),
                _ => {}
            }
        }
        true
    }

    /// What comes of it is the sign-in's to say; here, only that it was not taken.
    fn send(&mut self) {
        let typed = std::mem::take(&mut self.typed);
        let text = Zeroizing::new(String::from_utf8_lossy(&typed).into_owned());
        // Around what is pasted, from terminals that mark it (xterm, "Bracketed Paste Mode").
        let url = text.trim().trim_start_matches("\x1b[200~").trim_end_matches("\x1b[201~").trim();
        if url.is_empty() {
            return;
        }
        eprint_line("Checking the address ...");
        let callback = api::Callback { url: url.to_owned() };
        if let Err(error) = self.client.post::<api::Login>(&self.target, &callback, TIMEOUT) {
            let error = CommandError::from(error);
            eprint_line(&format!("Not taken: {}. Paste the address again:", printable(error.message())));
        }
    }
}

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const BACKSPACE: u8 = 8;
const DELETE: u8 = 127;

/// The daemon takes bodies of 16 KiB.
const MOST: usize = 15 * 1024;

/// The daemon redeems the code meanwhile.
const TIMEOUT: Duration = Duration::from_secs(90);
