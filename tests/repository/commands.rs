//! Every command that a message, a comment or a page names is one that our own parsers take; every script is there.

use std::path::Path;

use clap::Command;

use crate::mentions::{mentions, parse};
use crate::source::{Source, files_in, root, text};

#[test]
fn every_command_that_is_named_parses() {
    let (parsers, mut wrong, mut count) = (parsers(), Vec::new(), 0);
    for (place, line) in lines() {
        for mention in mentions(&line) {
            count += 1;
            let parser = parsers.iter().find(|parser| parser.get_name() == mention.program);
            if let Err(why) = parse(&mention, parser.expect("a program of ours")) {
                wrong.push(format!("{place}: {} {}: {why}", mention.program, mention.words.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} commands were found");
}

#[test]
fn every_script_that_is_named_is_there() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (place, line) in lines().into_iter().chain(page_lines(Path::new("justfile"))) {
        for (at, _) in line.match_indices("scripts/") {
            let name = line[at..].split(|char: char| !(char.is_alphanumeric() || "/-_.".contains(char)));
            let script = name.into_iter().next().unwrap_or_default().trim_end_matches(['.', '/']);
            count += 1;
            if script != "scripts" && !root().join(script).is_file() {
                wrong.push(format!("{place}: {script} is not there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 10, "only {count} scripts were found");
}

#[test]
fn every_just_recipe_that_is_named_is_there() {
    let justfile = text("justfile");
    let heads = justfile.lines().filter_map(|line| line.strip_suffix(':'));
    let recipes: Vec<_> = heads.filter_map(|head| head.split(' ').next()).collect();
    assert!(!recipes.is_empty(), "no recipe found");
    for (place, line) in lines() {
        for opening in ["`just ", "$ just "] {
            for named in line.split(opening).skip(1) {
                let name = named.split(|char: char| !(char.is_alphanumeric() || char == '-')).next();
                assert!(recipes.contains(&name.unwrap_or_default()), "{place}: just {named}");
            }
        }
    }
}

#[test]
fn all_that_names_the_version_names_the_same() {
    let check = |version: &str| {
        let script = root().join("scripts/release");
        std::process::Command::new(script).args(["--versions", version]).output().expect("it starts")
    };
    let agreed = check(env!("CARGO_PKG_VERSION"));
    assert!(agreed.status.success(), "{}", String::from_utf8_lossy(&agreed.stderr));
    assert!(!check("9.9.9").status.success());
}

fn parsers() -> [Command; 3] {
    let mut parsers =
        [wandb_cred::cli::command(), wandb_cred::daemon::command(), wandb_cred::sandbox::command()];
    parsers.iter_mut().for_each(Command::build);
    parsers
}

/// All that people read, with its place.
fn lines() -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for source in Source::all() {
        for (at, words) in source.words {
            let place = format!("{}:{at}", source.path.display());
            lines.extend(words.lines().map(|line| (place.clone(), line.to_owned())));
        }
    }
    let mut pages = ["docs", "man", "systemd", "launchd", "contrib"].map(files_in).concat();
    let others =
        ["README.md", "SECURITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "openapi.yaml"];
    pages.extend(others.map(Into::into));
    lines.extend(pages.iter().flat_map(|page| page_lines(page)));
    lines
}

fn page_lines(page: &Path) -> Vec<(String, String)> {
    let text = text(page);
    let plain = |line: &str| {
        // roff: fonts say nothing here.
        let fonts = ["\\fB", "\\fI", "\\fR"];
        let line = fonts.iter().fold(line.to_owned(), |line, font| line.replace(font, ""));
        line.replace("\\-", "-").replace("\\*(Aq", "'")
    };
    let numbered = text.lines().enumerate();
    numbered.map(|(at, line)| (format!("{}:{}", page.display(), at + 1), plain(line))).collect()
}
