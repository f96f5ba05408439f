//! The words for what an operation does, and for what it waits.
//!
//! Imports allowed: storage's orders.

use crate::storage::order::Order;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    /// Nothing yet.
    Beginning,
    /// Pages are put into domains.
    Filling,
    /// Pages are pinned for an access.
    Pinning,
    /// Bytes are moved for an access.
    Moving,
    /// What was filled or pinned is taken back, because that failed or was cancelled.
    Undoing,
    /// Pages are taken out of domains.
    TakingOut,
    /// Pages are let go of.
    LettingGo,
}

impl Doing {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Beginning,
        Self::Filling,
        Self::Pinning,
        Self::Moving,
        Self::Undoing,
        Self::TakingOut,
        Self::LettingGo,
    ];

    /// What a movement does.
    #[must_use]
    pub const fn of(order: &Order) -> Self {
        match order {
            Order::Fill { .. } => Self::Filling,
            Order::PinAccess(_) => Self::Pinning,
            Order::Transfer(_) => Self::Moving,
            Order::Unfill { .. } | Order::UnmapFrom { .. } | Order::Split { .. } => Self::TakingOut,
            Order::Release(_) | Order::UnpinAccess(_) => Self::LettingGo,
        }
    }

    /// Whether it takes back what something else has done.
    #[must_use]
    pub const fn takes_back(self) -> bool {
        matches!(self, Self::TakingOut | Self::LettingGo)
    }

    /// The word used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Beginning => "beginning",
            Self::Filling => "filling",
            Self::Pinning => "pinning",
            Self::Moving => "moving",
            Self::Undoing => "undoing",
            Self::TakingOut => "taking-out",
            Self::LettingGo => "letting-go",
        }
    }
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Waiting {
    /// For others that are at work on the same objects.
    Turn,
    /// For earlier movements of the same pages.
    Pages,
    /// For a credit of those who write tables.
    Credits,
    /// For pages to be pinned or unpinned.
    Pins,
    /// For tables to be written or read.
    Tables,
    /// For walkers to leave what was unmapped.
    Walkers,
    /// For accesses to let go.
    Accesses,
}

impl Waiting {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Turn, Self::Pages, Self::Credits, Self::Pins, Self::Tables, Self::Walkers, Self::Accesses];

    /// The word used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Pages => "pages",
            Self::Credits => "credits",
            Self::Pins => "pins",
            Self::Tables => "tables",
            Self::Walkers => "walkers",
            Self::Accesses => "accesses",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_numbers_they_are_kept_as() {
        for (place, doing) in Doing::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(doing as u8), place);
        }
        for (place, waiting) in Waiting::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(waiting as u8), place);
        }
    }
}
