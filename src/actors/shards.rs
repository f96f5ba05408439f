//! Shards: the FanOuts of the agent, one an arbiter, as everybody reaches them.
//!
//! Imports allowed: credits, fan_out, load.

use std::sync::Arc;

use actix::Addr;

use super::credits::Credits;
use super::fan_out::FanOut;
use super::load::Permits;

/// One FanOut and its credits.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Owner of tables.
    pub fan_out: Addr<FanOut>,
    /// What may be under way to it.
    pub credits: Credits,
}

/// All FanOuts; a domain key names its shard by number.
#[derive(Clone, Debug)]
pub struct Shards(Arc<[Shard]>);

impl Shards {
    /// The shards in the order of their numbers.
    #[must_use]
    pub fn new(shards: Vec<Shard>) -> Self {
        Self(shards.into())
    }

    /// Shard `number`.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<&Shard> {
        self.0.get(usize::from(number))
    }

    /// The credits of each.
    #[must_use]
    pub fn permits(&self) -> Vec<[Permits; 2]> {
        self.0.iter().map(|shard| shard.credits.permits()).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }
}
