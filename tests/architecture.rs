//! The house rules that can be checked by reading the source: who imports whom, where `unsafe` lives, how long files are.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the source must fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may import, besides itself and what everybody may: error, fault_points.
const ROOMS: [(&str, &[&str]); 10] = [
    ("storage", &[]),
    ("sys", &[]),
    ("sources", &["sys", "storage"]),
    ("domains", &["sys", "storage"]),
    ("actors", &["sys", "storage", "sources", "domains"]),
    ("uapi", &["sys", "storage", "sources", "domains", "actors"]),
    ("telemetry", &["sys", "storage", "actors"]),
    ("admin", &["sys", "storage", "actors", "telemetry"]),
    ("config", &["storage", "telemetry", "admin"]),
    ("cli", &["sys", "storage", "sources", "domains", "actors", "uapi", "telemetry", "admin", "config"]),
];

/// Modules that everybody may import.
const FOR_ALL: [&str; 3] = ["error", "fault_points", "skip"];

/// Where `unsafe` may be written.
const UNSAFE_ROOMS: [&str; 8] = [
    "src/sys/",
    "src/domains/arena.rs",
    "crates/ioasd-c/src/",
    "crates/ioasd-client/src/mapping.rs",
    "crates/ioasd-client/src/mapping/",
    "crates/ioasd-client/src/walker/reach.rs",
    "crates/ioasd-client/src/walker/vm_memory.rs",
    "crates/ioasd-preload/src/",
];

/// No file is longer.
const LINES_MAX: usize = 700;

/// Dependencies the client crate may have without being asked for a feature, so that linking it stays cheap.
const CLIENT_DEPENDENCIES: [&str; 2] = ["rustix", "thiserror"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// Code without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap_or_default())
}

/// The top-level modules of the crate that a file names.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in code(text) {
        for part in line.split("crate::").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.insert(name);
        }
    }
    found
}

fn room_of(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

#[test]
fn rooms_import_only_what_their_rule_allows() {
    let (mut checked, mut offences) = (0, Vec::new());
    for (file, text) in sources("src") {
        let Some((room, allowed)) = ROOMS.iter().find(|(room, _)| Some(*room) == room_of(&file)) else {
            continue;
        };
        checked += 1;
        for import in imports(&text) {
            let known = ROOMS.iter().any(|(room, _)| *room == import);
            if known && import != *room && !allowed.contains(&import.as_str()) {
                offences.push(format!("{file} imports {import}, {room} may not"));
            }
        }
    }
    assert!(checked > 50, "only {checked} files were looked at");
    assert_eq!(offences, Vec::<String>::new());
}

#[test]
fn what_everybody_imports_imports_no_room() {
    for name in FOR_ALL {
        let text = fs::read_to_string(root().join(format!("src/{name}.rs"))).unwrap();
        let rooms: Vec<_> =
            imports(&text).into_iter().filter(|import| !FOR_ALL.contains(&import.as_str())).collect();
        assert_eq!(rooms, Vec::<String>::new(), "{name} imports rooms");
    }
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let unsafe_code = |line: &str| {
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait"].iter().any(|word| line.contains(word))
    };
    let mut rooms_used = 0;
    for (file, text) in sources("src").into_iter().chain(sources("crates")) {
        let found = code(&text).any(unsafe_code);
        let allowed = UNSAFE_ROOMS.iter().any(|room| file.starts_with(room));
        assert!(!found || allowed, "{file} has unsafe code outside the rooms for it");
        rooms_used += usize::from(found);
    }
    assert!(rooms_used > 0, "the search finds no unsafe code at all");
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    for (file, text) in sources("src").into_iter().chain(sources("crates")) {
        let inner = file.contains("/tests/") || file.ends_with("tests.rs");
        assert!(inner || text.starts_with("//!"), "{file} does not begin with what it is");
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{file} has {lines} lines: split it by concept");
    }
}

#[test]
fn the_client_crate_stays_cheap_to_link() {
    let manifest = fs::read_to_string(root().join("crates/ioasd-client/Cargo.toml")).unwrap();
    let behind_head = manifest.split("[dependencies]\n").nth(1).unwrap();
    let table = behind_head.lines().take_while(|line| !line.starts_with('['));
    let dependencies: BTreeSet<&str> = table
        .filter(|line| !line.contains("optional = true"))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(dependencies, BTreeSet::from(CLIENT_DEPENDENCIES));
}
