//! Links between our pages lead somewhere: to a file, and to a heading in it. Addresses of others are asked by `scripts/docs --external`.

use std::path::{Component, Path, PathBuf};

use crate::source::{files_in, root, text};

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages() {
        for target in targets(&text(&page)) {
            count += 1;
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { page.clone() } else { within(&page, file) };
            if !root().join(&path).exists() {
                wrong.push(format!("{}: {target}: no such file", page.display()));
            } else if !heading.is_empty() && !headings(&text(&path)).iter().any(|found| found == heading) {
                wrong.push(format!("{}: {target}: no such heading", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} links were found");
}

#[test]
fn every_page_is_a_chapter_and_each_of_docs_is_linked_from_the_readme() {
    let linked = |page: &str| -> Vec<_> {
        let targets = targets(&text(page));
        targets
            .iter()
            .map(|target| within(Path::new(page), target.split('#').next().unwrap_or_default()))
            .collect()
    };
    let (chapters, readme) = (linked("docs/SUMMARY.md"), linked("README.md"));
    for page in pages().iter().filter(|page| !page.ends_with("SUMMARY.md")) {
        assert!(chapters.contains(page), "{} is not in docs/SUMMARY.md", page.display());
        let linked = readme.contains(page) || !page.starts_with("docs");
        assert!(linked, "{} is not linked from README.md", page.display());
    }
}

fn pages() -> Vec<PathBuf> {
    let tops = ["README.md", "SECURITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let mut pages = tops.map(PathBuf::from).to_vec();
    pages.extend(["docs", "contrib"].map(files_in).concat());
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages
}

/// What the links and pictures of a page name, in this repository.
fn targets(page: &str) -> Vec<String> {
    let prose = without_code(page);
    let ends = prose.match_indices("](").map(|(at, opening)| &prose[at + opening.len()..]);
    let targets = ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.trim().to_owned());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// As GitHub and mdBook make them: lower case, hyphens for spaces, no punctuation.
fn headings(page: &str) -> Vec<String> {
    let lines = blocks(page).filter(|(code, line)| !code && line.starts_with('#'));
    let titles = lines.map(|(_, line)| line.trim_start_matches('#').trim().to_lowercase());
    let kept = |char: char| char.is_alphanumeric() || "-_ ".contains(char);
    titles
        .map(|title| title.chars().filter(|char| kept(*char)).collect::<String>().replace(' ', "-"))
        .collect()
}

/// Each line, and whether it is within a block of code.
fn blocks(page: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut code = false;
    page.lines().map(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        (code || fence, line)
    })
}

fn without_code(page: &str) -> String {
    let lines: Vec<_> = blocks(page).filter(|(code, _)| !code).map(|(_, line)| line).collect();
    // `code` in a line: every second piece.
    lines.join("\n").split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// `target` as it is seen from the folder of `page`.
fn within(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
    }
    path
}

#[test]
fn links_and_headings_are_found() {
    let page = "# A & B: c\nsee [x](y.md#z), ![p](p.svg) and `[no](link)`\n```\n# no heading\n[no](link)\n```\n[far](https://x.example)";
    assert_eq!(targets(page), ["y.md#z", "p.svg"]);
    assert_eq!(headings(page), ["a--b-c"]);
    assert_eq!(within(Path::new("docs/a.md"), "../b/c.md"), Path::new("b/c.md"));
}
