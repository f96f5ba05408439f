//! Values that a setting can have, and how they are written.
//!
//! Sizes are bytes or a whole number with a unit (`"64MiB"`), durations a whole number with a unit (`"10s"`). Both are
//! stricter than the usual crates: no fractions, no unit that could be read two ways.
//!
//! Imports allowed: units, `storage::source`, `admin::{door, listen}`, `telemetry::logging`.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ioasd_client::units::ByteLen;
use rustix::process::Uid;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::admin::door::Scope;
use crate::admin::listen::{AddressError, LoopbackAddr};
use crate::storage::source::{FrameSetting, ProcessSetting, StrengthSetting};
use crate::telemetry::logging;

/// Why a text is not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a size.
    #[error(
        "{0:?} is not a size below 2^64 bytes, write a whole number with B, KiB, MiB, GiB or TiB, for example \"64MiB\""
    )]
    Size(String),
    /// Not a duration.
    #[error("{0:?} is not a duration, write a whole number with ms, s, m or h, for example \"10s\"")]
    Duration(String),
    /// Not permission bits.
    #[error("{0:?} is not a file mode, write three octal digits after a 0, for example \"0660\"")]
    FileMode(String),
    /// Not a strength.
    #[error("{0:?} is not a strength, write \"auto\", \"longterm\", \"locked\" or \"resident\"")]
    Strength(String),
    /// Not an address and a port.
    #[error("{0:?} is not an IP address and a port, write for example \"192.0.2.1:9885\", or \"off\"")]
    Address(String),
    /// Not a path.
    #[error("an empty text is no path, write one or \"off\"")]
    Path,
}

const SIZE_UNITS: [(&str, u64); 5] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];
const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// Reads a size: `"64MiB"`, or a plain number of bytes.
///
/// # Errors
/// If it is not a whole number with a known unit, or does not fit in 64 bits.
pub fn parse_size(text: &str) -> Result<ByteLen, ValueError> {
    let bytes = whole(text).or_else(|| scaled(text, &SIZE_UNITS));
    bytes.map(ByteLen::new).ok_or_else(|| ValueError::Size(text.to_owned()))
}

/// Reads a duration: `"10s"`, `"1500ms"`.
///
/// # Errors
/// If it is not a whole number with a known unit.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let milliseconds = scaled(text, &DURATION_UNITS);
    milliseconds.map(Duration::from_millis).ok_or_else(|| ValueError::Duration(text.to_owned()))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    whole(number.trim_end())?.checked_mul(*factor)
}

/// Digits only: the standard parser would take a sign too.
fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a size such as \"64MiB\" or a number of bytes")]
enum SizeText {
    Bytes(u64),
    Text(String),
}

pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<ByteLen, D::Error> {
    match SizeText::deserialize(from)? {
        SizeText::Bytes(bytes) => Ok(ByteLen::new(bytes)),
        SizeText::Text(text) => parse_size(&text).map_err(D::Error::custom),
    }
}

/// A number of bytes or pieces, as a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub u64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        size(from).map(|bytes| Self(bytes.get()))
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

pub(super) fn log_filter<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let filter = String::deserialize(from)?;
    logging::parse(&filter).map(|_| filter).map_err(D::Error::custom)
}

pub(super) fn strength<'de, D: Deserializer<'de>>(from: D) -> Result<StrengthSetting, D::Error> {
    let name = String::deserialize(from)?;
    StrengthSetting::parse(&name).ok_or_else(|| D::Error::custom(ValueError::Strength(name)))
}

/// Permission bits of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileMode(u32);

impl FileMode {
    /// The owner may read and write.
    pub const OWNER: Self = Self(0o600);

    /// Owner and group may read and write.
    pub const GROUP: Self = Self(0o660);

    /// Reads octal permission bits: `"0660"`.
    ///
    /// # Errors
    /// If the text is anything else.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let bits = text.strip_prefix('0').filter(|digits| digits.len() == 3 && !digits.starts_with('+'));
        let bits = bits.and_then(|digits| u32::from_str_radix(digits, 8).ok());
        bits.map(Self).ok_or_else(|| ValueError::FileMode(text.to_owned()))
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06o}", self.0)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// How many threads to start; written as a number, 0 for one per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadCount {
    /// One for each CPU the agent may use.
    PerCpu,
    /// This many.
    Fixed(NonZeroUsize),
}

impl ThreadCount {
    /// The number of threads on a host with `cpus` usable CPUs.
    #[must_use]
    pub const fn resolve(self, cpus: NonZeroUsize) -> NonZeroUsize {
        match self {
            Self::PerCpu => cpus,
            Self::Fixed(count) => count,
        }
    }
}

impl<'de> Deserialize<'de> for ThreadCount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let count = usize::from(u16::deserialize(from)?);
        Ok(NonZeroUsize::new(count).map_or(Self::PerCpu, Self::Fixed))
    }
}

/// The admin server's TCP address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// No TCP.
    Off,
    /// This address.
    At(LoopbackAddr),
}

impl Listen {
    /// The address, if there is one.
    #[must_use]
    pub const fn address(self) -> Option<LoopbackAddr> {
        match self {
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self::At(LoopbackAddr::DEFAULT)
    }
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(Self::At) }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Reads a TCP address, or `"off"`.
pub(super) fn address_or_off<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    let address = || text.parse().map_err(|_| D::Error::custom(ValueError::Address(text.clone())));
    if text == "off" { Ok(None) } else { address().map(Some) }
}

/// Reads the path of a file, or `"off"`.
pub(super) fn file_or_off<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    match String::deserialize(from)?.as_str() {
        "off" => Ok(None),
        "" => Err(D::Error::custom(ValueError::Path)),
        path => Ok(Some(PathBuf::from(path))),
    }
}

/// What the admin server shows through TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScopeChoice {
    /// Everything that reads for an unprivileged agent, metrics only for root's.
    #[default]
    Auto,
    /// Whether the agent lives and what it counts.
    Metrics,
    /// Everything that only reads.
    Full,
}

impl ScopeChoice {
    /// The scope for an agent of user `uid`.
    #[must_use]
    pub const fn resolve(self, uid: Uid) -> Scope {
        match self {
            Self::Full => Scope::Full,
            Self::Auto if !uid.is_root() => Scope::Full,
            Self::Auto | Self::Metrics => Scope::Metrics,
        }
    }
}

/// What the frames in IO page tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frames {
    /// Places in files, for walkers in other processes.
    Logical,
    /// Page frames of the host.
    Physical,
}

impl From<Frames> for FrameSetting {
    fn from(frames: Frames) -> Self {
        match frames {
            Frames::Logical => Self::Logical,
            Frames::Physical => Self::Physical,
        }
    }
}

/// How memory of processes is reached that is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessMemory {
    /// Pinned by its process if that can, else copied.
    Auto,
    /// Pinned, or refused.
    Pin,
    /// Copied.
    Copy,
    /// Not at all.
    Refuse,
}

impl From<ProcessMemory> for ProcessSetting {
    fn from(setting: ProcessMemory) -> Self {
        match setting {
            ProcessMemory::Auto => Self::Auto,
            ProcessMemory::Pin => Self::Pin,
            ProcessMemory::Copy => Self::Copy,
            ProcessMemory::Refuse => Self::Refuse,
        }
    }
}

/// What to do when a walker does not leave a range that is being unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalkerPolicy {
    /// Wait as long as it takes; the range keeps retiring.
    Wait,
    /// Answer the request ETIMEDOUT; the range keeps retiring.
    Fail,
    /// Kill the walker's process.
    Kill,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_with_a_binary_unit() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("5B", 5), ("1GiB", 1 << 30), ("2 TiB", 2 << 40)] {
            assert_eq!(parse_size(text), Ok(ByteLen::new(bytes)), "{text}");
        }
        assert_eq!(parse_size("18446744073709551615"), Ok(ByteLen::new(u64::MAX)));
        for bad in ["", "GiB", "1GB", "1.5GiB", "-1", "+1", " 1", "16777216TiB", "1gib", "1G", "0x10"] {
            assert_eq!(parse_size(bad), Err(ValueError::Size(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        for (text, milliseconds) in
            [("10s", 10_000), ("1500ms", 1500), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "10", "s", "1.5s", "-1s", "1d", "18446744073709551615h"] {
            assert_eq!(parse_duration(bad), Err(ValueError::Duration(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn file_modes_are_octal() {
        assert_eq!(FileMode::parse("0660"), Ok(FileMode::GROUP));
        assert_eq!(FileMode::parse("0600"), Ok(FileMode::OWNER));
        for bad in ["", "660", "0999", "00660", "0+60", "1660", "rw-"] {
            assert_eq!(FileMode::parse(bad), Err(ValueError::FileMode(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn thread_counts_follow_the_cpus_unless_fixed() {
        let [two, eight] = [2, 8].map(|count| NonZeroUsize::new(count).unwrap());
        assert_eq!(ThreadCount::PerCpu.resolve(eight), eight);
        assert_eq!(ThreadCount::Fixed(two).resolve(eight), two);
    }

    #[test]
    fn listen_takes_off_and_loopback_only() {
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert_eq!("127.0.0.1:9884".parse(), Ok(Listen::default()));
        assert!("0.0.0.0:9884".parse::<Listen>().is_err());
    }
}
