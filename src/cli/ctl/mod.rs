//! `ioasd ctl`: what an agent holds, asked over its admin socket, as tables for people or as JSON for programs; and the few
//! things that an operator changes.
//!
//! | file | what it is |
//! |---|---|
//! | `ask` | asking, part by part; what went wrong |
//! | `bar` | how far something has come |
//! | `change` | changes, and what came of them |
//! | `explain` | whether a map would succeed, and what is in its way |
//! | `faults` | what walkers could not reach |
//! | `follow` | events as they happen |
//! | `host` | the host: both books, and what no figure says |
//! | `limits` | the accounts with their limits |
//! | `operations` | what takes long just now; cancelling it |
//! | `table` | columns that line up |
//! | `rows` | what each list shows in which column |
//! | `top` | who holds most, again and again |
//! | `wait` | waiting for what a change has begun |
//! | `walk` | a walk, level by level |
//!
//! Imports allowed: http, size, admin's answers, config.

mod ask;
mod bar;
mod change;
mod explain;
mod faults;
mod follow;
mod host;
mod limits;
mod operations;
mod rows;
mod table;
mod top;
mod wait;
mod walk;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use self::ask::{Agent, AskError};
use self::explain::ExplainArgs;
use self::limits::LimitsArgs;
use self::operations::OperationsArgs;
use self::table::Row;
use self::top::TopArgs;
use super::http::Target;
use super::{Exit, with_causes};
use crate::admin::accesses::AccessRow;
use crate::admin::accounts::AccountRow;
use crate::admin::areas::AreaRow;
use crate::admin::config::{SettingRow, Settings};
use crate::admin::contexts::ContextRow;
use crate::admin::devices::DeviceRow;
use crate::admin::domains::DomainRow;
use crate::admin::events::{EventRow, Events};
use crate::admin::gaps::{GapRow, RangeRow};
use crate::admin::ioases::IoasRow;
use crate::admin::json::Hex;
use crate::admin::pages::PagesRow;
use crate::admin::parameters::LIMIT_MAX;
use crate::admin::payers::PayerRow;
use crate::config::load::{self, ConfigError, Flags};
use crate::config::place::Environment;
use crate::config::values::parse_duration;

/// The flags of `ioasd ctl`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CtlArgs {
    /// Admin server: the path of its socket, or http://127.0.0.1:PORT [default: as the configuration says].
    #[arg(long, global = true, value_name = "PATH|URL")]
    pub admin: Option<Target>,
    /// Configuration file that says where the admin server is.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File with the token that opens the API over TCP.
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The agent's JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to show.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum CtlCommand {
    /// The agent at a glance.
    Status,
    /// Who has the agent open.
    Contexts {
        /// One of them.
        id: Option<u64>,
    },
    /// IO address spaces.
    Ioas {
        /// One of them.
        id: Option<u64>,
    },
    /// What an address space shows, in IOVA order.
    Areas {
        /// The address space, by the number that `ioasd ctl ioas` shows.
        ioas: u64,
    },
    /// What is free in an address space, in IOVA order.
    Gaps {
        /// The address space, by the number that `ioasd ctl ioas` shows.
        ioas: u64,
    },
    /// What is reserved or allowed in an address space, in IOVA order.
    Ranges {
        /// The address space, by the number that `ioasd ctl ioas` shows.
        ioas: u64,
    },
    /// Whether a map would succeed in an address space, for whom and where; if not, what is in its way.
    Explain(ExplainArgs),
    /// Pages objects.
    Pages {
        /// One of them, with who holds it.
        id: Option<u64>,
    },
    /// IO page tables.
    Domains {
        /// One of them, with the shape of its table.
        id: Option<u64>,
    },
    /// The way to an address through every level of a table.
    Walk {
        /// The domain, by the number that `ioasd ctl domains` shows.
        domain: u64,
        /// The address, in hex with 0x or in decimal.
        #[arg(value_parser = address)]
        iova: u64,
    },
    /// What the walkers of a domain could not reach: by cause, and the last ones.
    Faults {
        /// The domain, by the number that `ioasd ctl domains` shows.
        domain: u64,
    },
    /// Software and mock devices, and what they are attached to.
    Devices {
        /// One of them.
        id: Option<u64>,
    },
    /// Software users and what they hold.
    Accesses,
    /// What takes long just now, how far it has come and what it waits for; cancelling it.
    Operations(OperationsArgs),
    /// Who pays, and how much.
    Accounts,
    /// The accounts with what they use, may use, and were refused, by resource.
    Limits(LimitsArgs),
    /// The processes that map, with their limits for locked memory.
    Payers,
    /// What happened lately: who came and went, what was refused and why.
    Events {
        /// Only what happened after the event of this number.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        since: u64,
        /// Then what happens, until Ctrl-C or the end of the agent.
        #[arg(short, long)]
        follow: bool,
    },
    /// The effective configuration, with where each value comes from.
    Config,
    /// Which events are logged; with FILTER, these from now on.
    Log {
        /// For example "debug" or "warn,ioasd::actors=debug".
        filter: Option<String>,
        /// Only for this long, for example 10m; then the filter of before is in use again.
        #[arg(long = "for", value_name = "DURATION", requires = "filter", value_parser = parse_duration)]
        period: Option<Duration>,
    },
    /// Have the agent read its configuration again: limits and tenants count at once; tells what needs a restart.
    Reload,
    /// Serve nobody who connects from now on; those who are served go on.
    Drain {
        /// Serve whoever connects again.
        #[arg(long)]
        undo: bool,
        /// Wait until those who are served have left.
        #[arg(long, conflicts_with = "undo")]
        wait: bool,
    },
    /// End a context as if its client had died: everything it mapped is unmapped and unpinned.
    Evict {
        /// The context, by the number that `ioasd ctl contexts` shows.
        context: u64,
        /// Only tell what would go.
        #[arg(long)]
        dry_run: bool,
        /// Wait until it is taken down, however long that takes.
        #[arg(long, conflicts_with = "dry_run")]
        wait: bool,
    },
    /// Memory of this host that is held in place, through the agent or otherwise.
    Host,
    /// Who holds most, shown again and again until q or Ctrl-C.
    Top(TopArgs),
}

fn address(text: &str) -> Result<u64, String> {
    text.parse::<Hex>().map(|address| address.0).map_err(|error| error.to_string())
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the configuration has no admin server: name one with --admin")]
    NoAdmin,
    #[error("cannot read the token in {}", path.display())]
    Token {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot write to standard output")]
    Write(#[from] io::Error),
}

impl CtlError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::NoAdmin | Self::Token { .. } => Exit::Usage,
            Self::Ask(AskError::Unreachable { .. } | AskError::Ended { .. }) => Exit::Unreachable,
            Self::Ask(_) | Self::Write(_) => Exit::Failed,
        }
    }

    /// Whoever read our output has seen enough.
    fn is_unread(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Shows what was asked for.
pub fn ctl(args: &CtlArgs) -> Exit {
    match try_ctl(args, &Environment::of_process()) {
        Ok(()) => Exit::Ok,
        Err(error) if error.is_unread() => Exit::Ok,
        Err(error) => {
            eprintln!("ioasd: {}", with_causes(&error));
            error.exit()
        }
    }
}

fn try_ctl(args: &CtlArgs, environment: &Environment) -> Result<(), CtlError> {
    let target = match &args.admin {
        Some(target) => target.clone(),
        None => configured(args.config.clone(), environment)?,
    };
    let token = args.token_file.as_ref().map(|path| token(path)).transpose()?;
    let agent = Agent::new(target, token);
    if let CtlCommand::Top(top) = &args.command {
        return top::top(&agent, *top);
    }
    if let CtlCommand::Operations(operations) = &args.command
        && operations.watch
    {
        return top::top(&agent, operations.top());
    }
    if let CtlCommand::Events { since, follow: true } = args.command {
        return follow::follow(&agent, since, args);
    }
    let text = shown(&agent, args)?;
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn token(path: &Path) -> Result<String, CtlError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| CtlError::Token { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

/// The socket that the configuration names, else its TCP address. A file that is wrong is no reason to ask nobody: the agent
/// goes on with what it read before.
fn configured(config: Option<PathBuf>, environment: &Environment) -> Result<Target, CtlError> {
    let flags = Flags { config, ..Flags::default() };
    let (config, wrong) = load::load_what_is_right(flags, environment)?;
    if let Some(wrong) = wrong {
        eprintln!("ioasd: {wrong}");
    }
    let endpoints = config.admin_endpoints(environment);
    let tcp = endpoints.tcp.map(|address| Target::Tcp(address.get()));
    endpoints.socket.map(Target::Socket).or(tcp).ok_or(CtlError::NoAdmin)
}

fn shown(agent: &Agent, args: &CtlArgs) -> Result<String, AskError> {
    match &args.command {
        CtlCommand::Status => one(agent, "/v1/status", args),
        CtlCommand::Contexts { id: None } => list::<ContextRow>(agent, "/v1/contexts", args),
        CtlCommand::Contexts { id: Some(id) } => one(agent, &format!("/v1/contexts/{id}"), args),
        CtlCommand::Ioas { id: None } => list::<IoasRow>(agent, "/v1/ioas", args),
        CtlCommand::Ioas { id: Some(id) } => one(agent, &format!("/v1/ioas/{id}"), args),
        CtlCommand::Areas { ioas } => list::<AreaRow>(agent, &format!("/v1/ioas/{ioas}/areas"), args),
        CtlCommand::Gaps { ioas } => list::<GapRow>(agent, &format!("/v1/ioas/{ioas}/gaps"), args),
        CtlCommand::Ranges { ioas } => list::<RangeRow>(agent, &format!("/v1/ioas/{ioas}/ranges"), args),
        CtlCommand::Explain(map) if args.json => agent.text(&map.path()),
        CtlCommand::Explain(map) => Ok(explain::shown(&agent.one(&map.path())?)),
        CtlCommand::Pages { id: None } => list::<PagesRow>(agent, "/v1/pages", args),
        CtlCommand::Pages { id: Some(id) } => one(agent, &format!("/v1/pages/{id}"), args),
        CtlCommand::Domains { id: None } => list::<DomainRow>(agent, "/v1/domains", args),
        CtlCommand::Domains { id: Some(id) } => one(agent, &format!("/v1/domains/{id}"), args),
        CtlCommand::Walk { domain, iova } => {
            let path = format!("/v1/domains/{domain}/walk?iova={iova:#x}");
            if args.json { agent.text(&path) } else { Ok(walk::shown(&agent.one(&path)?)) }
        }
        CtlCommand::Faults { domain } => {
            let path = format!("/v1/domains/{domain}/faults?limit={LIMIT_MAX}");
            if args.json { agent.text(&path) } else { Ok(faults::shown(&agent.one(&path)?)) }
        }
        CtlCommand::Devices { id: None } => list::<DeviceRow>(agent, "/v1/devices", args),
        CtlCommand::Devices { id: Some(id) } => one(agent, &format!("/v1/devices/{id}"), args),
        CtlCommand::Accesses => list::<AccessRow>(agent, "/v1/accesses", args),
        CtlCommand::Operations(operations) => operations::shown(agent, operations, args),
        CtlCommand::Accounts => list::<AccountRow>(agent, "/v1/accounts", args),
        CtlCommand::Limits(limits) if args.json => agent.json(&limits.among(agent.list("/v1/accounts")?)),
        CtlCommand::Limits(limits) => Ok(limits::shown(&agent.list("/v1/accounts")?, limits)),
        CtlCommand::Payers => list::<PayerRow>(agent, "/v1/payers", args),
        CtlCommand::Events { since, .. } => {
            let path = format!("/v1/events?limit={LIMIT_MAX}&since={since}");
            let events = || agent.one(&path).map(|Events { items, .. }| table::table::<EventRow>(&items));
            if args.json { agent.text(&path) } else { events() }
        }
        CtlCommand::Config if args.json => agent.text("/v1/config"),
        CtlCommand::Config => Ok(table::table::<SettingRow>(&agent.one::<Settings>("/v1/config")?.items)),
        CtlCommand::Log { .. } | CtlCommand::Reload | CtlCommand::Drain { .. } | CtlCommand::Evict { .. } => {
            change::made(agent, args)
        }
        CtlCommand::Host if args.json => agent.text("/v1/host"),
        CtlCommand::Host => Ok(host::shown(&agent.one("/v1/host")?)),
        CtlCommand::Top(_) => Ok(String::new()),
    }
}

fn one(agent: &Agent, path: &str, args: &CtlArgs) -> Result<String, AskError> {
    if args.json { agent.text(path) } else { Ok(table::details(&agent.one(path)?)) }
}

fn list<R: Row>(agent: &Agent, path: &str, args: &CtlArgs) -> Result<String, AskError> {
    if args.json { agent.json_list(path) } else { Ok(table::table::<R>(&agent.list(path)?)) }
}
