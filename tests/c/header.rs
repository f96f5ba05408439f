//! The header in every dialect, and the library against it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::library::{compiles, file, libraries, prefix, succeeded};

#[test]
fn the_header_is_good_c99_c11_and_cpp() {
    if !compiles("cc", &[]) {
        return ioasd::skip!("the_header_is_good_c99_c11_and_cpp: there is no cc here");
    }
    let dialects = [("cc", "c", "c99"), ("cc", "c", "c11"), ("c++", "c++", "c++11"), ("c++", "c++", "c++20")];
    for (compiler, language, standard) in dialects {
        if !compiles(compiler, &[]) {
            ioasd::skip!("the header as {standard}: there is no {compiler} here");
            continue;
        }
        let mut check = Command::new(compiler);
        check.args(["-fsyntax-only", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"]);
        check.args(["-x", language, &format!("-std={standard}")]).arg(file("include/ioasd.h"));
        succeeded(&check.output().unwrap());
    }
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let text = fs::read_to_string(file("include/ioasd.h")).unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with('*'));
    let names = code.filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next());
    names.filter(|name| name.starts_with("ioasd_")).map(str::to_owned).collect()
}

#[test]
fn the_library_exports_what_the_header_declares_and_no_more() {
    let library = libraries().join("libioasd.so");
    let Ok(listed) = Command::new("nm").args(["--dynamic", "--defined-only"]).arg(&library).output() else {
        return ioasd::skip!("the_library_exports_what_the_header_declares_and_no_more: there is no nm here");
    };
    let listed = succeeded(&listed);
    let exported: BTreeSet<String> =
        listed.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect();
    assert!(declared().len() > 40, "the header was not understood");
    assert_eq!(exported, declared());
}

#[test]
fn the_library_has_the_name_that_the_header_promises() {
    let Ok(dynamic) = Command::new("readelf").arg("-d").arg(libraries().join("libioasd.so")).output() else {
        return ioasd::skip!("the_library_has_the_name_that_the_header_promises: there is no readelf here");
    };
    let header = fs::read_to_string(prefix().join("include/ioasd.h")).unwrap();
    let abi = header.lines().find_map(|line| line.strip_prefix("#define IOASD_ABI ")).unwrap();
    let soname = format!("Library soname: [libioasd.so.{abi}]");
    assert!(succeeded(&dynamic).contains(&soname), "no {soname}");
}
