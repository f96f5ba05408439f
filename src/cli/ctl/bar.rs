//! How far something has come, as a bar of characters; and one on its own line that is drawn again and again.
//!
//! Imports allowed: `std`, table.

use std::io::{self, IsTerminal, Write};

use super::table::size;

/// Characters between the brackets.
const WIDTH: u64 = 16;

/// `done` of `total` as a bar; without a total, what is done.
pub(super) fn bar(done: u64, total: Option<u64>) -> String {
    match total {
        None | Some(0) if done == 0 => "-".to_owned(),
        None | Some(0) => size(done),
        Some(total) => {
            let full = part(done, total, WIDTH);
            let bar: String = (0..WIDTH).map(|place| if place < full { '#' } else { '.' }).collect();
            format!("[{bar}] {:>3} % of {}", part(done, total, 100), size(total))
        }
    }
}

/// `done` of `total`, in so many parts, rounded down: only what is complete looks complete.
fn part(done: u64, total: u64, parts: u64) -> u64 {
    let part = u128::from(done.min(total)) * u128::from(parts) / u128::from(total.max(1));
    u64::try_from(part).unwrap_or(parts)
}

/// A line of standard error that shows how far something has come, if that is a terminal.
pub(super) struct Line {
    shown: bool,
}

impl Line {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { shown: false }
    }

    /// Shows `text` in the place of what was shown before.
    pub(super) fn show(&mut self, text: &str) {
        let mut out = io::stderr().lock();
        if out.is_terminal() {
            // Nobody needs a bar who has closed the terminal.
            write!(out, "\r{text}\x1b[K").and_then(|()| out.flush()).unwrap_or_default();
            self.shown = true;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            write!(io::stderr(), "\r\x1b[K").unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_complete_looks_complete() {
        assert_eq!(bar(0, Some(4096)), "[................]   0 % of 4 KiB");
        assert_eq!(bar(2048, Some(4096)), "[########........]  50 % of 4 KiB");
        assert_eq!(bar(4095, Some(4096)), "[###############.]  99 % of 4 KiB");
        assert_eq!(bar(4096, Some(4096)), "[################] 100 % of 4 KiB");
        assert_eq!(bar(u64::MAX, Some(u64::MAX)).matches('#').count(), 16);
        assert_eq!((bar(8192, None), bar(0, None)), ("8 KiB".to_owned(), "-".to_owned()));
    }
}
