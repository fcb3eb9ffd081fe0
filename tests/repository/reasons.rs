//! openapi.yaml names every reason that a problem can carry.

use crate::source::text;

#[test]
fn openapi_lists_every_reason() {
    let source = text("src/error.rs");
    let (_, rest) = source.split_once("pub enum Reason {").expect("the enum");
    let (body, _) = rest.split_once("\n}").expect("its end");
    let variants = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()) && !line.starts_with("Other"));
    let codes: Vec<_> = variants.map(code).collect();
    let api = text("openapi.yaml");
    let (_, rest) = api.split_once("    Reason:\n").expect("the schema");
    let (_, rest) = rest.split_once("enum:\n").expect("its codes");
    let listed: Vec<_> = rest.lines().map_while(|line| line.trim().strip_prefix("- ")).collect();
    assert!(codes.len() > 20, "{codes:?}");
    assert_eq!(codes, listed, "left: src/error.rs, right: openapi.yaml");
}

/// `PlainHttp { .. }` is `plain-http` on the wire.
fn code(variant: &str) -> String {
    let mut code = String::new();
    for c in variant.chars().take_while(char::is_ascii_alphanumeric) {
        if c.is_ascii_uppercase() && !code.is_empty() {
            code.push('-');
        }
        code.push(c.to_ascii_lowercase());
    }
    code
}
