//! Rights: what a tenant may do and have, and what is said where it may not.
//!
//! A refusal has one text, which the client, the journal and `explain` show alike: who asked for what, which right is
//! missing, what it allows, and where that is written.
//!
//! Imports allowed: error, storage's ledger, refusals and words for memory.

use std::fmt;
use std::sync::Arc;

use crate::error::{Coded, Errno};
use crate::storage::among::{Among, Worded};
use crate::storage::ledger::holder::Holder;
use crate::storage::source::{FrameSetting, SourceKind, Strength};

/// Whether something is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Right {
    /// It is.
    #[default]
    Granted,
    /// It is not.
    Denied,
}

/// What a tenant may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Open contexts.
    pub connect: Right,
    /// Give walkers in other processes page tables and files.
    pub export: Right,
    /// Use mock hardware, where there is some.
    pub mock: Right,
    /// What it may map.
    pub sources: Among<SourceKind>,
    /// How firmly that may be held.
    pub strengths: Among<Strength>,
    /// What its frames may be.
    pub frames: Among<FrameSetting>,
}

/// Something that is done or not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Opening a context.
    Connect,
    /// Giving a domain to walkers.
    Export,
    /// Using mock hardware.
    Mock,
}

impl Deed {
    /// The key of the right.
    const fn key(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Export => "export",
            Self::Mock => "mock",
        }
    }

    const fn of(self, rights: Rights) -> Right {
        match self {
            Self::Connect => rights.connect,
            Self::Export => rights.export,
            Self::Mock => rights.mock,
        }
    }

    const fn asked(self) -> &'static str {
        match self {
            Self::Connect => "open a context",
            Self::Export => "give its domains to walkers",
            Self::Mock => "use mock hardware",
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Connect => "connect-denied",
            Self::Export => "export-denied",
            Self::Mock => "mock-denied",
        }
    }

    const fn errno(self) -> Errno {
        match self {
            Self::Connect | Self::Export => Errno::ACCESS,
            Self::Mock => Errno::PERM,
        }
    }
}

/// The rights of the tenant of somebody who asks.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What it may do.
    pub rights: Rights,
    /// Where that is written.
    pub place: Arc<str>,
}

/// A right is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{who} may not {asked}: its tenant has {key} = {allowed}, in {place}")]
pub struct Denied {
    /// Who asked.
    pub who: Arc<Holder>,
    /// For what.
    pub asked: String,
    /// The key of the right.
    pub key: &'static str,
    /// What is allowed, as it is written.
    pub allowed: String,
    /// Where that is written.
    pub place: Arc<str>,
    /// Errno for the client.
    pub errno: Errno,
    /// Stable code.
    pub code: &'static str,
}

impl Coded for Denied {
    fn errno(&self) -> Errno {
        self.errno
    }

    fn code(&self) -> &'static str {
        self.code
    }
}

impl Granted {
    /// Whether `who` may do that.
    ///
    /// # Errors
    /// EACCES or EPERM if not.
    pub fn may(&self, deed: Deed, who: &Arc<Holder>) -> Result<(), Denied> {
        match deed.of(self.rights) {
            Right::Granted => Ok(()),
            Right::Denied => Err(Denied {
                errno: deed.errno(),
                ..self.denied(who, deed.asked().to_owned(), (deed.key(), &"false", deed.code()))
            }),
        }
    }

    /// Whether `who` may map such memory at all.
    ///
    /// # Errors
    /// EPERM if not.
    pub fn may_map(&self, source: SourceKind, who: &Arc<Holder>) -> Result<(), Denied> {
        let allowed = self.rights.sources;
        let asked = || format!("map {}, which is of source {}", source.what(), source.word());
        let refused = || self.denied(who, asked(), ("sources", &allowed, "source-denied"));
        allowed.has(source).then_some(()).ok_or_else(refused)
    }

    /// Whether `who` may have memory whose frames are such.
    ///
    /// # Errors
    /// EPERM if not.
    pub fn may_have(&self, frames: FrameSetting, who: &Arc<Holder>) -> Result<(), Denied> {
        let allowed = self.rights.frames;
        let asked = || format!("map memory whose frames are {}", frames.word());
        let refused = || self.denied(who, asked(), ("frames", &allowed, "frames-denied"));
        allowed.has(frames).then_some(()).ok_or_else(refused)
    }

    /// The strengths of `possible` that `who` may have memory held at.
    ///
    /// # Errors
    /// EPERM if that is none of them.
    pub fn may_hold(&self, possible: Among<Strength>, who: &Arc<Holder>) -> Result<Among<Strength>, Denied> {
        let allowed = self.rights.strengths;
        let words = || possible.each().map(Worded::word).collect::<Vec<_>>().join(" or ");
        let asked = || format!("map memory that can be held at strength {}", words());
        let refused = || self.denied(who, asked(), ("strengths", &allowed, "strength-denied"));
        let left = possible.and(allowed);
        (!left.is_empty()).then_some(left).ok_or_else(refused)
    }

    fn denied(
        &self,
        who: &Arc<Holder>,
        asked: String,
        (key, allowed, code): (&'static str, &dyn fmt::Display, &'static str),
    ) -> Denied {
        let (who, place) = (Arc::clone(who), Arc::clone(&self.place));
        Denied { who, asked, key, allowed: allowed.to_string(), place, errno: Errno::PERM, code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ledger::holder::TenantName;

    fn guests(rights: Rights) -> (Granted, Arc<Holder>) {
        let who = Holder::of_context(TenantName::named("guests"), 1000, 7);
        (Granted { rights, place: "[[tenant]] guests, x.toml:3".into() }, Arc::new(who))
    }

    #[test]
    fn what_is_not_granted_is_refused_with_who_what_which_and_where() {
        let (granted, who) = guests(Rights {
            mock: Right::Denied,
            connect: Right::Denied,
            sources: [SourceKind::Memfd].into_iter().collect(),
            strengths: [Strength::Locked, Strength::Longterm].into_iter().collect(),
            frames: [FrameSetting::Physical].into_iter().collect(),
            ..Rights::default()
        });
        let weak = [Strength::Resident, Strength::Copy].into_iter().collect();
        let head = "host, tenant guests, user 1000, context 7 may not ";
        for (refused, code, errno, text) in [
            (
                granted.may(Deed::Mock, &who).unwrap_err(),
                "mock-denied",
                Errno::PERM,
                "use mock hardware: its tenant has mock = false",
            ),
            (
                granted.may(Deed::Connect, &who).unwrap_err(),
                "connect-denied",
                Errno::ACCESS,
                "open a context: its tenant has connect = false",
            ),
            (
                granted.may_map(SourceKind::Process, &who).unwrap_err(),
                "source-denied",
                Errno::PERM,
                "map private memory of a process, which is of source process: its tenant has sources = [\"memfd\"]",
            ),
            (
                granted.may_hold(weak, &who).unwrap_err(),
                "strength-denied",
                Errno::PERM,
                "map memory that can be held at strength resident or copy: its tenant has strengths = [\"longterm\", \"locked\"]",
            ),
            (
                granted.may_have(FrameSetting::Logical, &who).unwrap_err(),
                "frames-denied",
                Errno::PERM,
                "map memory whose frames are logical: its tenant has frames = [\"physical\"]",
            ),
        ] {
            assert_eq!((refused.code(), refused.errno()), (code, errno));
            assert_eq!(refused.to_string(), format!("{head}{text}, in [[tenant]] guests, x.toml:3"));
        }
        assert_eq!(granted.may(Deed::Export, &who), Ok(()));
    }

    #[test]
    fn the_strongest_that_is_possible_and_allowed_is_left() {
        let (granted, who) = guests(Rights {
            strengths: [Strength::Resident, Strength::Locked].into_iter().collect(),
            ..Rights::default()
        });
        let left = granted.may_hold(Among::all(), &who).unwrap();
        assert_eq!(left.each().collect::<Vec<_>>(), [Strength::Locked, Strength::Resident]);
        let (granted, who) = guests(Rights::default());
        assert_eq!(granted.may_hold(Among::all(), &who), Ok(Among::all()));
        assert!(SourceKind::EVERY.iter().all(|source| granted.may_map(*source, &who).is_ok()));
    }
}
