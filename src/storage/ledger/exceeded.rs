//! Why an account refused something: who asked, whose limit it is, what is used, what was needed.
//!
//! It has one text, which the client, the journal and `explain` show alike.
//!
//! Imports allowed: error, holder, resource.

use std::fmt;
use std::sync::Arc;

use super::holder::{Holder, Level};
use super::resource::Resource;
use crate::error::{Coded, Errno};

/// A hard limit would be passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Who asked.
    pub who: Arc<Holder>,
    /// The level of its path whose limit it is.
    pub level: Level,
    /// Of what.
    pub resource: Resource,
    /// In use there.
    pub used: u64,
    /// The limit.
    pub limit: u64,
    /// Wanted on top.
    pub needed: u64,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, level, resource, used, limit, needed } = self;
        let level = level.name();
        write!(
            f,
            "{who} needs {needed} {resource} more, but its {level} has {used} of the {limit} it may have: "
        )?;
        write!(f, "{}, or raise the limit {} of the {level}", resource.remedy(), resource.name())
    }
}

impl std::error::Error for Exceeded {}

impl Coded for Exceeded {
    fn errno(&self) -> Errno {
        self.resource.errno()
    }

    fn code(&self) -> &'static str {
        self.resource.code()
    }
}
