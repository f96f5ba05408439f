//! Object ids: one type for each kind of object, so that no two of them can be swapped.
//!
//! Ids are local to one context: 1 to 0x7fffffff, lowest free first, reused at once; 0 never exists. What a client sends
//! is only a claim: the agent looks every id up and finds an object of that kind, or answers ENOENT.
//!
//! Imports allowed: `std` only.

use std::fmt;

/// Declares an id type.
macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u32);

        impl $name {
            /// Wraps a raw id.
            #[must_use]
            pub const fn new(raw: u32) -> Self {
                Self(raw)
            }

            /// The raw id.
            #[must_use]
            pub const fn get(self) -> u32 {
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

/// Declares the id type of one kind of object, which is also an [`ObjectId`].
macro_rules! kind {
    ($(#[$meta:meta])* $name:ident) => {
        id!($(#[$meta])* $name);

        impl From<$name> for ObjectId {
            fn from(id: $name) -> Self {
                Self(id.0)
            }
        }
    };
}

id!(
    /// An object of any kind.
    ObjectId
);
kind!(
    /// An IO address space.
    IoasId
);
kind!(
    /// The object that wraps a domain.
    HwptId
);
kind!(
    /// What attaches to an address space.
    DeviceId
);
kind!(
    /// A software user of an address space.
    AccessId
);
