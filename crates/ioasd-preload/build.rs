//! Leaves the shim without libraries but the C library: it is loaded into every process of the programs it serves, and
//! each library more costs each of them.

fn main() {
    // The standard library refers to an unwinder, which nothing in the shim reaches. It comes from the compiler's archive,
    // of which nothing remains, and not as a shared library.
    println!("cargo::rustc-link-lib=static:-bundle,+whole-archive=gcc_eh");
}
