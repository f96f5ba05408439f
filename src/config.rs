//! The configuration: every setting, its default and where it comes from.
//!
//! A setting is taken from the command line, else from the environment (`IOASD_SOCKET`, `IOASD_CONFIG`, `IOASD_LOG`),
//! else from the file, else from its default. The file is TOML; a key it does not know is an error that names the line.
//! `config/ioasd.toml` shows every key at its default; a test compares it with [`Config::default`].
//!
//! Values are checked as they are read, so a [`Config`] that exists is a valid one.
//!
//! Imports allowed: units and the settings types of the rooms it configures (`storage::source`, `admin`,
//! `telemetry::{logging, metrics}`). Only `cli` and `main` import this module; the rooms get their values handed in.

pub mod check;
pub mod difference;
pub mod effective;
pub mod load;
pub mod place;
pub mod tenants;
pub mod values;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ioasd_client::units::ByteLen;
use serde::Deserialize;

use self::place::{Environment, Place, Socket};
use self::tenants::{LimitTable, TenantConfig};
use self::values::{FileMode, Frames, Listen, ProcessMemory, ScopeChoice, ThreadCount, WalkerPolicy};
use crate::admin::Endpoints;
use crate::storage::source::StrengthSetting;
use crate::telemetry::logging::Format;
use crate::telemetry::metrics::NamedSeries;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    pub server: ServerConfig,
    /// Where people and monitoring connect.
    pub admin: AdminConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How much one client may use.
    pub limits: Limits,
    /// How pages are pinned.
    pub engine: EngineConfig,
    /// What happens when a walker does not leave.
    pub walkers: WalkersConfig,
    /// Mock hardware.
    pub mock: MockConfig,
    /// Processes that belong together, in the order in which they are matched.
    #[serde(deserialize_with = "tenants::tenants")]
    pub tenant: Vec<TenantConfig>,
}

impl Config {
    /// The path of the clients' socket.
    #[must_use]
    pub fn socket(&self, environment: &Environment) -> PathBuf {
        self.server.socket.resolve(Socket::Clients, environment)
    }

    /// What the admin server listens on.
    #[must_use]
    pub fn admin_endpoints(&self, environment: &Environment) -> Endpoints {
        Endpoints {
            tcp: self.admin.listen.address(),
            remote: self.admin.remote,
            socket: self.admin_socket(environment),
            scope: self.admin.scope.resolve(environment.uid),
            series: NamedSeries(self.admin.named_series),
            names: self.admin.names.clone(),
        }
    }

    /// An agent whose clients' socket lies elsewhere is not the only one of its user: it opens no admin socket unasked.
    fn admin_socket(&self, environment: &Environment) -> Option<PathBuf> {
        match (self.admin.socket.as_ref()?, &self.server.socket) {
            (Place::Auto, Place::At(_)) => None,
            (place, _) => Some(place.resolve(Socket::Admin, environment)),
        }
    }
}

/// `[server]`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Path of the socket.
    pub socket: Place,
    /// Permission bits of the socket.
    pub socket_mode: FileMode,
    /// Threads that run the actors.
    pub arbiters: ThreadCount,
    /// How long contexts may leave on their own when the agent stops.
    #[serde(deserialize_with = "values::duration")]
    pub drain_timeout: Duration,
    /// How long taking down those left may take.
    #[serde(deserialize_with = "values::duration")]
    pub close_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            socket: Place::Auto,
            socket_mode: FileMode::GROUP,
            arbiters: ThreadCount::PerCpu,
            drain_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(30),
        }
    }
}

/// `[admin]`: where people and monitoring connect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// TCP address.
    pub listen: Listen,
    /// What is shown there.
    pub scope: ScopeChoice,
    /// Path of the admin socket, if there shall be one.
    #[serde(deserialize_with = "place::or_off")]
    pub socket: Option<Place>,
    /// Accounts, and contexts, that `/metrics` names.
    pub named_series: u32,
    /// TCP address that others reach, if there shall be one.
    #[serde(deserialize_with = "values::address_or_off")]
    pub remote: Option<SocketAddr>,
    /// File with the token that opens everything over TCP, if there is one.
    #[serde(deserialize_with = "values::file_or_off")]
    pub token_file: Option<PathBuf>,
    /// Names of this host that a request over TCP may use.
    pub names: Vec<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        let NamedSeries(named_series) = NamedSeries::default();
        Self {
            listen: Listen::default(),
            scope: ScopeChoice::Auto,
            socket: Some(Place::Auto),
            named_series,
            remote: None,
            token_file: None,
            names: Vec::new(),
        }
    }
}

/// `[log]`: what is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Which events.
    #[serde(deserialize_with = "values::log_filter")]
    pub filter: String,
    /// In which shape.
    pub format: Format,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info,actix_server=warn".to_owned(), format: Format::Auto }
    }
}

/// `[limits]`: how much one client may use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Objects in one context.
    pub objects_per_context: NonZeroU32,
    /// Areas in one context.
    pub areas_per_context: NonZeroU32,
    /// Bytes of page-table pages of one context.
    #[serde(deserialize_with = "values::size")]
    pub table_bytes_per_context: ByteLen,
    /// Bytes of holes that the agent allocates for one context.
    #[serde(deserialize_with = "values::size")]
    pub first_touch_bytes_per_context: ByteLen,
    /// Requests of one channel under way at once.
    pub credits_per_channel: NonZeroU32,
    /// Channels and notice channels of one context, besides its lease.
    pub channels_per_context: NonZeroU32,
    /// What everybody together may use.
    pub host: LimitTable,
    /// What each tenant without a name may use.
    pub tenant: LimitTable,
    /// What each user of a tenant may use.
    pub user: LimitTable,
    /// What each context may use.
    pub context: LimitTable,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            objects_per_context: nonzero::<65_536>(),
            areas_per_context: nonzero::<1_048_576>(),
            table_bytes_per_context: ByteLen::new(1 << 30),
            first_touch_bytes_per_context: ByteLen::new(0),
            credits_per_channel: nonzero::<64>(),
            channels_per_context: nonzero::<1024>(),
            host: LimitTable::default(),
            tenant: LimitTable::default(),
            user: LimitTable::default(),
            context: LimitTable::default(),
        }
    }
}

/// `[engine]`: how pages are pinned.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Runs of frames in one batch.
    pub batch_runs: NonZeroU32,
    /// Threads that pin.
    pub pin_threads: ThreadCount,
    /// What must hold a pinned page.
    #[serde(deserialize_with = "values::strength")]
    pub strength: StrengthSetting,
    /// What the frames in tables are.
    pub frames: Frames,
    /// How memory of processes is reached that is no file.
    pub process_memory: ProcessMemory,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            batch_runs: nonzero::<5461>(),
            pin_threads: ThreadCount::PerCpu,
            strength: StrengthSetting::Auto,
            frames: Frames::Logical,
            process_memory: ProcessMemory::Auto,
        }
    }
}

/// `[walkers]`: what happens when a walker does not leave a range that is being unmapped, and what walkers get.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WalkersConfig {
    /// What to do.
    pub policy: WalkerPolicy,
    /// How long to wait before the log says so.
    #[serde(deserialize_with = "values::duration")]
    pub alarm_after: Duration,
    /// How long to wait before the policy is followed.
    #[serde(deserialize_with = "values::duration")]
    pub deadline: Duration,
    /// Whether walkers get files whose mappings are not safe.
    pub allow_unsealed: bool,
}

impl Default for WalkersConfig {
    fn default() -> Self {
        let (alarm_after, deadline) = (Duration::from_secs(10), Duration::from_secs(60));
        Self { policy: WalkerPolicy::Wait, alarm_after, deadline, allow_unsealed: false }
    }
}

/// `[mock]`: mock hardware, for those who test a VMM where there is no IOMMU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MockConfig {
    /// Whether the test command is there.
    pub enabled: bool,
}

const fn nonzero<const N: u32>() -> NonZeroU32 {
    const { NonZeroU32::new(N).unwrap() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::admin::door::Scope;

    const SHOWN: &str = include_str!("../config/ioasd.toml");

    fn key(line: &str) -> Option<&str> {
        line.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.starts_with('#'))
    }

    #[test]
    fn the_shown_file_is_the_default() {
        assert_eq!(toml::from_str::<Config>(SHOWN).unwrap(), Config::default());
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_shown_and_has_a_comment_above_it() {
        let lines: Vec<_> = SHOWN.lines().collect();
        let shown = lines.iter().skip_while(|line| !line.starts_with('[')).filter_map(|line| key(line));
        let shown: Vec<_> = shown.collect();
        let debug = format!("{:#?}", Config::default());
        let fields =
            debug.lines().filter(|line| line.starts_with("        ") && !line.starts_with("         "));
        let fields: Vec<_> =
            fields.filter_map(|line| line.trim().split_once(':').map(|(name, _)| name)).collect();
        assert_eq!(shown, fields, "keys of the file against fields of the configuration, in order");
        for pair in lines.windows(2) {
            assert!(key(pair[1]).is_none() || pair[0].starts_with("# "), "no comment above {:?}", pair[1]);
        }
    }

    const OTHER: &str = r#"
        [server]
        socket = "/run/x.sock"
        socket_mode = "0600"
        arbiters = 3
        drain_timeout = "1m"
        close_timeout = "0s"
        [admin]
        listen = "off"
        scope = "metrics"
        socket = "off"
        named_series = 7
        remote = "0.0.0.0:9885"
        token_file = "/etc/ioasd/token"
        names = ["node7.example"]
        [log]
        filter = "warn"
        format = "json"
        [limits]
        objects_per_context = 1
        areas_per_context = 2
        table_bytes_per_context = "3MiB"
        first_touch_bytes_per_context = "4KiB"
        credits_per_channel = 5
        channels_per_context = 6
        host = { pinned = "1MiB" }
        tenant = { areas = 7 }
        user = { objects = { soft = 8 } }
        context = { requests = 9 }
        [engine]
        batch_runs = 7
        pin_threads = 8
        strength = "locked"
        frames = "physical"
        process_memory = "copy"
        [walkers]
        policy = "wait"
        alarm_after = "1500ms"
        deadline = "2m"
        allow_unsealed = true
        [mock]
        enabled = true
        [[tenant]]
        name = "vms"
        uids = [7]
        export = false
    "#;

    fn table(text: &str) -> LimitTable {
        toml::from_str(text).unwrap()
    }

    fn other() -> Config {
        let fixed = |count| NonZeroUsize::new(count).map_or(ThreadCount::PerCpu, ThreadCount::Fixed);
        Config {
            server: ServerConfig {
                socket: Place::At("/run/x.sock".into()),
                socket_mode: FileMode::parse("0600").expect("a mode"),
                arbiters: fixed(3),
                drain_timeout: Duration::from_secs(60),
                close_timeout: Duration::ZERO,
            },
            admin: AdminConfig {
                listen: Listen::Off,
                scope: ScopeChoice::Metrics,
                socket: None,
                named_series: 7,
                remote: "0.0.0.0:9885".parse().ok(),
                token_file: Some("/etc/ioasd/token".into()),
                names: vec!["node7.example".to_owned()],
            },
            log: LogConfig { filter: "warn".to_owned(), format: Format::Json },
            limits: Limits {
                objects_per_context: nonzero::<1>(),
                areas_per_context: nonzero::<2>(),
                table_bytes_per_context: ByteLen::new(3 << 20),
                first_touch_bytes_per_context: ByteLen::new(4 << 10),
                credits_per_channel: nonzero::<5>(),
                channels_per_context: nonzero::<6>(),
                host: table("pinned = 1048576"),
                tenant: table("areas = 7"),
                user: table("objects = { soft = 8 }"),
                context: table("requests = 9"),
            },
            engine: EngineConfig {
                batch_runs: nonzero::<7>(),
                pin_threads: fixed(8),
                strength: StrengthSetting::Exactly(crate::storage::source::Strength::Locked),
                frames: Frames::Physical,
                process_memory: ProcessMemory::Copy,
            },
            walkers: WalkersConfig {
                policy: WalkerPolicy::Wait,
                alarm_after: Duration::from_millis(1500),
                deadline: Duration::from_secs(120),
                allow_unsealed: true,
            },
            mock: MockConfig { enabled: true },
            tenant: vec![toml::from_str("name = \"vms\"\nuids = [7]\nexport = false").unwrap()],
        }
    }

    #[test]
    fn every_value_of_the_file_reaches_its_field() {
        assert_eq!(toml::from_str::<Config>(OTHER).unwrap(), other());
    }

    #[test]
    fn an_agent_of_root_shows_metrics_only_unless_told() {
        let scope = |choice: ScopeChoice, uid| choice.resolve(rustix::process::Uid::from_raw(uid));
        assert_eq!([0, 1000].map(|uid| scope(ScopeChoice::Auto, uid)), [Scope::Metrics, Scope::Full]);
        assert_eq!([0, 1000].map(|uid| scope(ScopeChoice::Metrics, uid)), [Scope::Metrics; 2]);
        assert_eq!([0, 1000].map(|uid| scope(ScopeChoice::Full, uid)), [Scope::Full; 2]);
    }

    #[test]
    fn only_an_agent_at_the_default_place_opens_an_admin_socket_unasked() {
        let environment = Environment::new(rustix::process::Uid::ROOT, |_| None);
        let mut config = Config::default();
        assert_eq!(config.admin_endpoints(&environment).socket, Some("/run/ioasd/admin.sock".into()));
        config.server.socket = Place::At("/tmp/x.sock".into());
        assert_eq!(config.admin_endpoints(&environment).socket, None);
        config.admin.socket = Some(Place::At("/tmp/y.sock".into()));
        assert_eq!(config.admin_endpoints(&environment).socket, Some("/tmp/y.sock".into()));
        assert_eq!(config.socket(&environment), PathBuf::from("/tmp/x.sock"));
    }
}
