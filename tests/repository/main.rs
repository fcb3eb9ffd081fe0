//! What the repository says of itself, held against itself: the level table of ARCHITECTURE.md against the imports, and
//! every command that a message or a page names against our own parsers, every link against what is there.

mod commands;
mod examples;
mod links;
mod mentions;
mod reasons;
mod sentences;
mod source;
mod structure;
mod variables;
