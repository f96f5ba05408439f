//! Putting the configuration together: command line, environment, file, default.
//!
//! Imports allowed: the configuration, `telemetry::logging`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Config;
use super::check::{self, Problem, check, tenant_lines};
use super::place::{Environment, Place};
use super::values::Listen;
use crate::telemetry::logging::{self, LoggingError};

/// The file that is read when nobody names one.
pub const DEFAULT_PATH: &str = "/etc/ioasd/ioasd.toml";

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--admin`.
    pub admin: Option<Listen>,
    /// `--mock`.
    pub mock: bool,
    /// `--log`.
    pub log: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file says something it should not.
    #[error("{}", lines(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
    /// The log filter of the flag or the variable is not valid.
    #[error("{origin} is not usable")]
    Log {
        /// `--log` or `IOASD_LOG`.
        origin: &'static str,
        /// What is wrong with it.
        #[source]
        source: LoggingError,
    },
    /// A variable is not text.
    #[error("IOASD_LOG is not valid UTF-8")]
    LogNotText,
}

/// The problems of a file, each on a line of its own, as compilers tell them.
fn lines(path: &Path, problems: &[Problem]) -> String {
    let lines = problems.iter().map(|problem| format!("{}:{problem}", path.display()));
    lines.collect::<Vec<_>>().join("\n")
}

/// A file that is read.
pub(super) struct Source {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) text: String,
}

/// Puts the configuration together.
///
/// # Errors
/// If a file was named and cannot be read, if the file cannot be understood, or if a flag or variable is not valid.
pub fn load(flags: Flags, environment: &Environment) -> Result<Config, ConfigError> {
    let file = source(&flags, environment)?;
    with_file(flags, environment, file.as_ref())
}

/// The same for whoever looks for a running agent: what is right in the file, and what is wrong with it besides.
///
/// # Errors
/// As [`load`], but not for what the file says.
pub fn load_what_is_right(
    flags: Flags,
    environment: &Environment,
) -> Result<(Config, Option<ConfigError>), ConfigError> {
    let Some(Source { path, text }) = source(&flags, environment)? else {
        return completed(Config::default(), flags, environment).map(|config| (config, None));
    };
    let (config, problems) = check::read(&text);
    let wrong = (!problems.is_empty()).then_some(ConfigError::Invalid { path, problems });
    completed(config.unwrap_or_default(), flags, environment).map(|config| (config, wrong))
}

/// The same as [`load`], with a file that is read already.
pub(super) fn with_file(
    flags: Flags,
    environment: &Environment,
    file: Option<&Source>,
) -> Result<Config, ConfigError> {
    completed(parsed(file)?, flags, environment)
}

/// What the file says, with what goes before it.
fn completed(mut config: Config, flags: Flags, environment: &Environment) -> Result<Config, ConfigError> {
    if let Some(socket) = flags.socket.or_else(|| environment.socket.clone()) {
        config.server.socket = Place::At(socket);
    }
    config.mock.enabled |= flags.mock;
    if let Some(listen) = flags.admin {
        config.admin.listen = listen;
    }
    if let Some(filter) = log_filter(flags.log, environment)? {
        config.log.filter = filter;
    }
    Ok(config)
}

fn log_filter(flag: Option<String>, environment: &Environment) -> Result<Option<String>, ConfigError> {
    let (origin, filter) = match (flag, &environment.log) {
        (Some(filter), _) => ("--log", filter),
        (None, Some(filter)) => {
            ("IOASD_LOG", filter.clone().into_string().map_err(|_| ConfigError::LogNotText)?)
        }
        (None, None) => return Ok(None),
    };
    logging::parse(&filter).map_err(|source| ConfigError::Log { origin, source })?;
    Ok(Some(filter))
}

/// The file that is read, if there is one.
pub(super) fn source(flags: &Flags, environment: &Environment) -> Result<Option<Source>, ConfigError> {
    let named = flags.config.as_deref().or(environment.config.as_deref());
    from_file(named, Path::new(DEFAULT_PATH))
}

/// A file that was named must be there; the default one need not.
fn from_file(named: Option<&Path>, default: &Path) -> Result<Option<Source>, ConfigError> {
    let path = named.unwrap_or(default).to_owned();
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(Source { path, text })),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

fn parsed(source: Option<&Source>) -> Result<Config, ConfigError> {
    let Some(Source { path, text }) = source else { return Ok(Config::default()) };
    let config = check(text).map_err(|problems| ConfigError::Invalid { path: path.clone(), problems });
    config.map(|config| placed(config, path, text))
}

/// The same configuration, each tenant of which knows where it is written.
fn placed(mut config: Config, path: &Path, text: &str) -> Config {
    for (tenant, line) in config.tenant.iter_mut().zip(tenant_lines(text)) {
        tenant.place = format!("[[tenant]] {}, {}:{line}", tenant.name, path.display()).into();
    }
    config
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use rustix::process::Uid;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let find = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        Environment::new(Uid::from_raw(1000), find)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        file
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        parsed(Some(&Source { path: "/etc/x.toml".into(), text: text.to_owned() }))
    }

    #[track_caller]
    fn assert_invalid(text: &str, (line, column): (usize, usize), key: &str, needle: &str) {
        let error = parse(text).expect_err("is not valid").to_string();
        let head = format!("/etc/x.toml:{line}:{column}: {key}: ");
        assert!(error.starts_with(&head), "{error:?} does not start with {head:?}");
        assert!(error.contains(needle), "{error:?} does not say {needle:?}");
    }

    #[track_caller]
    fn assert_bad_value(section: &str, key: &str, value: &str, needle: &str) {
        let text = format!("# a comment\n[{section}]\n\n{key} = {value}\n");
        assert_invalid(&text, (4, key.len() + 4), &format!("{section}.{key}"), needle);
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let file = file("[server]\nsocket = \"/file\"\n[log]\nfilter = \"error\"\n");
        let path = file.path().to_str().unwrap();
        let variables =
            environment(&[("IOASD_SOCKET", "/env"), ("IOASD_LOG", "warn"), ("IOASD_CONFIG", path)]);
        let flags = Flags { socket: Some("/flag".into()), log: Some("debug".into()), ..Flags::default() };
        let chosen = |flags, environment: &Environment| {
            let config = load(flags, environment).unwrap();
            (config.server.socket, config.log.filter)
        };
        assert_eq!(chosen(flags, &variables), (Place::At("/flag".into()), "debug".into()));
        assert_eq!(chosen(Flags::default(), &variables), (Place::At("/env".into()), "warn".into()));
        let only_file = environment(&[("IOASD_CONFIG", path)]);
        assert_eq!(chosen(Flags::default(), &only_file), (Place::At("/file".into()), "error".into()));
        let nothing = from_file(None, Path::new("/nonexistent/ioasd.toml")).unwrap();
        assert_eq!(parsed(nothing.as_ref()).unwrap(), Config::default());
    }

    #[test]
    fn the_admin_flag_beats_the_file() {
        let file = file("[admin]\nlisten = \"127.0.0.1:1\"\n");
        let flags = Flags {
            config: Some(file.path().into()),
            admin: Some(Listen::Off),
            mock: true,
            ..Flags::default()
        };
        assert_eq!(load(flags, &environment(&[])).unwrap().admin.listen, Listen::Off);
    }

    #[test]
    fn the_config_flag_beats_the_variable() {
        let flags = Flags { config: Some("/nonexistent/flag".into()), ..Flags::default() };
        let error = load(flags, &environment(&[("IOASD_CONFIG", "/nonexistent/env")])).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the configuration file /nonexistent/flag");
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let error =
            load(Flags::default(), &environment(&[("IOASD_CONFIG", "/nonexistent/x.toml")])).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }), "{error}");
    }

    #[test]
    fn errors_name_file_line_column_and_key() {
        assert_invalid("\n[server]\nsokcet = \"x\"\n", (3, 1), "server.sokcet", "did you mean socket?");
        assert_invalid("[log]\nformat = \"text\"\nformat = \"json\"\n", (3, 1), "log.format", "duplicate");
    }

    #[test]
    fn every_problem_of_a_file_is_a_line() {
        let error = parse("[sever]\n[log]\nformat = 1\n").expect_err("is not valid").to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 2, "{error}");
        assert!(lines.iter().all(|line| line.starts_with("/etc/x.toml:")), "{error}");
    }

    #[test]
    fn whoever_looks_for_the_agent_is_told_what_is_right_in_a_file_that_is_wrong() {
        let found = |text: &str| {
            let file = file(text);
            let flags = Flags { config: Some(file.path().to_owned()), ..Flags::default() };
            load_what_is_right(flags, &environment(&[("IOASD_SOCKET", "/env")])).unwrap()
        };
        let (config, wrong) = found("[admin]\nsocket = \"/a\"\n[limits]\nhost = 1\nhots = {}\n");
        assert_eq!(config.admin.socket, Some(Place::At("/a".into())));
        assert_eq!(config.server.socket, Place::At("/env".into()));
        let wrong = wrong.unwrap().to_string();
        assert!(wrong.contains("4:8: limits.host: ") && wrong.contains("5:1: limits.hots: "), "{wrong}");
        let (config, wrong) = found("[admin\nsocket = \"/a\"\n");
        assert_eq!((config.admin, wrong.is_some()), (Config::default().admin, true));
        assert!(found("[admin]\nsocket = \"/a\"\n").1.is_none());
    }

    #[test]
    fn a_bad_value_is_refused_with_what_would_be_right() {
        assert_bad_value("server", "socket", "\"off\"", "write a path or \"auto\"");
        assert_bad_value("server", "socket_mode", "\"rw\"", "\"0660\"");
        assert_bad_value("server", "arbiters", "-1", "invalid value");
        assert_bad_value("admin", "listen", "\"0.0.0.0:9884\"", "not a loopback address");
        assert_bad_value("log", "filter", "\"ioasd=loud\"", "ioasd=loud");
        assert_bad_value("log", "format", "\"xml\"", "expected one of `auto`, `text`, `json`");
        assert_bad_value("limits", "credits_per_channel", "\"many\"", "invalid type");
        assert_bad_value("limits", "credits_per_channel", "0", "nonzero");
        assert_bad_value("limits", "table_bytes_per_context", "\"1GB\"", "\"64MiB\"");
        assert_bad_value("limits", "table_bytes_per_context", "-1", "expected a size");
        assert_bad_value("engine", "strength", "\"firm\"", "write \"auto\", \"longterm\"");
        assert_bad_value("walkers", "policy", "\"stop\"", "expected one of `wait`, `fail`, `kill`");
        assert_bad_value("walkers", "deadline", "10", "invalid type");
        assert_bad_value("walkers", "alarm_after", "\"soon\"", "\"10s\"");
    }

    #[test]
    fn a_bad_filter_outside_the_file_names_its_origin() {
        let flags = Flags { log: Some("ioasd=loud".into()), ..Flags::default() };
        assert_eq!(load(flags, &environment(&[])).unwrap_err().to_string(), "--log is not usable");
        let error = load(Flags::default(), &environment(&[("IOASD_LOG", "ioasd=loud")])).unwrap_err();
        assert_eq!(error.to_string(), "IOASD_LOG is not usable");
    }
}
