//! The README's one command: sandbox, daemon and a client in one terminal, gone without a trace at Ctrl-C.

use clap::Args;

#[derive(Args)]
pub(super) struct Demo {
    /// Stop after the token was shown
    #[arg(long)]
    once: bool,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let _ = self.once;
        anyhow::bail!("not written yet")
    }
}
