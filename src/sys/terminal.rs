//! The terminal of this process, for what shows itself again and again: keys one by one, and how large it is.
//!
//! While a [`Keys`] lives the terminal tells each key at once and does not show it; what it was before comes back when it is
//! dropped, also after a panic.
//!
//! Imports allowed: `std`, rustix.

use std::io::{self, IsTerminal, Stdin, Stdout};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// How many lines and columns there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub lines: usize,
    /// Columns.
    pub columns: usize,
}

/// How large the terminal is that `out` shows itself on; `None` if it is none.
#[must_use]
pub fn size(out: &Stdout) -> Option<Size> {
    let size =
        tcgetwinsize(out).ok().filter(|size| out.is_terminal() && size.ws_row > 0 && size.ws_col > 0)?;
    Some(Size { lines: usize::from(size.ws_row), columns: usize::from(size.ws_col) })
}

/// Keys of the terminal, one by one.
pub struct Keys {
    input: Stdin,
    before: Termios,
}

impl Keys {
    /// Of the terminal that is standard input; `None` if that is none.
    ///
    /// # Errors
    /// If the terminal does not do as it is told.
    pub fn take() -> io::Result<Option<Self>> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&input)?;
        let mut changed = before.clone();
        // Ctrl-C comes as a key, so that what was shown is tidied up before the end.
        changed.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        changed.special_codes[SpecialCodeIndex::VMIN] = 1;
        changed.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&input, OptionalActions::Now, &changed)?;
        Ok(Some(Self { input, before }))
    }

    /// The keys pressed, as bytes, as soon as there are any; empty when `patience` is over. The end of the input is that of
    /// a terminal that has gone: it reads as the byte 4, as Ctrl-D does.
    ///
    /// # Errors
    /// If the terminal cannot be read.
    pub fn wait(&self, patience: Duration) -> io::Result<Vec<u8>> {
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        let pressed = poll(&mut [PollFd::new(&self.input, PollFlags::IN)], Some(&patience));
        match pressed {
            Ok(0) | Err(Errno::INTR) => Ok(Vec::new()),
            Ok(_) => {
                let mut keys = [0; 64];
                let count = read(&self.input, &mut keys)?;
                Ok(if count == 0 { vec![4] } else { keys.get(..count).unwrap_or_default().to_vec() })
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.input, OptionalActions::Now, &self.before) {
            tracing::debug!(%error, "the terminal stays as it is");
        }
    }
}
