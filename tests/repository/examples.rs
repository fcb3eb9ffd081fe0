//! Every configuration that a page shows is one that the daemon takes.

use wandb_cred::config::Config;

use crate::source::{files_in, text};

#[test]
fn every_configuration_on_a_page_is_valid() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in files_in("docs").into_iter().filter(|page| page.extension().is_some_and(|is| is == "md")) {
        let text = text(&page);
        for block in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            count += 1;
            let problem = match Config::parse(&complete(block)) {
                Ok(config) => config.broken.values().next().map(|error| format!("{error:?}")),
                Err(error) => Some(format!("{error:?}")),
            };
            wrong.extend(problem.map(|problem| format!("{}: {problem} in\n{block}", page.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 15, "only {count} configurations were found");
}

/// A page that is about something else leaves the provider out.
fn complete(block: &str) -> String {
    let whole = block.contains("provider.") || block.contains("upstream");
    if whole { block.to_owned() } else { format!("{block}\n[profile.work.provider.file]\npath = '/x'\n") }
}
