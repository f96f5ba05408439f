//! `ioasd ctl top`: who holds most, again and again.
//!
//! | file | what it is |
//! |---|---|
//! | `frame` | what is shown: asked, put in order, cut to the size of the terminal |
//! | `screen` | the terminal's other screen, given back at the end |
//!
//! On a terminal it shows itself until `q` or Ctrl-C. Elsewhere, and with `--once` or `-n`, it writes so many frames one behind
//! the other.
//!
//! Imports allowed: ask, table, sys::terminal.

mod frame;
mod screen;

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::frame::{Frame, Shape};
use self::screen::Screen;
use super::CtlError;
use super::ask::Agent;
use crate::sys::terminal::{self, Keys};

/// The flags of `ioasd ctl top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct TopArgs {
    /// What to show first; on a terminal the keys c, a, i and o change it.
    #[arg(value_enum, default_value_t)]
    pub view: View,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Write one frame and end.
    #[arg(long, conflicts_with = "frames")]
    pub once: bool,
    /// Write so many frames and end.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub frames: Option<u64>,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Contexts, those that have most pinned first.
    #[default]
    Contexts,
    /// Accounts, those that have most pinned first.
    Accounts,
    /// Address spaces, those that map most first.
    Ioas,
    /// Operations, the oldest first.
    Operations,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Quit,
    Show(View),
    Scroll(isize),
    Again,
}

impl Act {
    fn of(keys: &[u8]) -> Option<Self> {
        match keys {
            b"q" | b"Q" | [3 | 4] => Some(Self::Quit),
            b"c" => Some(Self::Show(View::Contexts)),
            b"a" => Some(Self::Show(View::Accounts)),
            b"i" => Some(Self::Show(View::Ioas)),
            b"o" => Some(Self::Show(View::Operations)),
            b"j" | b"\x1b[B" | b"\x1bOB" => Some(Self::Scroll(1)),
            b"k" | b"\x1b[A" | b"\x1bOA" => Some(Self::Scroll(-1)),
            b" " | b"\x1b[6~" => Some(Self::Scroll(10)),
            b"b" | b"\x1b[5~" => Some(Self::Scroll(-10)),
            b"r" => Some(Self::Again),
            _ => None,
        }
    }
}

/// Shows who holds most, as `args` say.
pub(super) fn top(agent: &Agent, args: TopArgs) -> Result<(), CtlError> {
    let wanted = if args.once { Some(1) } else { args.frames };
    let interval = Duration::from_secs(args.interval);
    let size = terminal::size(&io::stdout());
    let keys = if wanted.is_none() && size.is_some() { Keys::take()? } else { None };
    match keys {
        Some(keys) => live(agent, args.view, interval, &keys),
        None => write(agent, args.view, interval, wanted.unwrap_or(1)),
    }
}

/// So many frames, one behind the other.
fn write(agent: &Agent, view: View, interval: Duration, frames: u64) -> Result<(), CtlError> {
    for number in 0..frames {
        if number > 0 {
            thread::sleep(interval);
        }
        let mut out = io::stdout().lock();
        if number > 0 {
            writeln!(out)?;
        }
        out.write_all(Frame::of(agent, view)?.text(Shape::WHOLE).as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

/// Until somebody has seen enough.
fn live(agent: &Agent, mut view: View, interval: Duration, keys: &Keys) -> Result<(), CtlError> {
    let mut screen = Screen::open()?;
    let (mut frame, mut from) = (Frame::of(agent, view)?, 0_usize);
    loop {
        let size = terminal::size(&io::stdout());
        from = from.min(frame.rows().saturating_sub(1));
        screen.show(&frame.text(Shape { from, size }))?;
        let pressed = keys.wait(interval)?;
        match Act::of(&pressed) {
            Some(Act::Quit) => return Ok(()),
            Some(Act::Scroll(by)) => from = from.saturating_add_signed(by),
            Some(Act::Show(other)) => (view, from, frame) = (other, 0, Frame::of(agent, other)?),
            Some(Act::Again) => frame = Frame::of(agent, view)?,
            None if pressed.is_empty() => frame = Frame::of(agent, view)?,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_words_or_arrows_and_the_others_do_nothing() {
        for quit in [&b"q"[..], b"Q", b"\x03", b"\x04"] {
            assert_eq!(Act::of(quit), Some(Act::Quit), "{quit:?}");
        }
        assert_eq!(Act::of(b"a"), Some(Act::Show(View::Accounts)));
        assert_eq!((Act::of(b"\x1b[B"), Act::of(b"k")), (Some(Act::Scroll(1)), Some(Act::Scroll(-1))));
        assert_eq!((Act::of(b"x"), Act::of(b""), Act::of(b"\x1b")), (None, None, None));
    }
}
