//! What an agent must never do while it serves whatever clients send: panic on a thread of its own, or log an error.
//!
//! One process has one panic hook and one log, so noise is blamed on whichever test looks first; the text tells more.

use std::io;
use std::panic;
use std::sync::Once;
use std::thread;

use parking_lot::Mutex;
use tracing::Level;

static NOISE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Where errors are logged to.
struct Record;

impl io::Write for Record {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        NOISE.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Listens from now on.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt().with_max_level(Level::ERROR).with_ansi(false).with_writer(|| Record).init();
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            usual(panicked);
            if is_of_the_agent(&thread::current()) {
                NOISE.lock().extend_from_slice(format!("{panicked}\n").as_bytes());
            }
        }));
    });
}

fn is_of_the_agent(thread: &thread::Thread) -> bool {
    thread.name().is_some_and(|name| name.starts_with("actix-rt") || name.starts_with("pin-"))
}

/// Asserts that nothing was heard.
#[track_caller]
pub(crate) fn assert_silence() {
    let noise = String::from_utf8_lossy(&std::mem::take(&mut *NOISE.lock())).into_owned();
    assert!(noise.is_empty(), "an agent of this process panicked or logged an error:\n{noise}");
}
