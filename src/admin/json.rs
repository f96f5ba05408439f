//! How answers are written: indented, so that a browser shows them readably. Addresses are strings in hex, because JSON
//! numbers lose bits above 2^53 in many readers; sizes are integers of bytes; times are RFC 3339.
//!
//! Imports allowed: units, `actix_web`, `serde_json`, `time`, `utoipa`.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, ContentType};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

/// An address or the bits of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, pattern = "^0x[0-9a-f]{1,16}$", example = "0x100000")]
pub(crate) struct Hex(pub(crate) u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address below 2^64, write it in hex with 0x, or in decimal")]
pub(crate) struct NotAnAddress(String);

impl FromStr for Hex {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let address = plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten();
        address.map(Self).ok_or_else(|| NotAnAddress(text.to_owned()))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Listed<T> {
    /// The rows.
    pub(crate) items: Vec<T>,
    /// What `after` must be to get the rest; `None` at the end.
    pub(crate) next: Option<String>,
}

/// A time, to the second.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time).replace_nanosecond(0);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// The answer that shows `value`.
pub(super) fn shown(value: &impl Serialize) -> HttpResponse {
    match serde_json::to_string_pretty(value) {
        Ok(mut text) => {
            text.push('\n');
            let mut response = HttpResponse::Ok();
            response.insert_header((CACHE_CONTROL, "no-store")).content_type(ContentType::json()).body(text)
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written");
            HttpResponse::InternalServerError().finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_are_hex_strings_and_read_back() {
        let text = serde_json::to_string(&Hex(u64::MAX)).unwrap();
        assert_eq!(text, "\"0xffffffffffffffff\"");
        assert_eq!(serde_json::from_str::<Hex>(&text).unwrap(), Hex(u64::MAX));
        for (text, address) in [("0x10", 16), ("10", 10), ("0", 0), ("0xABCdef", 0xabc_def)] {
            assert_eq!(text.parse(), Ok(Hex(address)), "{text}");
        }
        for bad in ["", "0x", "10h", "-1", "+1", "0x+1", "ff", "0x1_0", " 1", "0x10000000000000000"] {
            assert_eq!(bad.parse::<Hex>(), Err(NotAnAddress(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn times_are_utc_to_the_second() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_999);
        assert_eq!(rfc3339(time), "2001-09-09T01:46:40Z");
    }
}
