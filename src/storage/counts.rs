//! The three counts of a pages object, which must never be taken for one another.
//!
//! [`ArrayLen`] is how long the array is and never changes; [`Pinned`] is how many of its pages hold a pin now;
//! [`Charged`] is how many pages the account has been billed for. They can be neither compared nor added nor assigned
//! to each other. The one bridge is [`Charged::settle`], which tells by how much the bill is behind the pins.
//!
//! Within one type everything works:
//! ```
//! use ioasd::storage::counts::{ArrayLen, Charged, Delta, Pinned};
//! let (len, mut pinned, mut charged) = (ArrayLen::new(9), Pinned::new(3), Charged::new(1));
//! assert!(len == ArrayLen::new(9) && pinned > Pinned::new(1));
//! charged = charged.apply(charged.settle(pinned));
//! assert_eq!(charged, Charged::new(3));
//! pinned = Pinned::new(0);
//! assert_eq!(charged.settle(pinned), Delta::fewer(3));
//! ```
//! Pins are not compared with the bill, nor the bill with the length:
//! ```compile_fail,E0308
//! use ioasd::storage::counts::{Charged, Pinned};
//! let (pinned, charged) = (Pinned::new(3), Charged::new(1));
//! assert!(pinned > charged);
//! ```
//! ```compile_fail,E0308
//! use ioasd::storage::counts::{ArrayLen, Charged};
//! let (len, charged) = (ArrayLen::new(9), Charged::new(1));
//! assert!(len > charged);
//! ```
//! They are not added:
//! ```compile_fail,E0369
//! use ioasd::storage::counts::{Charged, Pinned};
//! let (pinned, charged) = (Pinned::new(3), Charged::new(1));
//! let _sum = pinned + charged;
//! ```
//! They are not assigned, in either direction:
//! ```compile_fail,E0308
//! use ioasd::storage::counts::{Charged, Pinned};
//! let (pinned, mut charged) = (Pinned::new(3), Charged::new(1));
//! charged = pinned;
//! ```
//! ```compile_fail,E0308
//! use ioasd::storage::counts::{ArrayLen, Pinned};
//! let (len, mut pinned) = (ArrayLen::new(9), Pinned::new(3));
//! pinned = len;
//! ```
//! And a bill is settled with pins only:
//! ```compile_fail,E0308
//! use ioasd::storage::counts::{ArrayLen, Charged};
//! let (len, charged) = (ArrayLen::new(9), Charged::new(1));
//! let _delta = charged.settle(len);
//! ```
//!
//! Imports allowed: `std` only.

use std::fmt;
use std::num::NonZeroU64;

macro_rules! count {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// A count of `pages`.
            #[must_use]
            pub const fn new(pages: u64) -> Self {
                Self(pages)
            }

            /// The number of pages.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

count!(
    /// Pages of the array, pinned or not: fixed when the object is made.
    ArrayLen
);
count!(
    /// Pages that hold a pin now.
    Pinned
);
count!(
    /// Pages that the account has been billed for.
    Charged
);

/// By how many pages a bill changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delta {
    /// Not at all.
    None,
    /// The account pays for this many more.
    More(NonZeroU64),
    /// The account gets this many back.
    Fewer(NonZeroU64),
}

impl Delta {
    /// `pages` more; [`Delta::None`] for 0.
    #[must_use]
    pub fn more(pages: u64) -> Self {
        NonZeroU64::new(pages).map_or(Self::None, Self::More)
    }

    /// `pages` fewer; [`Delta::None`] for 0.
    #[must_use]
    pub fn fewer(pages: u64) -> Self {
        NonZeroU64::new(pages).map_or(Self::None, Self::Fewer)
    }

    /// What undoes this change.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::None => Self::None,
            Self::More(pages) => Self::Fewer(pages),
            Self::Fewer(pages) => Self::More(pages),
        }
    }
}

impl Charged {
    /// What has to be charged or credited so that the bill equals the pins.
    #[must_use]
    pub fn settle(self, pinned: Pinned) -> Delta {
        if pinned.0 >= self.0 { Delta::more(pinned.0 - self.0) } else { Delta::fewer(self.0 - pinned.0) }
    }

    /// The bill after `delta`.
    #[must_use]
    pub fn apply(self, delta: Delta) -> Self {
        let after = match delta {
            Delta::None => Some(self.0),
            Delta::More(pages) => self.0.checked_add(pages.get()),
            Delta::Fewer(pages) => self.0.checked_sub(pages.get()),
        };
        debug_assert!(after.is_some(), "{delta:?} does not fit a bill of {self} pages");
        Self(after.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_bill_equals_the_pins() {
        for (charged, pinned) in [(0, 0), (0, 7), (7, 0), (5, 9), (9, 5), (u64::MAX, 0), (0, u64::MAX)] {
            let delta = Charged::new(charged).settle(Pinned::new(pinned));
            assert_eq!(Charged::new(charged).apply(delta), Charged::new(pinned));
            assert_eq!(Charged::new(pinned).apply(delta.reversed()), Charged::new(charged));
        }
        assert_eq!(Charged::new(4).settle(Pinned::new(4)), Delta::None);
    }
}
