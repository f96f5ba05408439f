//! Logging: `tracing` events to the journal, or to standard error as text for people or as JSON for collectors.
//!
//! ```text
//! event ──▶ one filter, which can be changed while the agent runs ──▶ journal | text | JSON
//! ```
//!
//! A service manager that joins standard error to the journal says so in `JOURNAL_STREAM`; then fields go to the journal
//! as fields (`journalctl IOASD_COMMAND=IOAS_MAP_FILE`). The filter is global and its levels are static: an event that it
//! holds back costs one relaxed load. Nothing is ever logged for each page.
//!
//! Imports allowed: `std`, `tracing`.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Before the name of each field in the journal, whose names are shared by all programs.
const JOURNAL_PREFIX: &str = "IOASD";

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Fields in the journal where standard error is joined to it, else a line for people.
    #[default]
    Auto,
    /// A line for people.
    Text,
    /// A JSON object, its fields at the top level.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error(
        "log filter {filter:?} is not valid: {part:?} is neither a level nor a module with one, write for example \"info\" or \"warn,ioasd::actors=debug\""
    )]
    Filter {
        /// What was given.
        filter: String,
        /// The part of it that is wrong.
        part: String,
    },
    /// Somebody else set up logging in this process.
    #[error("logging is set up already in this process")]
    Taken(#[source] TryInitError),
    /// The subscriber is gone.
    #[error("the log filter cannot be changed any more")]
    Gone(#[source] reload::Error),
}

/// Changes the filter of a running agent.
#[derive(Clone, Debug)]
pub struct FilterHandle(reload::Handle<EnvFilter, Registry>);

impl FilterHandle {
    /// Uses `filter` from now on.
    ///
    /// # Errors
    /// If the filter is not valid; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), LoggingError> {
        self.0.reload(parse(filter)?).map_err(LoggingError::Gone)
    }

    /// The filter in use.
    ///
    /// # Errors
    /// If logging has ended.
    pub fn get(&self) -> Result<String, LoggingError> {
        self.0.with_current(ToString::to_string).map_err(LoggingError::Gone)
    }
}

/// Sets up logging for the whole process.
///
/// # Errors
/// If the filter is not valid or logging was set up before.
pub fn init(filter: &str, format: Format) -> Result<FilterHandle, LoggingError> {
    let (subscriber, handle) = build(filter, format, io::stderr)?;
    subscriber.try_init().map_err(LoggingError::Taken)?;
    Ok(handle)
}

/// Levels, the quietest first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a filter without using it.
///
/// # Errors
/// If the filter is not valid.
pub fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    let wrong = |part: &str| LoggingError::Filter { filter: filter.to_owned(), part: part.to_owned() };
    match filter.split(',').find(|part| !is_part(part)) {
        Some(part) => Err(wrong(part)),
        None => EnvFilter::try_new(filter).map_err(|_| wrong(filter)),
    }
}

/// Whether `part` is a level, a module, or `module=level`.
fn is_part(part: &str) -> bool {
    let (module, level) = part.split_once('=').map_or((part, None), |(module, level)| (module, Some(level)));
    level.is_none_or(|level| LEVELS.contains(&level)) && module.split("::").all(is_name)
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.bytes().all(inner) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn build<W>(
    filter: &str,
    format: Format,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, FilterHandle), LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    Ok((Registry::default().with(filter).with(lines(format, writer)), FilterHandle(handle)))
}

/// Whether standard error is the stream that the service manager joined to the journal.
fn is_journal(stream: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let numbers = stream.and_then(|stream| stream.split_once(':'));
    let numbers = numbers.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    numbers.is_some() && numbers == stderr
}

/// Device and inode of standard error.
fn stderr_file() -> Option<(u64, u64)> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|file| (file.dev(), file.ino()))
}

/// The journal, if it is joined and takes fields.
fn journal<S>() -> Option<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let stream = std::env::var("JOURNAL_STREAM").ok();
    if !is_journal(stream.as_deref(), stderr_file()) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(Some(JOURNAL_PREFIX.to_owned())).boxed())
}

fn lines<S, W>(format: Format, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer);
    match format {
        Format::Auto if let Some(journal) = journal() => journal,
        Format::Auto | Format::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
        }
    }

    fn capture(filter: &str, format: Format, body: impl FnOnce(&FilterHandle)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, handle) = build(filter, format, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || body(&handle));
        lines.take()
    }

    #[test]
    fn text_lines_carry_level_message_and_fields() {
        let text = capture("info", Format::Text, |_| tracing::info!(pages = 3, "mapped"));
        assert!(text.contains("INFO") && text.contains("mapped") && text.contains("pages=3"), "{text}");
    }

    #[test]
    fn json_lines_have_their_fields_at_the_top() {
        let text = capture("info", Format::Json, |_| tracing::info!(pages = 3, "mapped"));
        assert!(text.starts_with('{') && text.ends_with("}\n"), "{text}");
        assert!(text.contains("\"pages\":3,") || text.contains("\"pages\":3}"), "{text}");
        assert!(text.contains("\"message\":\"mapped\""), "{text}");
        assert!(!text.contains("\"fields\""), "{text}");
    }

    #[test]
    fn the_filter_holds_back_what_it_does_not_name_and_can_be_changed() {
        let text = capture("warn", Format::Text, |handle| {
            tracing::info!("before");
            handle.set("info").unwrap();
            tracing::info!("after");
            assert!(matches!(handle.set("ioasd=verbose"), Err(LoggingError::Filter { .. })));
            assert_eq!(handle.get().unwrap(), "info");
            tracing::info!("still");
        });
        assert!(!text.contains("before") && text.contains("after") && text.contains("still"), "{text}");
    }

    #[test]
    fn only_the_stream_that_the_service_manager_joined_is_the_journal() {
        assert!(is_journal(Some("9:4711"), Some((9, 4711))));
        for (stream, stderr) in [
            (Some("9:4711"), Some((9, 4712))),
            (Some("8:4711"), Some((9, 4711))),
            (Some("9:4711"), None),
            (None, Some((9, 4711))),
            (None, None),
            (Some("journal"), None),
            (Some("9:"), Some((9, 0))),
        ] {
            assert!(!is_journal(stream, stderr), "{stream:?} {stderr:?}");
        }
        assert!(stderr_file().is_some());
    }

    #[test]
    fn a_filter_is_levels_and_modules_and_what_is_wrong_is_named() {
        for filter in ["off", "trace", "ioasd", "warn,ioasd::actors=debug,_a1::b=off,warn", "levels,h2=info"]
        {
            parse(filter).unwrap();
        }
        for (filter, part) in [
            ("", ""),
            ("info,", ""),
            ("info, warn", " warn"),
            ("warn,ioasd=loud", "ioasd=loud"),
            ("ioasd==info", "ioasd==info"),
            ("=info", "=info"),
            ("ioasd:actors", "ioasd:actors"),
            ("2", "2"),
            ("Info", "Info"),
            ("[span{field=1}]=info", "[span{field=1}]=info"),
        ] {
            let error = parse(filter).unwrap_err().to_string();
            assert!(error.contains(&format!("{filter:?} is not valid: {part:?} is")), "{error}");
        }
    }
}
