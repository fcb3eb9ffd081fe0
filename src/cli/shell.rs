//! Quoting for the shells that evaluate our output.

use clap::ValueEnum;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// sh, bash, zsh, ksh, dash
    Sh,
    Fish,
    /// csh, tcsh
    Csh,
}

impl Shell {
    pub(super) fn set(self, name: &str, value: &str) -> String {
        let value = self.quote(value);
        match self {
            Self::Sh => format!("export {name}={value}\n"),
            Self::Fish => format!("set -gx {name} {value};\n"),
            Self::Csh => format!("setenv {name} {value};\n"),
        }
    }

    pub(super) fn unset(self, name: &str) -> String {
        match self {
            Self::Sh => format!("unset {name}\n"),
            Self::Fish => format!("set -e {name};\n"),
            Self::Csh => format!("unsetenv {name};\n"),
        }
    }

    /// `value` as one word, without quotes if it needs none.
    pub(super) fn quote(self, value: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/:._-+,@%".contains(c);
        if !value.is_empty() && value.chars().all(plain) {
            return value.to_owned();
        }
        let mut quoted = String::from("'");
        for c in value.chars() {
            match (self, c) {
                (Self::Fish, '\'' | '\\') => quoted.extend(['\\', c]),
                (_, '\'') => quoted.push_str(r"'\''"),
                // csh expands history and ends strings at line ends even between single quotes.
                (Self::Csh, '!' | '\n') => quoted.extend(['\\', c]),
                _ => quoted.push(c),
            }
        }
        quoted.push('\'');
        quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let nasty = "a 'b' \"c\" $HOME `id` \\ ; & * ~ é\n!x";
        let script = format!("{}printf %s \"$V\"", Shell::Sh.set("V", nasty));
        let out = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&out.stdout), nasty);
    }

    #[test]
    fn plain_words_stay_plain() {
        assert_eq!(Shell::Sh.quote("https://api.wandb.ai"), "https://api.wandb.ai");
        assert_eq!(Shell::Fish.quote(r"a'\"), r"'a\'\\'");
        assert_eq!(Shell::Csh.quote("a!b"), r"'a\!b'");
        assert_eq!(Shell::Sh.quote(""), "''");
    }
}
