//! Writes the manual pages of `wandb-cred` from its own help: `cargo run --example man -- man`.
//!
//! The result is committed, so that packages need no build step for it; a test fails if it is stale.

use std::error::Error;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: man FOLDER")?;
    for (name, page) in pages()? {
        std::fs::write(Path::new(&folder).join(name), page)?;
    }
    Ok(())
}

/// File name and text of each page.
pub(crate) fn pages() -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut command = wandb_cred::cli::command();
    command.build();
    let mut pages = vec![("wandb-cred.1".to_owned(), page(&command, "wandb-cred", SECTIONS)?)];
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let name = format!("wandb-cred-{}", subcommand.get_name());
        pages.push((format!("{name}.1"), page(subcommand, &name, SEE_ALSO)?));
    }
    Ok(pages)
}

fn page(command: &Command, name: &str, end: &str) -> Result<String, Box<dyn Error>> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone().display_name(name.to_owned()));
    let mut body = Vec::new();
    man.render_name_section(&mut body)?;
    man.render_synopsis_section(&mut body)?;
    man.render_description_section(&mut body)?;
    man.render_options_section(&mut body)?;
    // No date: the pages change with the command line and with nothing else.
    let version = concat!("wandb\\-cred ", env!("CARGO_PKG_VERSION"));
    let mut page = format!(".TH {} 1 \"\" \"{version}\" \"{MANUAL}\"\n", escape(&name.to_uppercase()));
    page += &String::from_utf8(body)?;
    if command.has_subcommands() {
        page += ".SH COMMANDS\n";
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            let reference = if name == "wandb-cred" {
                format!("\nSee \\fBwandb\\-cred\\-{}\\fR(1).", subcommand.get_name())
            } else {
                String::new()
            };
            page += &format!(".TP\n\\fB{}\\fR\n{}.{reference}\n", subcommand.get_name(), escape(&about));
        }
    }
    page += &sections(&after);
    page += end;
    Ok(page)
}

/// The text after the help: "Heading:" and indented lines become a section.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        match paragraph.split_once(":\n") {
            Some((heading, lines)) if lines.lines().all(|line| line.starts_with("  ")) => {
                let heading = if heading == "Try" { "EXAMPLES".to_owned() } else { heading.to_uppercase() };
                roff += &format!(".SH {heading}\n.nf\n");
                for line in lines.lines() {
                    roff += &format!("{}\n", escape(line.strip_prefix("  ").unwrap_or(line)));
                }
                roff += ".fi\n";
            }
            // The pages have this as a section.
            _ if paragraph.starts_with("Exit codes: 0 success") => {}
            _ => roff += &format!(".PP\n{}\n", escape(paragraph)),
        }
    }
    roff
}

fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    text.lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

const MANUAL: &str = "Weights & Biases credentials";

const SECTIONS: &str = include_str!("../man/wandb-cred.sections");

const SEE_ALSO: &str = ".SH SEE ALSO
.BR wandb\\-cred (1),
.BR wandb\\-credd (8),
.BR wandb\\-cred\\-config (5)
";
