//! `[[tenant]]` and the tables of limits: who belongs together, what they may use and do.
//!
//! ```toml
//! [[tenant]]
//! name = "vms"
//! uids = [64055]
//! limits = { pinned = { soft = "48GiB", hard = "64GiB" }, areas = 100000 }
//! ```
//!
//! Imports allowed: check, values, storage's ledger and words for memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::check::nearest;
use super::values::Amount;
use crate::storage::among::{Among, Worded};
use crate::storage::ledger::limits::{Limit, Limits};
use crate::storage::ledger::resource::Resource;
use crate::storage::source::{FrameSetting, SourceKind, Strength};

/// Limits by resource; what is not named has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitTable(BTreeMap<Resource, Limit>);

impl LimitTable {
    /// `base`, with what this table names in its place.
    #[must_use]
    pub fn over(&self, base: Limits) -> Limits {
        self.0.iter().fold(base, |limits, (resource, limit)| limits.with(*resource, *limit))
    }
}

/// A limit as it is written: a hard one alone, or both.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a limit such as \"64GiB\", 1000 or { soft = \"48GiB\", hard = \"64GiB\" }"
)]
enum LimitText {
    Hard(Amount),
    Both(Pair),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    soft: Option<Amount>,
    hard: Option<Amount>,
}

impl From<LimitText> for Limit {
    fn from(text: LimitText) -> Self {
        let or_none = |amount: Option<Amount>| amount.map_or(u64::MAX, |amount| amount.0);
        match text {
            LimitText::Hard(hard) => Self::hard(hard.0),
            LimitText::Both(Pair { soft, hard }) => Self { soft: or_none(soft), hard: or_none(hard) },
        }
    }
}

impl<'de> Deserialize<'de> for LimitTable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, LimitText>::deserialize(from)?;
        let named = written.into_iter().map(|(name, text)| {
            let resource = Resource::parse(&name).ok_or_else(|| D::Error::custom(unknown_limit(&name)))?;
            let limit = Limit::from(text);
            if limit.hard < limit.soft && limit.soft != u64::MAX {
                return Err(D::Error::custom(format!("the soft limit of {name} is above the hard one")));
            }
            Ok((resource, limit))
        });
        named.collect::<Result<_, _>>().map(Self)
    }
}

fn unknown_limit(name: &str) -> String {
    let names = Resource::ALL.map(Resource::name);
    match nearest(name, names.iter().copied()) {
        Some(meant) => format!("unknown limit {name:?}, did you mean {meant}?"),
        None => format!("unknown limit {name:?}, there are {}", names.join(", ")),
    }
}

/// `[[tenant]]`: processes that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// What they are called.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// Users that belong to it; any if there are none.
    #[serde(default)]
    pub uids: Vec<u32>,
    /// Groups that belong to it; any if there are none.
    #[serde(default)]
    pub gids: Vec<u32>,
    /// The control group, with all below it, that belongs to it.
    pub cgroup: Option<String>,
    /// The program that belongs to it.
    pub exe: Option<PathBuf>,
    /// What it may use as a whole.
    #[serde(default)]
    pub limits: LimitTable,
    /// What each of its users may use, in place of `limits.user`.
    #[serde(default)]
    pub user: LimitTable,
    /// What each of its contexts may use, in place of `limits.context`.
    #[serde(default)]
    pub context: LimitTable,
    /// Whether it may open contexts.
    #[serde(default = "yes")]
    pub connect: bool,
    /// Whether it may give walkers in other processes its page tables and files.
    #[serde(default = "yes")]
    pub export: bool,
    /// Whether it may use mock hardware.
    #[serde(default = "yes")]
    pub mock: bool,
    /// What it may map.
    #[serde(default, deserialize_with = "among")]
    pub sources: Among<SourceKind>,
    /// How firmly that may be held.
    #[serde(default, deserialize_with = "among")]
    pub strengths: Among<Strength>,
    /// What its frames may be.
    #[serde(default, deserialize_with = "among")]
    pub frames: Among<FrameSetting>,
    /// Where all that is written.
    #[serde(skip)]
    pub place: Arc<str>,
}

/// Some of the kinds of a thing, each by its word.
fn among<'de, D: Deserializer<'de>, T: Worded>(from: D) -> Result<Among<T>, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    let known = |word: &String| {
        let kind = T::EVERY.iter().copied().find(|kind| kind.word() == word);
        kind.ok_or_else(|| D::Error::custom(unknown_word(word, T::EVERY)))
    };
    words.iter().map(known).collect()
}

fn unknown_word<T: Worded>(word: &str, every: &[T]) -> String {
    let words: Vec<&str> = every.iter().map(|kind| kind.word()).collect();
    match nearest(word, words.iter().copied()) {
        Some(meant) => format!("unknown word {word:?}, did you mean {meant:?}?"),
        None => format!("unknown word {word:?}, there are {}", words.join(", ")),
    }
}

const fn yes() -> bool {
    true
}

fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name == "-" || !name.chars().all(plain) {
        return Err(D::Error::custom(format!(
            "the tenant name {name:?} is not made of letters, digits, -, _ and ."
        )));
    }
    Ok(name)
}

/// The tenants, each name once.
///
/// # Errors
/// If a name is given twice.
pub(super) fn tenants<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<TenantConfig>, D::Error> {
    let tenants = Vec::<TenantConfig>::deserialize(from)?;
    for (place, tenant) in tenants.iter().enumerate() {
        if tenants.iter().take(place).any(|other| other.name == tenant.name) {
            return Err(D::Error::custom(format!("there are two tenants with the name {:?}", tenant.name)));
        }
    }
    Ok(tenants)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn limits_are_hard_alone_or_soft_and_hard_over_a_base() {
        let config = read("[limits]\nhost = { pinned = \"1GiB\", areas = { soft = 5 } }\n").unwrap();
        let base = Limits::NONE.with(Resource::Objects, Limit::hard(3)).with(Resource::Areas, Limit::hard(9));
        let limits = config.limits.host.over(base);
        assert_eq!(limits.get(Resource::Pinned), Limit::hard(1 << 30));
        assert_eq!(limits.get(Resource::Areas), Limit { soft: 5, hard: u64::MAX });
        assert_eq!(limits.get(Resource::Objects), Limit::hard(3));
    }

    #[test]
    fn what_is_wrong_with_a_tenant_or_a_limit_is_said() {
        for (text, said) in [
            ("[[tenant]]\nuids = [1]\n", "missing field `name`"),
            ("[[tenant]]\nname = \"a b\"\n", "is not made of letters"),
            ("[[tenant]]\nname = \"a\"\n[[tenant]]\nname = \"a\"\n", "two tenants with the name"),
            ("[[tenant]]\nname = \"a\"\nuid = [1]\n", "unknown field `uid`"),
            (
                "[[tenant]]\nname = \"a\"\nsources = [\"memdf\"]\n",
                "unknown word \"memdf\", did you mean \"memfd\"?",
            ),
            (
                "[[tenant]]\nname = \"a\"\nstrengths = [\"automatic\"]\n",
                "unknown word \"automatic\", there are longterm, locked, resident, copy",
            ),
            ("[[tenant]]\nname = \"a\"\nframes = \"logical\"\n", "invalid type: string"),
            ("[limits]\nhost = { pined = 1 }\n", "unknown limit \"pined\", did you mean pinned?"),
            ("[limits]\nhost = { memory = 1 }\n", "unknown limit \"memory\", there are pinned, longterm"),
            ("[limits]\nhost = { pinned = \"much\" }\n", "expected a limit such as"),
            ("[limits]\nuser = { pinned = { soft = 2, hard = 1 } }\n", "soft limit of pinned is above"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
