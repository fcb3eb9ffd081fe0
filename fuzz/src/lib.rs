//! What the fuzz targets do with an input. The program's tests replay the corpus with the same functions
//! (`tests/corpus.rs`), so this crate's sources name nothing but the program and its dependencies.

pub mod grow;
pub mod measure;
pub mod proxy;
pub mod targets;

use self::grow::Grow;

/// A reader of foreign bytes.
pub struct Target {
    /// As its file in `fuzz_targets/` and its folder in `corpus/` are called.
    pub name: &'static str,
    /// Reads the input as the program does, and panics if the result breaks a promise.
    pub run: fn(&[u8]),
    /// How a small input becomes a large one of the same kind.
    pub grow: Grow,
    /// How large: about what the program takes at most.
    pub size: usize,
}

pub const TARGETS: &[Target] = &[
    Target { name: "config", run: targets::config, grow: grow::toml, size: 64 * 1024 },
    Target { name: "discovery", run: targets::discovery, grow: grow::json, size: 64 * 1024 },
    Target { name: "feed_line", run: targets::feed_line, grow: grow::json, size: 64 * 1024 },
    Target { name: "http_head", run: targets::http_head, grow: grow::text, size: 16 * 1024 },
    Target { name: "id_token", run: targets::id_token, grow: grow::json, size: 40 * 1024 },
    Target { name: "jwt", run: targets::jwt, grow: grow::json, size: 40 * 1024 },
    Target { name: "provider_output", run: targets::provider_output, grow: grow::json, size: 64 * 1024 },
    Target { name: "proxy_head", run: proxy::head, grow: grow::text, size: 64 * 1024 },
    Target { name: "proxy_rewrite", run: proxy::rewrite, grow: grow::text, size: 64 * 1024 },
    Target { name: "redact", run: targets::redact, grow: grow::text, size: 64 * 1024 },
    Target { name: "token_answer", run: targets::token_answer, grow: grow::json, size: 64 * 1024 },
];

/// What a fuzzer does with an input: one in sixteen is tried at full size too. Which ones depends on the input alone, so
/// that a found one fails again.
pub fn fuzz(name: &str, input: &[u8]) {
    let target = find(name);
    measure::in_linear_time(target.run, input);
    let hash = input.iter().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    if hash.is_multiple_of(16) {
        grown(target, input);
    }
}

/// What the tests do with a file of the corpus.
pub fn replay(name: &str, input: &[u8]) {
    let target = find(name);
    measure::in_linear_time(target.run, input);
    grown(target, input);
}

/// In steps, so that a reader that is too slow is found before it takes minutes.
fn grown(target: &Target, input: &[u8]) {
    for part in [64, 8, 1] {
        for large in (target.grow)(input, target.size / part) {
            measure::in_linear_time(target.run, &large);
        }
    }
}

fn find(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}
