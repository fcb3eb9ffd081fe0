//! Quoting for the shells that evaluate our output.

use clap::ValueEnum;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// sh, bash, zsh, ksh, dash
    #[value(aliases = ["bash", "zsh", "ksh", "dash"])]
    Sh,
    Fish,
    /// csh, tcsh
    #[value(alias = "tcsh")]
    Csh,
    /// Nushell
    #[value(alias = "nushell")]
    Nu,
    #[value(alias = "pwsh")]
    Powershell,
    /// An object for other programs; null is a variable to remove
    Json,
    /// Lines for files of the name .env
    Dotenv,
}

impl Shell {
    /// Sets the variables that have a value, and removes those that have none.
    pub(super) fn all(self, variables: &[(String, Option<String>)]) -> String {
        if self == Self::Json {
            let object: serde_json::Map<_, _> =
                variables.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            return format!("{}\n", serde_json::Value::Object(object));
        }
        let line = |(name, value): &(String, Option<String>)| match value {
            Some(value) => self.set(name, value),
            None => self.unset(name),
        };
        variables.iter().map(line).collect()
    }

    fn set(self, name: &str, value: &str) -> String {
        let value = self.quote(value);
        match self {
            Self::Sh => format!("export {name}={value}\n"),
            Self::Fish => format!("set -gx {name} {value};\n"),
            Self::Csh => format!("setenv {name} {value};\n"),
            Self::Nu | Self::Powershell => format!("$env:{name} = {value}\n").replacen(':', self.point(), 1),
            Self::Json | Self::Dotenv => format!("{name}={value}\n"),
        }
    }

    /// Between `$env` and the name.
    fn point(self) -> &'static str {
        if self == Self::Nu { "." } else { ":" }
    }

    fn unset(self, name: &str) -> String {
        match self {
            Self::Sh => format!("unset {name}\n"),
            Self::Fish => format!("set -e {name};\n"),
            Self::Csh => format!("unsetenv {name};\n"),
            Self::Nu => format!("hide-env --ignore-errors {name}\n"),
            Self::Powershell => format!("Remove-Item Env:{name} -ErrorAction SilentlyContinue\n"),
            // Such a file cannot take a variable away.
            Self::Json | Self::Dotenv => format!("# {name} must not be set\n"),
        }
    }

    /// `value` as one word, without quotes if it needs none.
    pub(super) fn quote(self, value: &str) -> String {
        if matches!(self, Self::Nu | Self::Dotenv) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            return format!("\"{escaped}\"");
        }
        if self == Self::Powershell {
            return format!("'{}'", value.replace('\'', "''"));
        }
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
    fn each_form_sets_and_removes() {
        let variables = [("A".to_owned(), Some("it's \"x\"".to_owned())), ("B".to_owned(), None)];
        for (shell, text) in [
            (Shell::Nu, "$env.A = \"it's \\\"x\\\"\"\nhide-env --ignore-errors B\n"),
            (Shell::Powershell, "$env:A = 'it''s \"x\"'\nRemove-Item Env:B -ErrorAction SilentlyContinue\n"),
            (Shell::Json, "{\"A\":\"it's \\\"x\\\"\",\"B\":null}\n"),
            (Shell::Dotenv, "A=\"it's \\\"x\\\"\"\n# B must not be set\n"),
            (Shell::Fish, "set -gx A 'it\\'s \"x\"';\nset -e B;\n"),
        ] {
            assert_eq!(shell.all(&variables), text);
        }
    }

    #[test]
    fn plain_words_stay_plain() {
        assert_eq!(Shell::Sh.quote("https://api.wandb.ai"), "https://api.wandb.ai");
        assert_eq!(Shell::Fish.quote(r"a'\"), r"'a\'\\'");
        assert_eq!(Shell::Csh.quote("a!b"), r"'a\!b'");
        assert_eq!(Shell::Sh.quote(""), "''");
    }
}
