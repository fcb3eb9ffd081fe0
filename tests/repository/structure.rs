//! ARCHITECTURE.md's level table against the imports of every file.
//!
//! Two rules. Imports point up the table: a module uses modules of its own level or of a lower number, and none that is
//! "beside". And there is no circle: in the crate, and again in each module's folder, the parts (each with all that is
//! below it) import one another in one direction only. `src/sandbox` may hold together as it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::source::{Source, text};

/// Imports that break a rule today, as (file, module that it uses). To be emptied.
const KNOWN: &[(&str, &str)] = &[
    // Up the table.
    ("src/daemon/doctor.rs", "client"),
    ("src/daemon/first_login.rs", "cli::login::first"),
    ("src/daemon/first_login.rs", "cli::talk"),
    ("src/daemon/init.rs", "cli"),
    ("src/daemon/init.rs", "client"),
    ("src/doctor/machine.rs", "client"),
    // Circles.
    ("src/cli/failure.rs", "cli::service"),
    ("src/cli/login.rs", "cli::exec"),
    ("src/oidc/error.rs", "provider"),
    ("src/oidc/session.rs", "provider"),
    ("src/provider/aws_metadata.rs", "provider::aws_credentials"),
    ("src/provider/aws_sts.rs", "provider::aws_credentials"),
    ("src/server/metrics.rs", "server::state"),
];

/// One `use` or path in a file's code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    file: String,
    /// The module that the file is, such as ["oidc", "session"].
    from: Vec<String>,
    /// The module that it uses.
    to: Vec<String>,
}

impl Import {
    fn is_known(&self) -> bool {
        KNOWN.iter().any(|(file, to)| *file == self.file && *to == self.to.join("::"))
    }
}

#[test]
fn every_module_is_in_the_table_and_every_row_is_a_module() {
    let table: BTreeSet<_> = table().into_keys().collect();
    let modules: BTreeSet<_> = modules().into_iter().filter(|path| path.len() == 1).flatten().collect();
    assert_eq!(table, modules, "left: ARCHITECTURE.md, right: src/");
}

#[test]
fn imports_point_up_the_table_only() {
    let table = table();
    let mut wrong = Vec::new();
    for import in imports() {
        let (from, to) = (&import.from[0], &import.to[0]);
        let (Some(own), Some(used)) = (table.get(from), table.get(to)) else { continue };
        let points_up = match (own, used) {
            (_, _) if from == to => true,
            (Level::Number(own), Level::Number(used)) => used <= own,
            (Level::Number(_), Level::Beside) => false,
            (Level::Beside, _) => true,
        };
        if !points_up && !import.is_known() {
            wrong.push(format!("{} ({own:?}) uses {} ({used:?})", import.file, import.to.join("::")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_is_no_circle() {
    let imports = imports();
    let mut rooms: BTreeSet<Vec<String>> = BTreeSet::from([Vec::new()]);
    rooms.extend(
        modules().into_iter().filter(|path| path.len() > 1).map(|path| path[..path.len() - 1].to_vec()),
    );
    rooms.retain(|room| room.first().is_none_or(|first| first != "sandbox"));
    let mut wrong = Vec::new();
    for room in rooms {
        let depth = room.len();
        let within = |import: &&Import| {
            let (from, to) = (&import.from, &import.to);
            from.len() > depth
                && to.len() > depth
                && from[..depth] == room[..]
                && to[..depth] == room[..]
                && from[depth] != to[depth]
                && !import.is_known()
        };
        let mut edges: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        for import in imports.iter().filter(within) {
            let uses = edges.entry(&import.from[depth]).or_default();
            uses.entry(&import.to[depth]).or_default().insert(&import.file);
        }
        for circle in circles(&edges) {
            let steps = circle.windows(2).map(|pair| {
                let files: Vec<_> = edges[pair[0]][pair[1]].iter().copied().collect();
                format!("  {} -> {} ({})", pair[0], pair[1], files.join(", "))
            });
            let room = if room.is_empty() { "the crate".to_owned() } else { room.join("::") };
            wrong.push(format!("in {room}:\n{}", steps.collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_known_is_still_there() {
    let imports = imports();
    for (file, to) in KNOWN {
        let there = imports.iter().any(|import| import.file == *file && import.to.join("::") == *to);
        assert!(there, "{file} no longer uses {to}: take it out of KNOWN");
    }
}

#[test]
fn the_command_knows_only_what_the_table_says() {
    let text = text("ARCHITECTURE.md");
    let row = text.lines().find(|line| line.starts_with("| beside |")).expect("a row `beside`");
    let Some((_, rest)) = row.split_once("the command knows ") else { panic!("it no longer says: {row}") };
    let (named, _) = rest.split_once(" only").expect("`only` after what the command knows");
    let allowed: BTreeSet<_> = code_spans(named).collect();
    let wrong: BTreeSet<_> = imports()
        .into_iter()
        .filter(|import| import.from[0] == "cli" && import.to[0] != "cli")
        .filter(|import| !allowed.contains(import.to[0].as_str()) && !import.is_known())
        .map(|import| format!("{} uses {}", import.file, import.to.join("::")))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Number(u32),
    Beside,
}

/// Each top-level module's level, as ARCHITECTURE.md says: rows `| 0 words | `token` `clock` ... | ... |`.
fn table() -> BTreeMap<String, Level> {
    let mut table = BTreeMap::new();
    for line in text("ARCHITECTURE.md").lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, level, modules, ..] = cells[..] else { continue };
        let level = match level.split(' ').next().unwrap_or_default() {
            "beside" => Level::Beside,
            number => match number.parse() {
                Ok(number) => Level::Number(number),
                Err(_) => continue,
            },
        };
        for module in code_spans(modules).filter(|module| !module.contains('/')) {
            assert!(table.insert(module.to_owned(), level).is_none(), "{module} is in the table twice");
        }
    }
    assert!(table.len() > 10, "the table was not found");
    table
}

fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Every module that is a file, as a path.
fn modules() -> BTreeSet<Vec<String>> {
    Source::all().iter().filter_map(|source| module_of(&source.path)).collect()
}

/// None for the crate's root and the programs.
fn module_of(path: &Path) -> Option<Vec<String>> {
    let path = path.strip_prefix("src").ok()?.with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().expect("a name").to_owned()).collect();
    (parts[0] != "lib" && parts[0] != "bin").then(|| {
        let own = parts.last().is_some_and(|last| last == "mod");
        parts[..parts.len() - usize::from(own)].to_vec()
    })
}

fn imports() -> BTreeSet<Import> {
    let modules = modules();
    let mut imports = BTreeSet::new();
    for source in Source::all() {
        let Some(from) = module_of(&source.path) else { continue };
        for path in paths(&source.code, &from) {
            // The longest beginning that is a file: the rest are items.
            let to =
                (1..=path.len()).rev().map(|length| &path[..length]).find(|path| modules.contains(*path));
            if let Some(to) = to.filter(|to| **to != from[..]) {
                let file = source.path.display().to_string();
                imports.insert(Import { file, from: from.clone(), to: to.to_vec() });
            }
        }
    }
    imports
}

/// Paths from the crate's root that the code of module `own` names: all that begin with `crate`, `self` or `super`.
fn paths(code: &str, own: &[String]) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins = at == 0 || tokens[at - 1] != "::";
        let start = match token.as_str() {
            "crate" => Vec::new(),
            "self" => own.to_vec(),
            "super" => own[..own.len() - 1].to_vec(),
            _ => continue,
        };
        if begins && tokens.get(at + 1).is_some_and(|next| next == "::") {
            tree(&tokens, at + 2, start, &mut paths);
        }
    }
    paths
}

/// Reads what follows `::`: a name, a list in braces, or `*`. Gives the position after it.
fn tree(tokens: &[String], mut at: usize, mut path: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let before = at;
                    at = tree(tokens, at, path.clone(), paths);
                    // `as name`, commas.
                    while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                        at += 1;
                    }
                    at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
                    assert!(at > before, "no end of a list");
                }
                return at + 1;
            }
            Some("super") => {
                path.pop();
            }
            Some("self") => {}
            Some(name) if name.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                path.push(name.to_owned());
            }
            _ => {
                paths.push(path);
                return at + 1;
            }
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            paths.push(path);
            return at;
        }
        at += 1;
    }
}

/// Names, `::`, and single characters.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(first) = chars.next() {
        let mut token = String::from(first);
        if first.is_alphanumeric() || first == '_' {
            while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
                token.push(next);
            }
        } else if first == ':' && chars.next_if_eq(&':').is_some() {
            token.push(':');
        } else if first.is_whitespace() {
            continue;
        }
        tokens.push(token);
    }
    tokens
}

/// One circle for each set of parts that reach one another, the shortest through its first part.
fn circles<'a, T>(edges: &BTreeMap<&'a str, BTreeMap<&'a str, T>>) -> Vec<Vec<&'a str>> {
    let mut circles = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for start in edges.keys().copied() {
        if seen.contains(start) {
            continue;
        }
        let mut ways = vec![vec![start]];
        let mut visited = BTreeSet::new();
        'search: while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                let Some(next) = edges.get(way.last().expect("a start")) else { continue };
                for part in next.keys().copied() {
                    let longer_way = [way.clone(), vec![part]].concat();
                    if part == start {
                        seen.extend(longer_way.iter().copied());
                        circles.push(longer_way);
                        break 'search;
                    }
                    if visited.insert(part) {
                        longer.push(longer_way);
                    }
                }
            }
            ways = longer;
        }
    }
    circles
}

#[test]
fn use_trees_and_inline_paths_are_read() {
    let own = ["a".to_owned(), "b".to_owned()];
    let code = "use crate::{x::{self, Y}, z as w}; use super::{c, d::E}; use self::f::*; fn g() { crate::h::i(super::super::j()) }";
    let found: Vec<_> = paths(code, &own).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["x", "x::Y", "z", "a::c", "a::d::E", "a::b::f", "h::i", "j"]);
}

#[test]
fn a_circle_is_found_and_a_diamond_is_none() {
    let edges = |pairs: &[(&'static str, &'static str)]| {
        let mut edges: BTreeMap<&str, BTreeMap<&str, ()>> = BTreeMap::new();
        for (from, to) in pairs {
            edges.entry(from).or_default().insert(to, ());
        }
        circles(&edges)
    };
    assert_eq!(edges(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]), [vec!["a", "b", "c", "a"]]);
    assert!(edges(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]).is_empty());
}
