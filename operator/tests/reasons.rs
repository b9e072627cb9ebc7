//! Every reason is set somewhere, and the page that people look it up in has it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use std::fs;
use std::path::Path;

fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_reason_is_set_somewhere_and_told_in_the_reference() {
    let operator = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&operator.join("src"), &mut code);
    let page = fs::read_to_string(operator.join("../docs/reference/conditions.md")).unwrap();
    let reasons = fs::read_to_string(operator.join("../crds/src/reasons.rs")).unwrap();
    let constants: Vec<_> = reasons
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": &str = "))
        .map(|(name, value)| (name, value.trim_matches(['"', ';'])))
        .collect();
    assert!(constants.len() > 20, "{constants:?}");
    for (name, value) in constants {
        let used = code
            .split(&format!("reasons::{name}"))
            .skip(1)
            .any(|after| !after.starts_with(|next: char| next == '_' || next.is_ascii_alphanumeric()));
        assert!(used, "nobody sets {name}");
        assert!(page.contains(&format!("`{value}`")), "docs/reference/conditions.md has no {value}");
    }
}
