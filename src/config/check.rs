//! Checking the text of a configuration file: every problem with its place, not only the first.
//!
//! ```text
//!   text ──▶ is it TOML? ──▶ keys nobody knows ──▶ values, one bad one after the other taken out ──▶ configuration
//! ```
//!
//! Which keys there are is read from the commented file of this repository, which a test compares with the configuration;
//! those of a tenant from the example in its comments.
//!
//! Imports allowed: the configuration, `toml`, `strsim`.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use strsim::damerau_levenshtein;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::Config;

/// The commented file: every key at its default.
pub(super) const TEMPLATE: &str = include_str!("../../config/ioasd.toml");

/// The list of tables, of which there may be any number.
const TENANTS: &str = "tenant";

/// Letters that may differ between what is written and what was meant.
const TYPOS: usize = 3;

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The key with its section, where there is one.
    pub key: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, key, message } = self;
        match key {
            Some(key) => write!(f, "{line}:{column}: {key}: {message}"),
            None => write!(f, "{line}:{column}: {message}"),
        }
    }
}

/// A table with where everything stands.
type Document<'t> = Spanned<DeTable<'t>>;

/// Where the example of a tenant begins in the commented file.
const EXAMPLE: &str = "# [[tenant]]\n";

/// A section and the names of its keys.
type Names = (String, Vec<String>);

/// The configuration that `text` says, or everything that is wrong with it, in order of places.
///
/// # Errors
/// The problems, at least one.
pub fn check(text: &str) -> Result<Config, Vec<Problem>> {
    match read(text) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(problems),
    }
}

/// What `text` says as far as it is right, if it is TOML at all, and everything that is wrong with it, in order of places.
pub(super) fn read(text: &str) -> (Option<Config>, Vec<Problem>) {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return (None, in_order(errors.iter().map(|error| syntax(text, error)).collect()));
    }
    let mut problems = take_unknown(text, &mut document);
    let config = loop {
        let error = match Config::deserialize(Deserializer::from(document.clone())) {
            Ok(config) => break Some(config),
            Err(error) => error,
        };
        let start = error.span().map_or(0, |span| span.start);
        let name = name_at(document.get_ref(), start);
        problems.push(problem(text, start, name.as_ref().map(Name::to_string), error.message()));
        match name {
            Some(name) => name.told().take_out(&mut document),
            None => break None,
        }
    };
    (config, in_order(problems))
}

fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

fn syntax(text: &str, error: &Error) -> Problem {
    let start = error.span().map_or(0, |span| span.start);
    problem(text, start, key_on_line_of(text, start), error.message())
}

fn problem(text: &str, start: usize, key: Option<String>, message: &str) -> Problem {
    let (line, column) = place(text, start);
    Problem { line, column, key, message: message.to_owned() }
}

/// Line and column, from 1, of byte `start`.
pub(super) fn place(text: &str, start: usize) -> (usize, usize) {
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The key in the line of byte `start`, with its section: for texts that are no TOML.
fn key_on_line_of(text: &str, start: usize) -> Option<String> {
    let mut lines: Vec<_> = text.lines().take(place(text, start).0).map(str::trim).collect();
    let section = lines.iter().rev().find_map(|line| line.strip_prefix('[')?.split(']').next());
    let key = lines.pop()?.split_once('=').map(|(key, _)| key.trim());
    match (section, key) {
        (Some(section), Some(key)) => Some(format!("{section}.{key}")),
        (section, key) => section.or(key).map(str::to_owned),
    }
}

/// Keys, each with the bytes of its value.
pub(super) type Keys = Vec<(String, Range<usize>)>;

/// The sections of a document and their keys, in order of places.
pub(super) fn sections(document: &DeTable<'_>) -> Vec<(String, Keys)> {
    let tables = document.iter().filter_map(|(name, value)| Some((name, value.get_ref().as_table()?)));
    let mut found: Vec<_> =
        tables.map(|(name, table)| (name.span().start, (name.get_ref().to_string(), keys(table)))).collect();
    found.sort_by_key(|(start, _)| *start);
    found.into_iter().map(|(_, section)| section).collect()
}

/// The tenants of a document, in order of places.
pub(super) fn tenants<'d, 't>(document: &'d DeTable<'t>) -> Vec<&'d DeTable<'t>> {
    let tenants = document.get(TENANTS).and_then(|value| value.get_ref().as_array());
    tenants
        .into_iter()
        .flat_map(|tenants| tenants.iter())
        .filter_map(|tenant| tenant.get_ref().as_table())
        .collect()
}

/// The line on which each tenant of a text begins.
pub(super) fn tenant_lines(text: &str) -> Vec<usize> {
    let document = DeTable::parse_recoverable(text).0;
    let tenants = document.get_ref().get(TENANTS).and_then(|value| value.get_ref().as_array());
    let tenants = tenants.into_iter().flat_map(|tenants| tenants.iter());
    tenants.map(|tenant| place(text, tenant.span().start).0).collect()
}

/// The keys of a table, in order of places.
pub(super) fn keys(table: &DeTable<'_>) -> Keys {
    let mut keys: Vec<_> =
        table.iter().map(|(key, value)| (key.get_ref().to_string(), value.span())).collect();
    keys.sort_by_key(|(_, span)| span.start);
    keys
}

/// Every section and key there is.
fn known() -> Vec<Names> {
    let (template, _) = DeTable::parse_recoverable(TEMPLATE);
    let names = |keys: Keys| keys.into_iter().map(|(key, _)| key).collect();
    let mut known: Vec<Names> =
        sections(template.get_ref()).into_iter().map(|(section, keys)| (section, names(keys))).collect();
    let example = example();
    let (example, _) = DeTable::parse_recoverable(&example);
    known.extend(
        tenants(example.get_ref()).into_iter().map(|tenant| (TENANTS.to_owned(), names(keys(tenant)))),
    );
    known
}

/// The tenant in the comments of the commented file, with all its keys.
pub(super) fn example() -> String {
    let (_, example) = TEMPLATE.split_once(EXAMPLE).unwrap_or_default();
    let lines = example.lines().map_while(|line| line.strip_prefix("# "));
    lines.fold("[[tenant]]\n".to_owned(), |text, line| text + line + "\n")
}

/// Names a section or a tenant, or a key of it.
#[derive(Clone, Debug)]
struct Name {
    section: String,
    /// Which of the tenants.
    tenant: Option<usize>,
    key: Option<String>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}.{key}", self.section),
            None => f.write_str(&self.section),
        }
    }
}

impl Name {
    fn section(section: &str) -> Self {
        Self { section: section.to_owned(), tenant: None, key: None }
    }

    fn key(section: &str, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..Self::section(section) }
    }

    /// Nothing more can be said of a tenant whose name is wrong.
    fn told(self) -> Self {
        Self { key: self.key.filter(|key| self.tenant.is_none() || key != "name"), ..self }
    }

    fn tenant(tenant: usize, key: Option<&str>) -> Self {
        Self { tenant: Some(tenant), key: key.map(str::to_owned), ..Self::section(TENANTS) }
    }

    /// Takes what it names out of `document`.
    fn take_out(&self, document: &mut Document<'_>) {
        let document = document.get_mut();
        match (document.get_mut(self.section.as_str()).map(Spanned::get_mut), self.tenant, &self.key) {
            (Some(DeValue::Table(table)), _, Some(key)) => drop(table.remove(key.as_str())),
            (Some(DeValue::Array(tenants)), Some(tenant), Some(key)) => {
                if let Some(DeValue::Table(table)) = tenants.get_mut(tenant).map(Spanned::get_mut) {
                    table.remove(key.as_str());
                }
            }
            (Some(DeValue::Array(tenants)), Some(tenant), None) => {
                let others = tenants.iter().enumerate().filter(|(number, _)| *number != tenant);
                *tenants = others.map(|(_, other)| other.clone()).collect();
            }
            _ => drop(document.remove(self.section.as_str())),
        }
    }
}

/// Takes out what nobody knows, and says so.
fn take_unknown(text: &str, document: &mut Document<'_>) -> Vec<Problem> {
    let unknown = unknown(document.get_ref(), &known());
    let tell = |(name, start, message): (Name, usize, String)| {
        name.take_out(document);
        problem(text, start, Some(name.to_string()), &message)
    };
    unknown.into_iter().map(tell).collect()
}

/// What nobody knows, where it stands, and what to say of it.
fn unknown(document: &DeTable<'_>, known: &[Names]) -> Vec<(Name, usize, String)> {
    let mut found = Vec::new();
    for (name, value) in document {
        let (start, name) = (name.span().start, name.get_ref());
        if *name == TENANTS {
            found.extend(unknown_of_tenants(document, known));
            continue;
        }
        let Some(section) = known.iter().find(|(section, _)| section == name) else {
            found.push((Name::section(name), start, unknown_section(name, value.get_ref(), known)));
            continue;
        };
        for key in value.get_ref().as_table().into_iter().flat_map(DeTable::keys) {
            let message = unknown_key(key.get_ref(), section, known);
            found.extend(message.map(|message| (Name::key(name, key.get_ref()), key.span().start, message)));
        }
    }
    found
}

fn unknown_of_tenants(document: &DeTable<'_>, known: &[Names]) -> Vec<(Name, usize, String)> {
    let names = known.iter().find(|(section, _)| section == TENANTS);
    let keys = tenants(document)
        .into_iter()
        .enumerate()
        .flat_map(|(number, tenant)| tenant.keys().map(move |key| (number, key)));
    let unknown = keys.filter_map(|(number, key)| {
        let message = unknown_key(key.get_ref(), names?, known)?;
        Some((Name::tenant(number, Some(key.get_ref())), key.span().start, message))
    });
    unknown.collect()
}

fn unknown_section(name: &str, value: &DeValue<'_>, known: &[Names]) -> String {
    if let Some(section) = section_of(name, known).filter(|_| !value.is_table()) {
        return format!("it belongs in [{section}]");
    }
    let mut names = known.iter().map(|(section, _)| section.as_str());
    match nearest(name, names.clone()) {
        Some(meant) => format!("unknown section, did you mean [{meant}]?"),
        None => format!("unknown section, there are {}", names.by_ref().collect::<Vec<_>>().join(", ")),
    }
}

/// What to say of a key of `section`; `None` if it is known.
fn unknown_key(key: &str, (section, keys): &Names, known: &[Names]) -> Option<String> {
    if keys.iter().any(|known| known == key) {
        return None;
    }
    if let Some(other) = section_of(key, known) {
        return Some(format!("unknown key, it belongs in [{other}]"));
    }
    Some(match nearest(key, keys.iter().map(String::as_str)) {
        Some(meant) => format!("unknown key, did you mean {meant}?"),
        None => format!("unknown key, [{section}] has {}", keys.join(", ")),
    })
}

fn section_of<'k>(key: &str, known: &'k [Names]) -> Option<&'k str> {
    let section = known.iter().find(|(_, keys)| keys.iter().any(|known| known == key));
    section.map(|(section, _)| section.as_str())
}

/// What was probably meant.
pub(super) fn nearest<'n>(written: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let distances = names.map(|name| (damerau_levenshtein(written, name), name));
    let nearest = distances.min_by_key(|(distance, _)| *distance);
    nearest.filter(|(distance, _)| *distance <= TYPOS).map(|(_, name)| name)
}

/// The key, the tenant, or the section that is a value, in which byte `start` stands.
fn name_at(document: &DeTable<'_>, start: usize) -> Option<Name> {
    tenant_at(document, start).or_else(|| {
        document.iter().find_map(|(name, value)| match value.get_ref().as_table() {
            None => value.span().contains(&start).then(|| Name::section(name.get_ref())),
            Some(table) => Some(Name::key(name.get_ref(), key_at(table, start)?)),
        })
    })
}

/// The key of a tenant, or the tenant whose head it is, in which byte `start` stands.
fn tenant_at(document: &DeTable<'_>, start: usize) -> Option<Name> {
    let tenants = document.get(TENANTS)?.get_ref().as_array()?;
    let tables = || {
        tenants.iter().enumerate().filter_map(|(number, tenant)| Some((number, tenant.get_ref().as_table()?)))
    };
    let key = tables().find_map(|(number, table)| Some(Name::tenant(number, Some(key_at(table, start)?))));
    let head = || tenants.iter().position(|tenant| tenant.span().contains(&start));
    key.or_else(|| Some(Name::tenant(head()?, None)))
}

fn key_at<'d>(table: &'d DeTable<'_>, start: usize) -> Option<&'d str> {
    let mut keys = table.iter();
    let (key, _) = keys.find(|(key, value)| key.span().contains(&start) || stands_in(value, start))?;
    Some(key.get_ref())
}

/// Whether byte `start` stands in a value, or in a table of it that has a head of its own.
fn stands_in(value: &Spanned<DeValue<'_>>, start: usize) -> bool {
    value.span().contains(&start)
        || value.get_ref().as_table().is_some_and(|table| key_at(table, start).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        check(text).expect_err("is not valid").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_problem_is_told_in_order_of_places() {
        let text = "[server]\nsokcet = \"/x\"\narbiters = -1\n\n[sever]\n[log]\nformat = \"xml\"\nfilter = \"ioasd=loud\"\n";
        let told = problems(text);
        assert_eq!(told.len(), 5, "{told:#?}");
        for (problem, start) in told.iter().zip([
            "2:1: server.sokcet: unknown key, did you mean socket?",
            "3:12: server.arbiters: invalid value",
            "5:2: sever: unknown section, did you mean [server]?",
            "7:10: log.format: unknown variant `xml`",
            "8:10: log.filter: ",
        ]) {
            assert!(problem.starts_with(start), "{problem:?} does not start with {start:?}");
        }
    }

    #[test]
    fn every_problem_of_every_tenant_is_told() {
        let text = "[[tenant]]\nname = \"a\"\nuid = [1]\nuids = [-1]\n[tenant.limits]\npined = 1\n[[tenant]]\nuids = [1]\n[[tenant]]\nname = \"c\"\nconect = false\nexport = 1\n";
        let told = problems(text);
        let starts = [
            "3:1: tenant.uid: unknown key, did you mean uids?",
            "4:9: tenant.uids: invalid value",
            "5:1: tenant.limits: unknown limit \"pined\", did you mean pinned?",
            "7:1: tenant: missing field `name`",
            "11:1: tenant.conect: unknown key, did you mean connect?",
            "12:10: tenant.export: invalid type",
        ];
        assert_eq!(told.len(), starts.len(), "{told:#?}");
        for (problem, start) in told.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem:?} does not start with {start:?}");
        }
    }

    #[test]
    fn the_example_of_a_tenant_has_every_key_there_is() {
        let config = check(&example()).unwrap();
        let [tenant] = &config.tenant[..] else { panic!("{config:?}") };
        let told = toml::from_str::<Config>("[[tenant]]\nno_such_key = 1\n").unwrap_err().to_string();
        for key in keys(tenants(DeTable::parse_recoverable(&example()).0.get_ref())[0]) {
            assert!(told.contains(&format!("`{}`", key.0)), "{key:?} is no key: {told}");
        }
        let (_, expected) = told.split_once("expected one of ").unwrap();
        let expected = expected.split('`').skip(1).step_by(2);
        let missing: Vec<&str> = expected.filter(|key| !example().contains(&format!("\n{key} = "))).collect();
        assert_eq!((tenant.name.as_str(), missing), ("vms", Vec::<&str>::new()));
    }

    #[test]
    fn a_key_in_the_wrong_place_is_shown_its_own() {
        assert_eq!(problems("socket_mode = \"0600\"\n"), ["1:1: socket_mode: it belongs in [server]"]);
        assert_eq!(problems("[log]\nlisten = 1\n"), ["2:1: log.listen: unknown key, it belongs in [admin]"]);
    }

    #[test]
    fn what_is_like_nothing_gets_the_whole_list() {
        let told = problems("[admin]\nsomething_else = 1\n");
        assert_eq!(
            told,
            [
                "2:1: admin.something_else: unknown key, [admin] has listen, scope, socket, named_series, remote, token_file, names"
            ]
        );
        assert!(problems("[something]\n")[0].contains("there are server, admin, log"));
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_with_its_places() {
        let told = problems("[log]\nformat = \n[server\n");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("2:") && told[0].contains("log.format"), "{told:?}");
        let told = problems("[log]\nformat = \"text\"\nformat = \"json\"\n");
        assert!(told[0].starts_with("3:1: log.format: duplicate key"), "{told:?}");
    }

    #[test]
    fn a_section_that_is_a_value_is_a_problem() {
        let told = problems("server = 3\n");
        assert!(told[0].starts_with("1:10: server: invalid type"), "{told:?}");
    }

    #[test]
    fn every_prefix_of_the_template_ends_in_an_answer() {
        for (end, _) in TEMPLATE.char_indices() {
            let told = check(&TEMPLATE[..end]).err();
            assert!(told.is_none_or(|problems| !problems.is_empty()), "{end}");
        }
        assert_eq!(check(TEMPLATE), Ok(Config::default()));
    }
}
