//! The journal: what happened lately, for whoever asks why. It lives in memory and forgets the oldest.
//!
//! Whoever sees something happen tells it. What is told twice in a row is one event that counts, so that a client whose
//! requests are refused again and again does not wash away everything else. Whoever follows it is woken and reads on from the
//! last number it knows: nothing is kept for it, so that a slow reader costs nothing and misses what is forgotten meanwhile.
//!
//! Imports allowed: `std`, `tokio`'s watch, number, figures, storage's refusals, `sys::socket`'s credentials.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, SystemTime};

use ioasd_client::ids::ObjectId;
use tokio::sync::watch;

use super::figures::ContextStats;
use super::number::Number;
use crate::error::Coded;
use crate::storage::ledger::node::Crossing;
use crate::storage::refusal::Refusal;
use crate::sys::socket::Credentials;

/// Events that are kept.
pub const KEPT: usize = 1000;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A context was opened.
    Opened,
    /// A context is gone, with all it held.
    Closed,
    /// A request was refused.
    Refused,
    /// A walker opened a domain.
    Walked,
    /// Walkers have not left what was unmapped for longer than they should.
    WalkersLate,
    /// A client was not served.
    Denied,
    /// An account uses more than its soft limit.
    SoftLimit,
    /// The process of a walker that did not leave was killed, or could not be.
    WalkerKilled,
    /// Walkers that were late have left.
    WalkersLeft,
    /// The agent was told to end.
    Stopping,
    /// An operator changed something.
    Changed,
    /// The configuration was to be read again, and is wrong.
    NotReloaded,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Opened,
        Self::Closed,
        Self::Refused,
        Self::Walked,
        Self::WalkersLate,
        Self::Denied,
        Self::SoftLimit,
        Self::WalkerKilled,
        Self::WalkersLeft,
        Self::Stopping,
        Self::Changed,
        Self::NotReloaded,
    ];

    /// The word used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::Walked => "walked",
            Self::WalkersLate => "walkers-late",
            Self::Denied => "denied",
            Self::SoftLimit => "soft-limit",
            Self::WalkerKilled => "walker-killed",
            Self::WalkersLeft => "walkers-left",
            Self::Stopping => "stopping",
            Self::Changed => "changed",
            Self::NotReloaded => "not-reloaded",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// What kind of event it is.
    pub kind: Kind,
    /// The context it happened to.
    pub context: Option<u64>,
    /// The command that was refused, and the stable code of why.
    pub refused: Option<(&'static str, &'static str)>,
    /// The same for people.
    pub text: String,
}

impl Happening {
    /// A context was opened.
    #[must_use]
    pub fn opened(context: Number<ContextStats>, stats: &ContextStats) -> Self {
        let who = stats.program.comm.as_deref().unwrap_or("a program that cannot be seen");
        let pid = stats.pid.map(|pid| format!(", process {}", pid.as_raw_pid())).unwrap_or_default();
        let text = format!("opened by {who:?}{pid}, user {}", stats.uid.as_raw());
        Self { text, ..Self::plain(Kind::Opened, Some(context)) }
    }

    /// A context is gone.
    #[must_use]
    pub fn closed(context: Number<ContextStats>) -> Self {
        Self { text: "closed".to_owned(), ..Self::plain(Kind::Closed, Some(context)) }
    }

    /// A request was refused.
    #[must_use]
    pub fn refused(context: Number<ContextStats>, command: &'static str, refusal: &Refusal) -> Self {
        let refused = Some((command, refusal.code()));
        Self { refused, text: refusal.to_string(), ..Self::plain(Kind::Refused, Some(context)) }
    }

    /// A process opened the domain of `hwpt` as a walker: it has the files behind it from now on.
    #[must_use]
    pub fn walked(context: Number<ContextStats>, hwpt: ObjectId, who: Option<Credentials>) -> Self {
        let pid = who.and_then(|who| who.pid).map(|pid| format!("process {}, ", pid.as_raw_pid()));
        let user = who.map_or_else(|| "a user not known".to_owned(), |who| format!("user {}", who.uid));
        let text = format!("hwpt {hwpt} was opened by a walker: {}{user}", pid.unwrap_or_default());
        Self { text, ..Self::plain(Kind::Walked, Some(context)) }
    }

    /// `walkers` have not left.
    #[must_use]
    pub fn walkers_late(walkers: &impl fmt::Display) -> Self {
        let text = format!("{walkers} does not leave what was unmapped; waiting on");
        Self { text, ..Self::plain(Kind::WalkersLate, None) }
    }

    /// A client was not served.
    #[must_use]
    pub fn denied(refusal: &Refusal) -> Self {
        Self { text: refusal.to_string(), ..Self::plain(Kind::Denied, None) }
    }

    /// An account uses more than its soft limit.
    #[must_use]
    pub fn soft_limit(crossing: &Crossing) -> Self {
        let context = crossing.holder.context();
        Self { context, text: crossing.to_string(), ..Self::plain(Kind::SoftLimit, None) }
    }

    /// The process of `walker`, which does not leave, was killed.
    #[must_use]
    pub fn walker_killed(walker: &impl fmt::Display) -> Self {
        let text = format!("{walker} does not leave what was unmapped: the process was killed");
        Self { text, ..Self::plain(Kind::WalkerKilled, None) }
    }

    /// It should have been, but cannot be.
    #[must_use]
    pub fn walker_spared(walker: &impl fmt::Display, why: &impl fmt::Display) -> Self {
        let text =
            format!("{walker} does not leave what was unmapped and cannot be killed: {why}; waiting on");
        Self { text, ..Self::plain(Kind::WalkerKilled, None) }
    }

    /// Those who were late have left after `waited`.
    #[must_use]
    pub fn walkers_left(waited: Duration) -> Self {
        let text = format!("the walkers that were late have left what was unmapped, after {waited:.1?}");
        Self { text, ..Self::plain(Kind::WalkersLeft, None) }
    }

    /// The agent was told to end while `contexts` were open.
    #[must_use]
    pub fn stopping(contexts: usize) -> Self {
        let text = format!("stopping: nobody is accepted any more, {contexts} contexts may leave");
        Self { text, ..Self::plain(Kind::Stopping, None) }
    }

    /// An operator changed something; `text` says what, and who it was.
    #[must_use]
    pub fn changed(context: Option<Number<ContextStats>>, text: String) -> Self {
        Self { text, ..Self::plain(Kind::Changed, context) }
    }

    /// The configuration that `who` wanted read again is wrong.
    #[must_use]
    pub fn not_reloaded(who: &str, why: &str) -> Self {
        let text =
            format!("the configuration read again for {who} is wrong, the one before stays in force: {why}");
        Self { text, ..Self::plain(Kind::NotReloaded, None) }
    }

    fn plain(kind: Kind, context: Option<Number<ContextStats>>) -> Self {
        Self { kind, context: context.map(Number::get), refused: None, text: String::new() }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number; a later one is greater. It gets a new one when it happens again.
    pub number: u64,
    /// When it happened last.
    pub at: SystemTime,
    /// How often it happened in a row.
    pub times: u64,
    /// What happened.
    pub what: Happening,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    last: u64,
    forgotten: u64,
    /// How often each kind was told, forgotten events included.
    told: BTreeMap<Kind, u64>,
}

/// A part of the journal, and what was true when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The events, the oldest first.
    pub events: Vec<Event>,
    /// Whether there are more behind them.
    pub more: bool,
    /// The number of the last event that was forgotten; 0 if none was.
    pub forgotten: u64,
    /// The number of the last event; 0 if there was none.
    pub last: u64,
}

/// What happened lately.
#[derive(Debug, Default)]
pub struct Journal(watch::Sender<Kept>);

/// Waits for what happens next.
#[derive(Clone, Debug)]
pub struct News(watch::Receiver<Kept>);

impl News {
    /// Returns when something was told since this was made, or since this returned last.
    pub async fn wait(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Kept {
    fn tell(&mut self, what: Happening) {
        self.last += 1;
        *self.told.entry(what.kind).or_default() += 1;
        let (number, at) = (self.last, SystemTime::now());
        if let Some(event) = self.events.back_mut().filter(|event| event.what == what) {
            (event.number, event.at, event.times) = (number, at, event.times.saturating_add(1));
            return;
        }
        self.events.push_back(Event { number, at, times: 1, what });
        if self.events.len() > KEPT {
            self.forgotten = self.events.pop_front().map_or(self.forgotten, |event| event.number);
        }
    }
}

impl Journal {
    /// Notes what happened, and wakes who waits for it.
    pub fn tell(&self, what: Happening) {
        self.0.send_modify(|kept| kept.tell(what));
    }

    /// `limit` events at most with numbers above `number`.
    #[must_use]
    pub fn since(&self, number: u64, limit: usize) -> Part {
        let kept = self.0.borrow();
        let from = kept.events.partition_point(|event| event.number <= number);
        let events: Vec<Event> = kept.events.iter().skip(from).take(limit).cloned().collect();
        let more = from + events.len() < kept.events.len();
        Part { events, more, forgotten: kept.forgotten, last: kept.last }
    }

    /// How often something of each kind has happened.
    #[must_use]
    pub fn told(&self) -> [(Kind, u64); Kind::ALL.len()] {
        let kept = self.0.borrow();
        Kind::ALL.map(|kind| (kind, kept.told.get(&kind).copied().unwrap_or(0)))
    }

    /// What tells of everything that happens from now on.
    #[must_use]
    pub fn news(&self) -> News {
        News(self.0.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(journal: &Journal, since: u64, limit: usize) -> Vec<u64> {
        journal.since(since, limit).events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn events_come_in_order_and_part_by_part() {
        let journal = Journal::default();
        (0..5).for_each(|contexts| journal.tell(Happening::stopping(contexts)));
        assert_eq!((numbers(&journal, 0, 2), journal.since(0, 2).more), (vec![1, 2], true));
        assert_eq!((numbers(&journal, 2, 3), journal.since(2, 3).more), (vec![3, 4, 5], false));
        assert_eq!((numbers(&journal, 9, 3), journal.since(9, 3).forgotten), (vec![], 0));
    }

    #[test]
    fn what_happens_again_and_again_is_one_event_that_counts_and_is_news_each_time() {
        let journal = Journal::default();
        journal.tell(Happening::stopping(1));
        (0..3).for_each(|_| journal.tell(Happening::walkers_late(&7)));
        let Part { events, .. } = journal.since(1, 10);
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.number, event.times, event.what.kind), (4, 3, Kind::WalkersLate));
        let told = journal.told().map(|(kind, times)| (kind.name(), times));
        assert!(told.contains(&("walkers-late", 3)) && told.contains(&("refused", 0)), "{told:?}");
        assert_eq!(numbers(&journal, 3, 10), [4]);
    }

    #[test]
    fn the_oldest_is_forgotten_and_that_can_be_seen() {
        let journal = Journal::default();
        (0..KEPT + 3).for_each(|contexts| journal.tell(Happening::stopping(contexts)));
        let Part { events, more, forgotten, last } = journal.since(0, usize::MAX);
        assert_eq!((events.len(), more, forgotten, last), (KEPT, false, 3, KEPT as u64 + 3));
        assert_eq!(numbers(&journal, 0, 1), [4]);
    }
    #[actix_rt::test]
    async fn news_told_before_anybody_waits_are_not_lost() {
        let journal = Journal::default();
        journal.tell(Happening::stopping(1));
        let mut news = journal.news();
        journal.tell(Happening::stopping(2));
        news.wait().await;
        assert!(news.0.has_changed().is_ok_and(|changed| !changed));
        journal.tell(Happening::stopping(2));
        news.wait().await;
    }
}
