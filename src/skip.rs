//! How a test that cannot run here says so: past the capture of a test's output, in one form that `.ci/run` counts.
//!
//! Imports allowed: `std`. Tests alone use this module.

use std::fmt;
use std::io::{self, Write};

/// Says on standard error that something was not tested. See [`skip!`](macro@crate::skip).
pub fn say(what: fmt::Arguments<'_>) {
    let said = writeln!(io::stderr(), "SKIP: {what}");
    debug_assert!(said.is_ok(), "standard error is closed");
}

/// Says that a test, named first, does not run here, and why: `skip!("a_test: no huge pages")`.
#[macro_export]
macro_rules! skip {
    ($($what:tt)*) => {
        $crate::skip::say(format_args!($($what)*))
    };
}
