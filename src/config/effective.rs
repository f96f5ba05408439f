//! The effective configuration: each setting with where its value comes from, as it is written there.
//!
//! Imports allowed: the configuration.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::Config;
use super::check::{self, TEMPLATE};
use super::load::{ConfigError, Flags, Source, source, with_file};
use super::place::Environment;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(&'static str),
    /// A variable of the environment.
    Variable(&'static str),
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Nobody said anything.
    Default,
}

impl Origin {
    /// What kind of place that is, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Variable(_) => "environment",
            Self::File { .. } => "file",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section; that of a tenant is `tenant.` and its name.
    pub section: String,
    /// Its key.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Where that comes from.
    pub origin: Origin,
    /// What `"auto"` means here.
    pub meaning: Option<String>,
}

/// A configuration, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// What it comes to.
    pub config: Config,
    /// Every setting, in the order of the commented file; then what the file says of tenants.
    pub settings: Vec<Setting>,
}

/// The effective configuration; the file is read once.
///
/// # Errors
/// As [`load`](super::load::load).
pub fn effective(flags: &Flags, environment: &Environment) -> Result<Effective, ConfigError> {
    let file = source(flags, environment)?;
    let config = with_file(flags.clone(), environment, file.as_ref())?;
    let template = DeTable::parse_recoverable(TEMPLATE).0;
    let mut settings = Vec::new();
    for (section, keys) in check::sections(template.get_ref()) {
        for (key, default) in keys {
            let said = overridden((&section, &key), flags, environment);
            let said = said.or_else(|| written(file.as_ref()?, (&section, &key)));
            let default = || (TEMPLATE.get(default).unwrap_or_default().to_owned(), Origin::Default);
            let (value, origin) = said.unwrap_or_else(default);
            let meaning = meaning((&section, &key), &config, environment).filter(|_| value == "\"auto\"");
            settings.push(Setting { section: section.clone(), key, value, origin, meaning });
        }
    }
    settings.extend(file.iter().flat_map(tenants));
    Ok(Effective { config, settings })
}

/// What the file says of each tenant.
fn tenants(file: &Source) -> Vec<Setting> {
    let document = DeTable::parse_recoverable(&file.text).0;
    let mut settings = Vec::new();
    for tenant in check::tenants(document.get_ref()) {
        let name = tenant.get("name").and_then(|name| name.get_ref().as_str()).unwrap_or_default();
        for (key, span) in check::keys(tenant) {
            let Some((value, origin)) = tenant.get(key.as_str()).and_then(|value| said(file, value)) else {
                debug_assert!(false, "{span:?} is a key without a value");
                continue;
            };
            settings.push(Setting { section: format!("tenant.{name}"), key, value, origin, meaning: None });
        }
    }
    settings
}

/// A section and a key of it.
type Name<'n> = (&'n str, &'n str);

/// What `"auto"` means for a setting.
fn meaning(name: Name<'_>, config: &Config, environment: &Environment) -> Option<String> {
    let endpoints = config.admin_endpoints(environment);
    match name {
        ("server", "socket") => Some(config.socket(environment).display().to_string()),
        ("admin", "socket") => {
            let path = endpoints.socket.map(|path| path.display().to_string());
            Some(path.unwrap_or_else(|| "off".to_owned()))
        }
        ("admin", "scope") => Some(endpoints.scope.name().to_owned()),
        _ => None,
    }
}

/// What a flag or a variable says.
fn overridden(name: Name<'_>, flags: &Flags, environment: &Environment) -> Option<(String, Origin)> {
    let flag = |name, text: String| (quoted(text), Origin::Flag(name));
    let variable = |name, text: String| (quoted(text), Origin::Variable(name));
    match name {
        ("server", "socket") => {
            let path = flags.socket.as_ref().map(|path| flag("--socket", path.display().to_string()));
            let variable =
                || Some(variable("IOASD_SOCKET", environment.socket.as_ref()?.display().to_string()));
            path.or_else(variable)
        }
        ("admin", "listen") => flags.admin.map(|listen| {
            let address = listen.address().map(|address| address.get().to_string());
            flag("--admin", address.unwrap_or_else(|| "off".to_owned()))
        }),
        ("log", "filter") => {
            let filter = flags.log.clone().map(|filter| flag("--log", filter));
            filter.or_else(|| {
                Some(variable("IOASD_LOG", environment.log.as_ref()?.to_string_lossy().into_owned()))
            })
        }
        _ => None,
    }
}

fn quoted(text: String) -> String {
    toml::Value::from(text).to_string()
}

/// What the file says.
fn written(file: &Source, (section, key): Name<'_>) -> Option<(String, Origin)> {
    let document = DeTable::parse_recoverable(&file.text).0;
    said(file, document.get_ref().get(section)?.get_ref().as_table()?.get(key)?)
}

/// A value of the file as it is written there; a table with a head of its own is put on one line.
fn said(Source { path, text }: &Source, value: &Spanned<DeValue<'_>>) -> Option<(String, Origin)> {
    let as_written = text.get(value.span()).filter(|text| parsed(text).is_some());
    let on_one_line = || toml::Value::deserialize(ValueDeserializer::from(value.clone())).ok();
    let shown = as_written.map(str::to_owned).or_else(|| Some(on_one_line()?.to_string()))?;
    let line = check::place(text, value.span().start).0;
    Some((shown, Origin::File { path: path.clone(), line }))
}

/// A value by its text.
pub(super) fn parsed(text: &str) -> Option<toml::Value> {
    toml::from_str::<toml::Table>(&format!("value = {text}")).ok()?.remove("value")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use rustix::process::Uid;

    use super::super::load::load;
    use super::*;

    const FILE: &str = "[server]\nsocket = \"/file\"\n\n[log]\nformat = \"json\"\nfilter = \"warn\"\n";

    fn in_file(text: &str) -> (tempfile::NamedTempFile, Flags) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let flags = Flags { config: Some(file.path().into()), ..Flags::default() };
        (file, flags)
    }

    #[test]
    fn each_value_comes_with_its_origin_and_all_together_are_the_configuration() {
        let variables = |name: &str| match name {
            "IOASD_SOCKET" => Some(OsString::from("/env")),
            "IOASD_LOG" => Some(OsString::from("error")),
            _ => None,
        };
        let environment = Environment::new(Uid::ROOT, variables);
        let (file, flags) = in_file(FILE);
        let flags = Flags { log: Some("debug".to_owned()), ..flags };
        let settings = effective(&flags, &environment).unwrap().settings;
        let line = format!("{}:5", file.path().display());
        for (section, key, value, origin) in [
            ("server", "socket", "\"/env\"", "IOASD_SOCKET"),
            ("log", "filter", "\"debug\"", "--log"),
            ("log", "format", "\"json\"", line.as_str()),
            ("engine", "batch_runs", "5461", "default"),
        ] {
            let setting =
                settings.iter().find(|s| (s.section.as_str(), s.key.as_str()) == (section, key)).unwrap();
            assert_eq!((setting.value.as_str(), setting.origin.to_string().as_str()), (value, origin));
        }
        let lines = settings.iter().map(|s| format!("{}.{} = {}\n", s.section, s.key, s.value));
        assert_eq!(check::check(&lines.collect::<String>()).unwrap(), load(flags, &environment).unwrap());
    }

    #[test]
    fn a_tenant_is_shown_as_it_is_written_and_a_table_with_a_head_on_one_line() {
        let environment = Environment::new(Uid::ROOT, |_| None);
        let text = "[limits.host]\nareas = 5\n[[tenant]]\nuids = [1, 2] # two\nname = \"a\"\n[tenant.limits]\npinned = \"1GiB\"\n[[tenant]]\nname = \"b\"\n";
        let (_file, flags) = in_file(text);
        let settings = effective(&flags, &environment).unwrap().settings;
        let shown = |s: &Setting| format!("{} {} {}", s.section, s.key, s.value);
        let tenants = settings.iter().filter(|setting| setting.section.starts_with("tenant."));
        assert_eq!(
            tenants.map(shown).collect::<Vec<_>>(),
            [
                "tenant.a uids [1, 2]",
                "tenant.a name \"a\"",
                "tenant.a limits { pinned = \"1GiB\" }",
                "tenant.b name \"b\""
            ]
        );
        assert!(settings.iter().map(shown).any(|line| line == "limits host { areas = 5 }"), "{settings:#?}");
    }

    #[test]
    fn auto_is_told_with_what_it_means() {
        let environment = Environment::new(Uid::ROOT, |_| None);
        let (_file, flags) = in_file("");
        let settings = effective(&flags, &environment).unwrap().settings;
        let meanings: Vec<_> = settings.iter().filter_map(|setting| setting.meaning.as_deref()).collect();
        assert_eq!(meanings, ["/run/ioasd/ioasd.sock", "metrics", "/run/ioasd/admin.sock"]);
    }
}
