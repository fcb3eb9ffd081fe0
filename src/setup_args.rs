//! The arguments that `wandb-cred init` and `wandb-cred login` pass on to `wandb-credd`, defined once for both.

// No doc comments on the structs: clap would show them as the summary of the subcommand they are flattened into.

#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct InitArgs {
    /// Replace an existing configuration file
    #[arg(long)]
    pub force: bool,
    /// Print what would be written, and write nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// The audience that W&B knows, usually the name of your W&B organization
    #[arg(long, value_name = "NAME", env = "WANDB_CRED_AUDIENCE")]
    pub audience: Option<String>,
}

impl InitArgs {
    /// The same, as typed.
    pub fn to_flags(&self) -> Vec<String> {
        let flags = [("--force", self.force), ("--dry-run", self.dry_run)];
        let flags = flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag.to_owned());
        flags.chain(self.audience.iter().map(|audience| format!("--audience={audience}"))).collect()
    }
}

#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstLoginArgs {
    /// The identity provider's issuer, if nothing is configured yet
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// The client ID that the identity provider knows this program by
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// A W&B server to ask for the issuer and the client ID
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// The W&B organization to ask that server about
    #[arg(long, value_name = "NAME", requires = "host")]
    pub organization: Option<String>,
    /// Where to store the session: keyring, kernel or file
    #[arg(long, value_name = "STORE", value_parser = ["keyring", "kernel", "file"])]
    pub token_store: Option<String>,
}

impl FirstLoginArgs {
    /// The same, as typed.
    pub fn to_flags(&self) -> Vec<String> {
        [
            ("issuer", &self.issuer),
            ("client-id", &self.client_id),
            ("host", &self.host),
            ("organization", &self.organization),
            ("token-store", &self.token_store),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("--{name}={value}")))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Both {
        #[command(flatten)]
        init: InitArgs,
        #[command(flatten)]
        first_login: FirstLoginArgs,
    }

    #[test]
    fn what_is_passed_on_is_what_was_typed() {
        let init = InitArgs { force: true, dry_run: true, audience: Some("-a b".into()) };
        let first_login = FirstLoginArgs {
            issuer: Some("https://idp.example".into()),
            client_id: Some("-x".into()),
            host: Some("wandb.example".into()),
            organization: Some("a b".into()),
            token_store: Some("kernel".into()),
        };
        let typed = [vec!["wandb-credd".to_owned()], init.to_flags(), first_login.to_flags()].concat();
        let parsed = Both::try_parse_from(typed).expect("valid");
        assert_eq!((parsed.init, parsed.first_login), (init, first_login));
        assert!(InitArgs::default().to_flags().is_empty() && FirstLoginArgs::default().to_flags().is_empty());
    }
}
