//! A terminal of a known size, by script(1), in which a test types as a person does.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wandb_cred::clock::Clock;

pub(crate) struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs a line of shell script in a terminal of `columns`, with the environment of `like` and its working directory.
    pub(crate) fn start(like: &Command, columns: u16, line: &str) -> Self {
        // Whoever runs the tests in the background has ^C ignored, and no shell may undo that.
        let mut command = Command::new("env");
        command
            .args([
                "--default-signal=INT",
                "script",
                "-qec",
                &format!("stty cols {columns} rows 24; {line}"),
                "/dev/null",
            ])
            .env_clear();
        command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm").env("SHELL", "/bin/sh");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script(1) starts");
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (keyboard, mut shown) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let copy = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = shown.read(&mut piece) {
                copy.lock().expect("not poisoned").extend_from_slice(&piece[..read]);
            }
        });
        Self { child, keyboard, screen }
    }

    pub(crate) fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is there");
        self.keyboard.flush().expect("the terminal is there");
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("not poisoned")).into_owned()
    }

    /// Waits until `wanted` has been shown after the first `from` bytes, and gives how much has been shown until then.
    pub(crate) fn shows_after(&self, from: usize, wanted: &str) -> usize {
        let start = Clock::system().now().boot;
        loop {
            let text = self.text();
            if text.get(from..).is_some_and(|rest| rest.contains(wanted)) {
                return text.len();
            }
            assert!(
                Clock::system().now().boot < start + Duration::from_secs(20),
                "`{wanted}` is not in: {text:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn shows(&self, wanted: &str) -> usize {
        self.shows_after(0, wanted)
    }

    /// Waits for the end of what was started, and gives its exit code.
    pub(crate) fn ends(&mut self) -> i32 {
        let start = Clock::system().now().boot;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                return status.code().expect("script ends by itself");
            }
            assert!(
                Clock::system().now().boot < start + Duration::from_secs(20),
                "it does not end: {:?}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
