//! `include/ioasd.h` is what the declarations say.
//!
//! `IOASD_BLESS=1 cargo test -p ioasd-c --test header` writes it anew.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

fn header() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../include/ioasd.h")
}

fn generated() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_config(config).with_crate(folder).generate().unwrap();
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_header_is_what_the_declarations_say() {
    let generated = generated();
    if std::env::var_os("IOASD_BLESS").is_some() {
        fs::write(header(), &generated).unwrap();
    }
    let there = fs::read_to_string(header()).unwrap_or_default();
    assert!(
        there == generated,
        "include/ioasd.h is stale: IOASD_BLESS=1 cargo test -p ioasd-c --test header"
    );
}
