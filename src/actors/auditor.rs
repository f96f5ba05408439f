//! Auditor: compares what the agent says is held with what the kernel counts for its process.
//!
//! They cannot always agree to the byte. The kernel counts a huge page whole although a part is pinned, and once although
//! several sources pin it; it never counts locks of hugetlb pages. And pins move between two looks. So the auditor speaks
//! only of what lasts from one look to the next, and only one thing is an error: that the kernel still holds something
//! although nothing is pinned.
//!
//! Imports allowed: units, `storage::source`, sys, the registry.

use std::fmt;

use ioasd_client::units::ByteLen;

use super::registry::{Registry, Snapshot};
use crate::storage::source::Strength;
use crate::sys::own_memory::{KernelView, kernel_view};

/// Bytes held, by strength.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Pinned long-term.
    pub longterm: ByteLen,
    /// Locked.
    pub locked: ByteLen,
}

impl Held {
    /// What the agent says.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let sum = |strength| {
            let those = snapshot.pages.iter().filter(|entry| entry.stats.strength == strength);
            ByteLen::new(those.map(|entry| entry.stats.held.get().get()).sum())
        };
        Self { longterm: sum(Strength::Longterm), locked: sum(Strength::Locked) }
    }

    /// What the kernel counts now; `None` if it does not tell.
    #[must_use]
    pub fn by_kernel_now() -> Option<Self> {
        kernel_view().ok().map(Self::by_kernel)
    }

    /// What the kernel counts.
    #[must_use]
    pub const fn by_kernel(view: KernelView) -> Self {
        Self { longterm: view.pinned, locked: view.locked }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes longterm, {} bytes locked", self.longterm.get(), self.locked.get())
    }
}

/// How two accounts of one thing compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// They agree.
    #[default]
    Agree,
    /// They differ, as they may where pages are huge.
    Differ,
    /// The kernel holds what nobody pinned.
    Leak,
}

impl Verdict {
    /// The verdict on what the agent says and what the kernel counts.
    #[must_use]
    pub fn on(agent: Held, kernel: Held) -> Self {
        let nothing = ByteLen::new(0);
        let leaks = |says: ByteLen, counts: ByteLen| says == nothing && counts > nothing;
        if leaks(agent.longterm, kernel.longterm) || leaks(agent.locked, kernel.locked) {
            Self::Leak
        } else if agent == kernel {
            Self::Agree
        } else {
            Self::Differ
        }
    }
}

/// Looks now and then, and remembers the last look.
#[derive(Debug, Default)]
pub struct Auditor {
    last: Option<(Held, Held)>,
    said: Verdict,
}

impl Auditor {
    /// Looks at the agent of this process; says in the log what is new and was so at the last look already.
    pub fn look(&mut self, registry: &Registry) {
        match kernel_view() {
            Ok(view) => self.compare(Held::of(&registry.snapshot()), Held::by_kernel(view)),
            Err(error) => tracing::debug!(%error, "the kernel's figures cannot be read"),
        }
    }

    fn compare(&mut self, agent: Held, kernel: Held) {
        let lasts = self.last.replace((agent, kernel)) == Some((agent, kernel));
        let verdict = Verdict::on(agent, kernel);
        if !lasts || verdict == self.said {
            return;
        }
        self.said = verdict;
        match verdict {
            Verdict::Agree => tracing::info!(held = %kernel, "the kernel holds what the agent says"),
            Verdict::Differ => {
                tracing::info!(agent = %agent, kernel = %kernel, "the kernel counts otherwise, as for huge pages");
            }
            Verdict::Leak => {
                tracing::error!(agent = %agent, kernel = %kernel, "the kernel holds memory that nobody has pinned");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(longterm: u64, locked: u64) -> Held {
        Held { longterm: ByteLen::new(longterm), locked: ByteLen::new(locked) }
    }

    #[test]
    fn only_what_nobody_pinned_is_a_leak() {
        assert_eq!(Verdict::on(held(5, 6), held(5, 6)), Verdict::Agree);
        assert_eq!(Verdict::on(held(5, 6), held(7, 0)), Verdict::Differ);
        assert_eq!(Verdict::on(held(0, 6), held(4096, 6)), Verdict::Leak);
        assert_eq!(Verdict::on(held(5, 0), held(5, 4096)), Verdict::Leak);
    }

    #[test]
    fn a_difference_must_last_before_it_is_said_and_is_said_once() {
        let mut auditor = Auditor::default();
        let said = |auditor: &mut Auditor, agent, kernel| {
            auditor.compare(agent, kernel);
            auditor.said
        };
        assert_eq!(said(&mut auditor, held(0, 0), held(1, 0)), Verdict::Agree);
        assert_eq!(said(&mut auditor, held(0, 0), held(2, 0)), Verdict::Agree, "it moves");
        assert_eq!(said(&mut auditor, held(0, 0), held(2, 0)), Verdict::Leak);
        assert_eq!(said(&mut auditor, held(0, 0), held(0, 0)), Verdict::Leak);
        assert_eq!(said(&mut auditor, held(0, 0), held(0, 0)), Verdict::Agree);
    }
}
