//! The terminal's other screen: what was there before comes back at the end, also after an error or a panic.
//!
//! Imports allowed: `std`.

use std::io::{self, Write};

/// Goes to the other screen and hides the cursor.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";

/// Shows the cursor and goes back.
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

/// The other screen, while it is shown.
pub(super) struct Screen(());

impl Screen {
    /// Goes there.
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub(super) fn open() -> io::Result<Self> {
        put(OPEN)?;
        Ok(Self(()))
    }

    /// Shows these lines and nothing else, without a moment at which nothing is shown.
    ///
    /// # Errors
    /// If the terminal cannot be written to.
    pub(super) fn show(&mut self, text: &str) -> io::Result<()> {
        let lines: Vec<String> = text.lines().map(|line| format!("{line}\x1b[K")).collect();
        put(&format!("\x1b[H{}\x1b[J", lines.join("\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Whoever has closed the terminal does not need it back.
        put(CLOSE).unwrap_or_default();
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
