//! `translate`: where an IOVA leads, through the tables that the agent writes, and through what others use.
//!
//! Maps of four times and of 256 times `--size`, 1 GiB and 64 GiB by default, with leaves of 4 KiB and of 2 MiB. Neighbouring leaves lead to memory the other way round, so that nobody can join them. Only where
//! the memory lies is asked, 64 bytes at a time and 64 times a burst; nothing is touched.
//!
//! Whoever translates is asked for the same addresses, and for the sum of where they lead, which must be right.
//!
//! Imports allowed: floor, sample, report, domains, sys, the client crate's walker.

pub(super) mod ours;
#[cfg(feature = "bench-peers")]
mod peers;

use std::fmt;
use std::hint::black_box;

use ioasd_client::units::{ByteLen, PAGE_SIZE};

use self::ours::Sorted;
use super::floor::{Bare, Floor};
use super::report::{Row, Unit};
use super::sample::{Samples, timed_alone};
use super::scenario::Scenario;
use super::{BenchError, Plan};

/// Addresses translated in a round.
const LOOKUPS: usize = 1 << 16;

/// Addresses translated in a burst.
const BURST: usize = 64;

/// Bytes asked for at each address.
const ASKED: u64 = 64;

/// Pages that `order=hot` comes back to.
const HOT_PAGES: u64 = 64;

/// Where the map begins.
pub(super) const START: u64 = 1 << 40;

/// The large leaf.
const LARGE: u64 = 2 << 20;

/// How much is mapped, in leaves of which size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) length: u64,
    pub(super) leaf: u64,
}

impl Layout {
    /// Where the byte `offset` from the beginning of the map lies in the memory.
    pub(super) const fn leads_to(self, offset: u64) -> u64 {
        offset ^ self.leaf
    }

    /// The beginnings of the leaves.
    fn leaves(self) -> impl Iterator<Item = u64> {
        (0..self.length / self.leaf).map(move |number| number * self.leaf)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leaf = if self.leaf == PAGE_SIZE { "4KiB" } else { "2MiB" };
        match self.length >> 30 {
            0 => write!(f, "map={}MiB,leaf={leaf}", self.length >> 20),
            gibibytes => write!(f, "map={gibibytes}GiB,leaf={leaf}"),
        }
    }
}

/// In which order addresses come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Any after any.
    Random,
    /// One after the other.
    Stream,
    /// The same few pages.
    Hot,
}

impl Order {
    const ALL: [Self; 3] = [Self::Random, Self::Stream, Self::Hot];

    const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Stream => "stream",
            Self::Hot => "hot",
        }
    }

    /// Offsets into a map of `length` bytes, none of which asks for bytes of two pages.
    pub(super) fn offsets(self, length: u64) -> Vec<u64> {
        let (mut state, units) = (0x9e37_79b9_7f4a_7c15_u64, length / ASKED);
        let hot = units.min(HOT_PAGES * PAGE_SIZE / ASKED);
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let unit = |number: u64| match self {
            Self::Random => random() % units,
            Self::Stream => number % units,
            Self::Hot => random() % hot,
        };
        (0..LOOKUPS as u64).map(unit).map(|unit| unit * ASKED).collect()
    }
}

/// What translates.
pub(super) trait Translator {
    /// Its name in a case.
    fn name(&self) -> &'static str;

    /// The sum of the places in memory that the `ASKED` bytes at each of `offsets` lie at; wrong if one is not mapped.
    fn sum(&mut self, offsets: &[u64]) -> u64;
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let size = plan.size.get();
    let small = [PAGE_SIZE, LARGE].map(|leaf| Layout { length: size * 4, leaf });
    let mut rows = Vec::new();
    for layout in small {
        let ours = ours::translators(layout)?;
        let sorted: Box<dyn Translator> = Box::new(Sorted::new(layout));
        rows.extend(measure_layout(plan, layout, ours.into_iter().chain([sorted]).chain(peers(layout)))?);
    }
    for leaf in [PAGE_SIZE, LARGE] {
        let large = Layout { length: size * 256, leaf };
        rows.extend(measure_layout(plan, large, ours::translators(large)?)?);
    }
    Ok(rows)
}

#[cfg(feature = "bench-peers")]
fn peers(layout: Layout) -> Vec<Box<dyn Translator>> {
    peers::translators(layout)
}

#[cfg(not(feature = "bench-peers"))]
fn peers(_: Layout) -> Vec<Box<dyn Translator>> {
    eprintln!(
        "SKIP: translate: vm-memory and rangemap, for which ioasd must be built with --features bench-peers"
    );
    Vec::new()
}

fn measure_layout(
    plan: Plan,
    layout: Layout,
    translators: impl IntoIterator<Item = Box<dyn Translator>>,
) -> Result<Vec<Row>, BenchError> {
    let mut translators: Vec<_> = translators.into_iter().collect();
    let mut rows = Vec::new();
    for order in Order::ALL {
        let offsets = order.offsets(layout.length);
        let mut bare = Floor::new(Bare::LookUp, 1);
        let array = Array::new(layout);
        let mut measured: Vec<_> = translators.iter().map(|_| Samples::default()).collect();
        for round in 0..=plan.rounds {
            array.round(&offsets, bare.samples());
            for (translator, samples) in translators.iter_mut().zip(&mut measured) {
                translate(&mut **translator, layout, &offsets, samples)?;
            }
            if round == 0 {
                measured.fill(Samples::default());
                *bare.samples() = Samples::default();
            }
        }
        for (translator, samples) in translators.iter().zip(&measured) {
            let case = format!("{layout},order={},with={}", order.name(), translator.name());
            rows.push(Row::new(Scenario::Translate, case, Unit::PerLookUp, samples, Some(&bare)));
        }
    }
    Ok(rows)
}

/// Translates everything twice: once to bring it back into the caches that others used meanwhile, and once to be timed.
pub(super) fn translate(
    translator: &mut dyn Translator,
    layout: Layout,
    offsets: &[u64],
    samples: &mut Samples,
) -> Result<(), BenchError> {
    let mut all = || {
        let bursts = offsets.chunks(BURST).map(|burst| translator.sum(black_box(burst)));
        bursts.fold(0, u64::wrapping_add)
    };
    black_box(all());
    let (time, sum) = timed_alone(all);
    samples.add(time, offsets.len() as u64);
    let expected = offsets.iter().map(|offset| layout.leads_to(*offset)).fold(0, u64::wrapping_add);
    if sum == expected { Ok(()) } else { Err(BenchError::WrongTranslation(translator.name())) }
}

/// Bare code: an array with the place of each leaf.
struct Array {
    places: Vec<u64>,
    shift: u32,
}

impl Array {
    fn new(layout: Layout) -> Self {
        let places = layout.leaves().map(|start| layout.leads_to(start)).collect();
        Self { places, shift: layout.leaf.trailing_zeros() }
    }

    fn round(&self, offsets: &[u64], samples: &mut Samples) {
        let within = (1 << self.shift) - 1;
        let all = || {
            let place = |offset: &u64| {
                let leaf = usize::try_from(*offset >> self.shift).ok()?;
                Some(self.places.get(leaf)? + (offset & within))
            };
            black_box(offsets).iter().filter_map(place).fold(0, u64::wrapping_add)
        };
        black_box(all());
        let (time, sum) = timed_alone(all);
        black_box(sum);
        samples.add(time, offsets.len() as u64);
    }
}

/// Bytes of memory that a layout shows.
const fn memory(layout: Layout) -> ByteLen {
    ByteLen::new(layout.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_as_their_order_says_and_stay_within_a_page() {
        for order in Order::ALL {
            let offsets = order.offsets(8 << 20);
            assert!(offsets.iter().all(|offset| *offset < 8 << 20 && offset % ASKED == 0), "{order:?}");
        }
        assert!(Order::Hot.offsets(1 << 30).iter().all(|offset| *offset < HOT_PAGES * PAGE_SIZE));
        assert_eq!(Order::Stream.offsets(1 << 30)[..3], [0, 64, 128]);
    }

    #[test]
    fn who_translates_wrongly_fails_the_bench() {
        struct Wrong;
        impl Translator for Wrong {
            fn name(&self) -> &'static str {
                "wrong"
            }
            fn sum(&mut self, _: &[u64]) -> u64 {
                7
            }
        }
        let layout = Layout { length: 4 << 20, leaf: PAGE_SIZE };
        let failed = translate(&mut Wrong, layout, &[0, 64], &mut Samples::default());
        assert!(matches!(failed, Err(BenchError::WrongTranslation("wrong"))));
        let right = translate(&mut Sorted::new(layout), layout, &[0, 64, 0x1000], &mut Samples::default());
        assert!(right.is_ok());
    }
}
