//! The messages that docs/troubleshooting.md explains are messages that the programs can show.

use crate::source::{Source, text};

#[test]
fn every_message_that_is_explained_is_one_of_ours() {
    let page = text("docs/troubleshooting.md");
    let (_, ours) = page.split_once("## From wandb-cred\n").expect("the part on our messages");
    let (ours, _) = ours.split_once("\n## ").expect("another part after it");
    let said: Vec<_> =
        Source::all().into_iter().flat_map(|source| source.words).map(|(_, words)| words).collect();
    let headings: Vec<_> = ours.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert!(headings.len() > 5, "only {} messages were found", headings.len());
    for heading in headings {
        // … stands for something of the user's.
        for part in heading.trim_matches('`').split('…') {
            assert!(said.iter().any(|words| words.contains(part)), "nobody says {part:?} of {heading}");
        }
    }
}
