//! The list of mutations does not rot: each of them still applies.
#![expect(clippy::expect_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;

const LIST: &str = include_str!("list.txt");

struct Mutation<'a> {
    name: &'a str,
    file: &'a str,
    old: &'a str,
    new: &'a str,
}

fn parse(text: &str) -> Mutation<'_> {
    let (name, rest) = text.split_once("\nfile: ").expect("a file");
    let (file, rest) = rest.split_once("\n--- old\n").expect("the old text");
    let (old, rest) = rest.split_once("\n--- new\n").expect("the new text");
    let (new, _) = rest.split_once("--- end\n").expect("an end");
    Mutation { name, file, old, new: new.trim_end_matches('\n') }
}

fn mutations() -> Vec<Mutation<'static>> {
    LIST.split("\n== ").skip(1).map(parse).collect()
}

#[test]
fn every_mutation_still_applies_to_exactly_one_place() {
    for Mutation { name, file, old, new } in mutations() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let code = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
        assert_eq!(code.matches(old).count(), 1, "{name}: how often its old text occurs in {file}");
        assert_ne!(old, new, "{name} changes nothing");
    }
}

#[test]
fn there_are_enough_of_them_and_each_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = mutations().iter().map(|mutation| mutation.name).collect();
    assert_eq!(names.len(), mutations().len());
    assert!(names.len() >= 20, "{} mutations", names.len());
}
