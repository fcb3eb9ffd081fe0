//! Just enough of Rust's grammar to tell code, comments and string literals apart.

use std::path::{Path, PathBuf};

/// One file of src/.
pub(crate) struct Source {
    /// Relative to the repository.
    pub(crate) path: PathBuf,
    /// The code outside tests, without comments and with empty string literals.
    pub(crate) code: String,
    /// What is said to people, with its line: string literals outside tests, and comments.
    pub(crate) words: Vec<(usize, String)>,
}

impl Source {
    /// All files of src/, in order.
    pub(crate) fn all() -> Vec<Self> {
        let mut files = files_in("src");
        files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
        let (sources, tests): (Vec<_>, Vec<_>) = files.into_iter().map(Self::read).unzip();
        let tests = tests.concat();
        sources.into_iter().filter(|source| !tests.contains(&source.path)).collect()
    }

    /// Beside it, the files that are its tests.
    fn read(path: PathBuf) -> (Self, Vec<PathBuf>) {
        let text = text(&path);
        let mut source = Self { path, code: String::new(), words: Vec::new() };
        source.lex(&text);
        let folder = source.path.with_extension("");
        let tests = source.drop_tests().into_iter().map(|name| folder.join(name).with_extension("rs"));
        let tests = tests.collect();
        (source, tests)
    }

    fn lex(&mut self, text: &str) {
        let mut rest = text;
        let line = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
        while let Some(first) = rest.chars().next() {
            let length = if rest.starts_with("//") {
                let end = rest.find('\n').unwrap_or(rest.len());
                self.words.push((line(rest), rest[..end].trim_start_matches(['/', '!']).to_owned()));
                end
            } else if let Some((length, content)) = string_literal(rest) {
                self.words.push((line(rest), content));
                self.code += "\"\"";
                length
            } else if let Some(length) = char_literal(rest) {
                self.code += "' '";
                length
            } else {
                self.code.push(first);
                first.len_utf8()
            };
            // So that a line of `code` is a line of the file.
            if length > 1 {
                self.code.extend(rest[..length].chars().filter(|char| *char == '\n'));
            }
            rest = &rest[length..];
        }
    }

    /// Takes out each item under `#[cfg(test)]`, and what is said there. Gives the modules that are files of their own.
    fn drop_tests(&mut self) -> Vec<String> {
        let mut modules = Vec::new();
        while let Some(start) = self.code.find("#[cfg(test)]").or_else(|| self.code.find("#[cfg(all(test,")) {
            let end = end_of_item(&self.code[start..]) + start;
            let lines = |at: usize| self.code[..at].matches('\n').count() + 1;
            let (from, to) = (lines(start), lines(end));
            self.words.retain(|(line, _)| !(from..=to).contains(line));
            let item = &self.code[start..end];
            let name = item.split_once("mod ").and_then(|(_, rest)| rest.strip_suffix(';'));
            modules.extend(name.map(str::to_owned));
            let kept: String = item.chars().filter(|char| *char == '\n').collect();
            self.code.replace_range(start..end, &kept);
        }
        modules
    }
}

/// Files below a folder of the repository, in order.
pub(crate) fn files_in(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(root().join(&folder)).expect("a folder");
        for entry in entries.map(|entry| entry.expect("readable")) {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The length of the string literal that `rest` begins with, and what is in it.
fn string_literal(rest: &str) -> Option<(usize, String)> {
    let opening = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    let prefix = rest.len() - opening.len();
    if let Some(raw) = opening.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw[hashes..].strip_prefix('"')?;
        let end = inner.find(&format!("\"{}", "#".repeat(hashes)))?;
        return Some((prefix + 1 + hashes + 1 + end + 1 + hashes, inner[..end].to_owned()));
    }
    let inner = opening.strip_prefix('"')?;
    let mut content = String::new();
    let mut chars = inner.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((prefix + 1 + at + 1, content)),
            '\\' => match chars.next()?.1 {
                'n' => content.push('\n'),
                't' => content.push('\t'),
                // A line that goes on below.
                '\n' => while chars.next_if(|(_, char)| char.is_whitespace()).is_some() {},
                other => content.push(other),
            },
            other => content.push(other),
        }
    }
    None
}

/// Its length; a lifetime is none.
fn char_literal(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        let end = inner[2..].find('\'')?;
        return Some(1 + 2 + end + 1);
    }
    inner[first.len_utf8()..].starts_with('\'').then_some(1 + first.len_utf8() + 1)
}

/// Where the item ends that `code` begins with, attributes included.
fn end_of_item(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, char) in code.char_indices() {
        match char {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && char == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn strings_chars_lifetimes_and_comments_are_told_apart() {
    let text = r##"
fn f<'a>(x: &'a str) -> char { let _ = "a \"quoted\" // word"; '"' } // said "here"
const RAW: &str = r#"b "c""#; const LONG: &str = "one \
    two";
#[cfg(test)]
mod tests { const HIDDEN: &str = "hidden"; }
fn g() {}
"##;
    let mut source = Source { path: PathBuf::new(), code: String::new(), words: Vec::new() };
    source.lex(text);
    source.drop_tests();
    let words: Vec<_> = source.words.iter().map(|(line, words)| (*line, words.as_str())).collect();
    assert_eq!(
        words,
        [(2, r#"a "quoted" // word"#), (2, r#" said "here""#), (3, r#"b "c""#), (3, "one two")]
    );
    assert!(source.code.contains("fn g()") && !source.code.contains("HIDDEN"), "{}", source.code);
}
