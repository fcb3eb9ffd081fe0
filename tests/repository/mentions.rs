//! Finds what looks like one of our command lines in running text, a message, or a manual page.

use clap::{Arg, Command};

/// A command line as it stands in a text, cut off where it seems to end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mention<'a> {
    pub(crate) program: &'a str,
    pub(crate) words: Vec<&'a str>,
}

/// Every mention in a line. What only names a program, with nothing after it, is none.
pub(crate) fn mentions(line: &str) -> Vec<Mention<'_>> {
    let mut found = Vec::new();
    for (at, name) in line.match_indices("wandb-cred") {
        let (before, rest) = (&line[..at], &line[at + name.len()..]);
        let suffix = ["-sandbox ", "d ", " "].into_iter().find(|suffix| rest.starts_with(suffix));
        let Some(suffix) = suffix else { continue };
        let part_of_a_word = |char: char| char.is_alphanumeric() || "-_.=".contains(char);
        if before.ends_with(part_of_a_word) || OTHER_THINGS.iter().any(|thing| before.ends_with(thing)) {
            continue;
        }
        let program = line[at..at + name.len() + suffix.len()].trim_end();
        found.push(Mention { program, words: words(&rest[suffix.len()..]) });
    }
    found
}

/// After these, the name is that of another thing than a program.
const OTHER_THINGS: &[&str] = &["create role ", "create rolebinding "];

/// Words up to the end of the command: two spaces, a bracket, an operator of the shell, or punctuation.
fn words(rest: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let rest = rest.split("  ").next().unwrap_or_default();
    for word in rest.split(' ') {
        if word.is_empty() || word == "-" || word.starts_with(['(', '[', '|', '>', '&', ';', '#', '\\']) {
            break;
        }
        let end = word.find(['`', '"', '\'', ',', ';', ')', ']', '\n', '|']).unwrap_or(word.len());
        let ends_a_tag = word.find("</").unwrap_or(word.len());
        let whole = word;
        let word = whole[..end.min(ends_a_tag)].trim_end_matches(['.', ':', '?', '!']);
        // A placeholder that is stuck to a word, such as `login{arguments}`, stands for more words.
        let word = match word.find('{') {
            Some(at) if at > 0 && !word.contains('=') => &word[..at],
            _ => word,
        };
        if !word.is_empty() {
            words.push(word);
        }
        if word.len() < whole.len() && !whole.ends_with("...") {
            break;
        }
    }
    words
}

/// Whether the mention is a command of ours as far as it goes; or what is wrong. `root` is built.
pub(crate) fn parse(mention: &Mention<'_>, root: &Command) -> Result<(), String> {
    let mut command = root;
    let mut line = vec![mention.program.to_owned()];
    let mut words = mention.words.iter().copied();
    let mut positionals = 0;
    while let Some(word) = words.next() {
        if let Some(subcommand) = command.find_subcommand(word) {
            command = subcommand;
            line.push(word.to_owned());
        } else if word == "--" {
            line.extend([word.to_owned(), words.next().unwrap_or("CMD").to_owned()]);
            break;
        } else if word.starts_with('-') {
            let (name, given) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            line.push(name.to_owned());
            let known = [command, root].into_iter().find_map(|command| option(command, name));
            if let Some(argument) = known.filter(|argument| argument.get_action().takes_values()) {
                line.push(value(argument, given.or_else(|| words.next()).unwrap_or("VALUE")));
            }
        } else if let Some(argument) = command.get_positionals().nth(positionals) {
            line.push(value(argument, word));
            positionals += 1;
        } else if command.has_subcommands() && is_name(word) && !PROSE.contains(&word) {
            return Err(format!("no command `{word}`"));
        } else {
            // The sentence goes on.
            break;
        }
    }
    use clap::error::ErrorKind;
    match root.clone().try_get_matches_from(&line) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            // It names the command, and leaves the rest to the reader.
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Ok(()),
            _ => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
        },
    }
}

/// What follows the name of a program in our sentences, and is no command.
const PROSE: &[&str] = &[
    "did", "does", "ended", "inside", "is", "keeps", "nor", "of", "replaces", "sign-in", "socket", "there",
    "writes",
];

fn is_name(word: &str) -> bool {
    word.chars().all(|char| char.is_ascii_lowercase() || char == '-')
}

fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|argument| {
        let long = argument.get_long().is_some_and(|long| name == format!("--{long}"));
        long || argument.get_short().is_some_and(|short| name == format!("-{short}"))
    })
}

/// The value as it stands there, or one that the argument takes in place of a placeholder.
fn value(argument: &Arg, given: &str) -> String {
    let placeholder = given.starts_with(['{', '<'])
        || given.ends_with("...")
        || given.chars().all(|char| char.is_ascii_uppercase() || "_-".contains(char));
    if !placeholder {
        return given.to_owned();
    }
    let possible = argument.get_possible_values().first().map(|value| value.get_name().to_owned());
    let accepts = |candidate: &str| {
        // Alone and by position, so that nothing but the value can be wrong.
        let alone = Arg::new("value").value_parser(argument.get_value_parser().clone());
        let command = Command::new("x").no_binary_name(true).disable_help_flag(true).arg(alone);
        command.try_get_matches_from([candidate]).is_ok()
    };
    let plausible = ["name", "1h", "1", "https://acme.example"].into_iter().find(|text| accepts(text));
    possible.or(plausible.map(str::to_owned)).unwrap_or_else(|| given.to_owned())
}

#[test]
fn mentions_end_where_the_command_ends() {
    let found = |line| mentions(line).into_iter().map(|mention| mention.words).collect::<Vec<_>>();
    assert_eq!(
        found("type `wandb-cred login --profile {profile}`, then wait"),
        [["login", "--profile", "{profile}"]]
    );
    assert_eq!(found("next: wandb-cred check, or wandb-cred init"), [["check"], ["init"]]);
    assert_eq!(found("wandb-cred status           what the daemon holds"), [["status"]]);
    assert_eq!(found("wandb-cred token --need 72h >/dev/null && sbatch"), [["token", "--need", "72h"]]);
    assert_eq!(found("eval \"$(wandb-cred env)\""), [["env"]]);
    assert!(found("~/.config/wandb-cred/config.toml my-wandb-cred x wandb-cred.sock").is_empty());
}

#[test]
fn commands_that_do_not_exist_are_found() {
    let mut command = wandb_cred::cli::command();
    command.build();
    let said = |line| parse(&mentions(line)[0], &command);
    assert_eq!(said("wandb-cred exec -- python train.py"), Ok(()));
    assert_eq!(said("wandb-cred service install"), Ok(()));
    assert_eq!(said("wandb-cred status of every profile"), Ok(()));
    assert!(said("wandb-cred detect").is_err());
    assert!(said("wandb-cred service instal").is_err());
    assert!(said("wandb-cred status --loud").is_err());
    assert!(said("wandb-cred token --format nonsense").is_err());
}
