//! What a child says on its standard output: words for people, and milestones, which are lines that begin with `@`.
//!
//! Imports allowed: `std`.

use std::fmt;
use std::io::{self, Write};
use std::time::Instant;

/// A point in the demo that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Milestone {
    /// A device has read all, and has written its page.
    Used,
    /// All devices have.
    AllUsed,
}

impl Milestone {
    const ALL: [Self; 2] = [Self::Used, Self::AllUsed];

    const fn name(self) -> &'static str {
        match self {
            Self::Used => "@used",
            Self::AllUsed => "@all-used",
        }
    }
}

impl fmt::Display for Milestone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A line, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'l> {
    /// For people.
    Words(&'l str),
    /// For whoever waits.
    Reached(Milestone),
}

impl<'l> Said<'l> {
    pub(super) fn of(line: &'l str) -> Self {
        let milestone = Milestone::ALL.into_iter().find(|milestone| milestone.name() == line);
        milestone.map_or(Self::Words(line), Self::Reached)
    }
}

/// Says a line.
pub(super) fn say(line: impl fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Says what `who` did.
pub(super) fn tell(who: impl fmt::Display, what: impl fmt::Display) -> io::Result<()> {
    say(format_args!("{:<10}{what}", who.to_string()))
}

/// The time since `start`, for people.
pub(super) fn since(start: Instant) -> String {
    format!("{:.1} ms", start.elapsed().as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milestones_are_told_from_words() {
        for milestone in Milestone::ALL {
            assert_eq!(Said::of(&milestone.to_string()), Said::Reached(milestone));
        }
        assert_eq!(Said::of("@other"), Said::Words("@other"));
        assert_eq!(Said::of("device 1  read"), Said::Words("device 1  read"));
    }
}
