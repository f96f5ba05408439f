//! Limits: what the accounts of a tree may use, by level.
//!
//! Imports allowed: `std`, resource, holder.

use std::collections::BTreeMap;

use super::holder::{Holder, Level, TenantName};
use super::resource::Resource;

/// The limits of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Above it, an event tells so; nothing is refused. `u64::MAX` for none.
    pub soft: u64,
    /// It is never passed. `u64::MAX` for none.
    pub hard: u64,
}

impl Limit {
    /// No limit.
    pub const NONE: Self = Self { soft: u64::MAX, hard: u64::MAX };

    /// A hard limit alone.
    #[must_use]
    pub const fn hard(hard: u64) -> Self {
        Self { soft: u64::MAX, hard }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::NONE
    }
}

/// The limits of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits([Limit; Resource::COUNT]);

impl Limits {
    /// No limits.
    pub const NONE: Self = Self([Limit::NONE; Resource::COUNT]);

    /// The same, with another one for `resource`.
    #[must_use]
    pub fn with(mut self, resource: Resource, limit: Limit) -> Self {
        self.set(resource, limit);
        self
    }

    /// Sets that of `resource`.
    pub fn set(&mut self, resource: Resource, limit: Limit) {
        if let Some(place) = self.0.get_mut(resource.place()) {
            *place = limit;
        }
    }

    /// That of `resource`.
    #[must_use]
    pub fn get(&self, resource: Resource) -> Limit {
        self.0.get(resource.place()).copied().unwrap_or_default()
    }
}

/// The limits of a tenant, of each of its users, and of each of their contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Of the tenant as a whole.
    pub tenant: Limits,
    /// Of each of its users.
    pub user: Limits,
    /// Of each context.
    pub context: Limits,
}

/// The limits of a whole tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeLimits {
    /// Of everybody together.
    pub host: Limits,
    /// Of a tenant that has no name of its own.
    pub unnamed: TenantLimits,
    /// Of the named tenants.
    pub named: BTreeMap<TenantName, TenantLimits>,
}

impl TreeLimits {
    /// No limits but those of each context.
    #[must_use]
    pub fn of_contexts(context: Limits) -> Self {
        Self { unnamed: TenantLimits { context, ..TenantLimits::default() }, ..Self::default() }
    }

    /// The limits of an account.
    #[must_use]
    pub fn of(&self, holder: &Holder) -> Limits {
        let tenant = holder.tenant().and_then(|name| self.named.get(name)).unwrap_or(&self.unnamed);
        match holder.level() {
            Level::Host => self.host,
            Level::Tenant => tenant.tenant,
            Level::User => tenant.user,
            Level::Context => tenant.context,
        }
    }
}
