//! Holders: whose account it is.
//!
//! Imports allowed: `std` only.

use std::fmt;
use std::sync::Arc;

/// A tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TenantName {
    /// Whoever the configuration gives this name.
    Named(Arc<str>),
    /// The processes of a cgroup that the configuration gives no name.
    Cgroup(Arc<str>),
    /// Processes about which the kernel does not even tell the cgroup.
    #[default]
    Unknown,
}

impl TenantName {
    /// A name of the configuration.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::Named(name.into())
    }

    /// The tenant of a cgroup.
    #[must_use]
    pub fn of_cgroup(path: &str) -> Self {
        Self::Cgroup(path.into())
    }

    /// What it is called in reports: a name, a path that begins with `/`, or `-`.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Named(name) | Self::Cgroup(name) => name,
            Self::Unknown => "-",
        }
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "tenant {name}"),
            Self::Cgroup(path) => write!(f, "cgroup {path}"),
            Self::Unknown => f.write_str("no tenant"),
        }
    }
}

/// How far down the tree an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Everybody.
    Host,
    /// A tenant.
    Tenant,
    /// A user of a tenant.
    User,
    /// A context, as far as that user pays for it.
    Context,
}

impl Level {
    /// The word used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Tenant => "tenant",
            Self::User => "user",
            Self::Context => "context",
        }
    }
}

/// Whose account it is. In order, each holder is followed by those below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    tenant: Option<TenantName>,
    uid: Option<u32>,
    context: Option<u64>,
}

impl Holder {
    /// Everybody.
    #[must_use]
    pub const fn host() -> Self {
        Self { tenant: None, uid: None, context: None }
    }

    /// A tenant.
    #[must_use]
    pub const fn of_tenant(tenant: TenantName) -> Self {
        Self { tenant: Some(tenant), uid: None, context: None }
    }

    /// A user of a tenant.
    #[must_use]
    pub const fn of_user(tenant: TenantName, uid: u32) -> Self {
        Self { tenant: Some(tenant), uid: Some(uid), context: None }
    }

    /// What a user of a tenant pays for in a context, by its number in the registry.
    #[must_use]
    pub const fn of_context(tenant: TenantName, uid: u32, context: u64) -> Self {
        Self { tenant: Some(tenant), uid: Some(uid), context: Some(context) }
    }

    /// The tenant, of all but the host.
    #[must_use]
    pub const fn tenant(&self) -> Option<&TenantName> {
        self.tenant.as_ref()
    }

    /// The user, of users and contexts.
    #[must_use]
    pub const fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// The context.
    #[must_use]
    pub const fn context(&self) -> Option<u64> {
        self.context
    }

    /// How far down the tree it is.
    #[must_use]
    pub const fn level(&self) -> Level {
        match (&self.tenant, self.uid, self.context) {
            (None, ..) => Level::Host,
            (Some(_), None, _) => Level::Tenant,
            (Some(_), Some(_), None) => Level::User,
            (Some(_), Some(_), Some(_)) => Level::Context,
        }
    }

    /// Who is above it; nobody is above the host.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        match self.level() {
            Level::Host => None,
            Level::Tenant => Some(Self::host()),
            Level::User => self.tenant.clone().map(Self::of_tenant),
            Level::Context => Some(Self { context: None, ..self.clone() }),
        }
    }

    /// The one of its path at a level, itself at its own.
    #[must_use]
    pub fn at(&self, level: Level) -> Self {
        Self {
            tenant: self.tenant.clone().filter(|_| level >= Level::Tenant),
            uid: self.uid.filter(|_| level >= Level::User),
            context: self.context.filter(|_| level >= Level::Context),
        }
    }
}

/// The whole path down to it, as in "host, tenant vms, user 1000, context 7".
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("host")?;
        self.tenant.iter().try_for_each(|tenant| write!(f, ", {tenant}"))?;
        self.uid.iter().try_for_each(|uid| write!(f, ", user {uid}"))?;
        self.context.iter().try_for_each(|context| write!(f, ", context {context}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_each_holder_is_followed_by_those_below_it() {
        let tenant = TenantName::named("vms");
        let context = Holder::of_context(tenant, 1000, 7);
        let path: Vec<_> = std::iter::successors(Some(context.clone()), Holder::parent).collect();
        assert_eq!(
            path.iter().map(Holder::level).map(Level::name).collect::<Vec<_>>(),
            ["context", "user", "tenant", "host"]
        );
        assert!(path.windows(2).all(|pair| pair[0] > pair[1]), "{path:?}");
        assert!(path.iter().all(|holder| context.at(holder.level()) == *holder));
        assert_eq!(context.to_string(), "host, tenant vms, user 1000, context 7");
        let cgroup = Holder::of_tenant(TenantName::of_cgroup("/system.slice"));
        assert_eq!(cgroup.to_string(), "host, cgroup /system.slice");
    }
}
