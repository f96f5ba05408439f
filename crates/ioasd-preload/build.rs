//! Keeps the shim small and without libraries but the C library: it is loaded into every process of the programs it serves,
//! and each library, page and relocation more costs each of them.

use std::env;

fn main() {
    // The standard library refers to an unwinder, which nothing in the shim reaches. It comes from the compiler's archive,
    // of which nothing remains, and not as a shared library.
    println!("cargo::rustc-link-lib=static:-bundle,+whole-archive=gcc_eh");
    // GNU ld drops what nothing reaches where LLVM's keeps it because of that archive: an eighth of the size is left.
    if has_gnu_ld() {
        println!("cargo::rustc-cdylib-link-arg=-fuse-ld=bfd");
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,noseparate-code");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PATH");
}

fn has_gnu_ld() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join("ld.bfd").exists())
}
