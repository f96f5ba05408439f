//! Every input that a fuzzer was started from, or has found, goes through its target once more.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use ioasd_client::wire::frame::{Reply, Request};
use ioasd_client::wire::fuzz::{fuzz_argument, fuzz_reply, fuzz_request};

/// The inputs of a target, with their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus")).join(target);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn run(target: &str, fuzz: fn(&[u8])) {
    for (path, bytes) in corpus(target) {
        println!("{}", path.display());
        fuzz(&bytes);
    }
}

#[test]
fn no_input_of_the_corpus_makes_a_decoder_panic() {
    run("request", fuzz_request);
    run("argument", fuzz_argument);
    run("reply", fuzz_reply);
}

#[test]
fn the_corpus_reaches_behind_the_headers() {
    let good = |target: &str, decodes: fn(&[u8]) -> bool| {
        corpus(target).iter().filter(|(_, bytes)| decodes(bytes)).count()
    };
    assert!(good("request", |bytes| Request::decode(bytes).is_ok()) > 10);
    assert!(good("reply", |bytes| Reply::decode(bytes).is_ok()) > 2);
    assert!(corpus("argument").len() > 10);
}
