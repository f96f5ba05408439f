//! Gives the shared library the name that programs ask the loader for. Its number is `IOASD_ABI`.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libioasd.so.0");
    println!("cargo::rerun-if-changed=build.rs");
}
