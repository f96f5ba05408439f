//! The agent of the demo: its files, its configuration, its start.
//!
//! Imports allowed: family, folder, cli's http, `std`, `toml`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::family::{Awaited, Family, FamilyError, Role};
use super::figures::Figures;
use super::folder::PrivateFolder;
use super::plan::Stay;
use crate::admin::areas::AreaRow;
use crate::admin::domains::DomainRow;
use crate::admin::json::{Hex, Listed};
use crate::cli::http::{self, Answer, Target};
use crate::config::values::Listen;
use crate::storage::source::StrengthSetting;

/// How often an agent that starts is asked whether it is ready.
const POLL: Duration = Duration::from_millis(10);

/// Why the agent is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    #[error("cannot make the agent's folder or its configuration")]
    Files(#[source] io::Error),
    #[error("cannot ask the agent for {target}")]
    Ask {
        target: String,
        #[source]
        source: io::Error,
    },
    #[error("the agent answers {target} with {status}: {body}")]
    Answer { target: String, status: u16, body: String },
    #[error("the agent's answer to {0} cannot be understood")]
    NotUnderstood(String),
    #[error(transparent)]
    Family(#[from] FamilyError),
}

/// The agent's files.
#[derive(Debug)]
pub(super) struct AgentFiles {
    folder: PrivateFolder,
    tcp: Option<SocketAddr>,
}

impl AgentFiles {
    /// Makes them, for an agent that holds memory as `strength` says. Where the demo stays, the agent can be looked at
    /// over TCP as well.
    pub(super) fn new(strength: StrengthSetting, stay: Stay) -> Result<Self, AgentError> {
        let tcp = match stay {
            Stay::Short => None,
            Stay::UntilInterrupted => Some(free_address().map_err(AgentError::Files)?),
        };
        let files = Self { folder: PrivateFolder::new().map_err(AgentError::Files)?, tcp };
        let text = files.config_text(strength).map_err(AgentError::Files)?;
        fs::write(files.config(), text).map_err(AgentError::Files)?;
        Ok(files)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("ioasd.toml")
    }

    /// Where the client connects.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("ioasd.sock")
    }

    /// Where the agent can be looked at over TCP.
    pub(super) const fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    pub(super) fn admin(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    fn admin_server(&self) -> Target {
        Target::Socket(self.admin())
    }

    /// Both sockets in the private folder.
    fn config_text(&self, strength: StrengthSetting) -> io::Result<String> {
        let (socket, admin) = (quoted(&self.socket())?, quoted(&self.admin())?);
        let listen = self.tcp.map_or_else(|| "off".to_owned(), |address| address.to_string());
        Ok(format!(
            "[server]\nsocket = {socket}\nsocket_mode = \"0600\"\n\n\
             [admin]\nlisten = {listen:?}\nscope = \"full\"\nsocket = {admin}\n\n\
             [log]\nfilter = \"warn\"\n\n\
             [engine]\nstrength = {:?}\n",
            strength.name()
        ))
    }

    /// Starts the agent and waits until it is ready. Variables that beat a configuration file are kept from it.
    pub(super) fn start(
        &self,
        program: &Path,
        family: &mut Family,
        awaited: Awaited,
    ) -> Result<(), AgentError> {
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(self.config());
        command.env_remove("IOASD_SOCKET").stdin(Stdio::null());
        family.start(Role::Agent, &mut command)?;
        let deadline = Instant::now() + awaited.patience;
        while Instant::now() < deadline {
            if matches!(http::get(&self.admin_server(), "/readyz"), Ok(Answer { status: 200, .. })) {
                return Ok(());
            }
            family.rest(POLL, awaited)?;
        }
        Err(awaited.late().into())
    }

    /// What the agent holds.
    pub(super) fn figures(&self) -> Result<Figures, AgentError> {
        const TARGET: &str = "/metrics";
        Figures::parse(&self.ask(TARGET)?).ok_or_else(|| AgentError::NotUnderstood(TARGET.to_owned()))
    }

    /// The agent's domains, and the first IOVA that each shows.
    pub(super) fn held(&self) -> Result<Vec<(DomainRow, Hex)>, AgentError> {
        let domains: Vec<DomainRow> = self.list("/v1/domains")?;
        let with_first = |domain: DomainRow| {
            let areas: Vec<AreaRow> = self.list(&format!("/v1/ioas/{}/areas?limit=1", domain.ioas))?;
            Ok(areas.first().map(|area| (domain, area.start)))
        };
        domains.into_iter().filter_map(|domain| with_first(domain).transpose()).collect()
    }

    fn list<T: DeserializeOwned>(&self, target: &str) -> Result<Vec<T>, AgentError> {
        let list: Result<Listed<T>, _> = serde_json::from_str(&self.ask(target)?);
        list.map(|list| list.items).map_err(|_| AgentError::NotUnderstood(target.to_owned()))
    }

    fn ask(&self, target: &str) -> Result<String, AgentError> {
        let answer = http::get(&self.admin_server(), target);
        let target = target.to_owned();
        match answer {
            Ok(Answer { status: 200, body }) => Ok(body),
            Ok(Answer { status, body }) => Err(AgentError::Answer { target, status, body }),
            Err(source) => Err(AgentError::Ask { target, source }),
        }
    }
}

/// The default address of the admin server, or any other if that is taken.
fn free_address() -> io::Result<SocketAddr> {
    let default = Listen::default().address().and_then(|address| TcpListener::bind(address.get()).ok());
    let listener = default.map_or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), Ok)?;
    listener.local_addr()
}

/// A path as a TOML string.
fn quoted(path: &Path) -> io::Result<String> {
    let text = path.as_os_str().to_str().map(|text| toml::Value::from(text).to_string());
    text.ok_or_else(|| not_text(path.as_os_str()))
}

fn not_text(path: &OsStr) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not UTF-8: set TMPDIR", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_configuration_opens_nothing_outside_the_folder() {
        let files = AgentFiles::new(StrengthSetting::Auto, Stay::Short).unwrap();
        let config: Config = toml::from_str(&fs::read_to_string(files.config()).unwrap()).unwrap();
        assert_eq!(config.admin.listen, Listen::Off);
        assert_eq!(config.server.socket, crate::config::place::Place::At(files.socket()));
        assert_eq!(config.admin.socket, Some(crate::config::place::Place::At(files.admin())));
        assert!(
            files.socket().starts_with(files.folder.path()) && files.admin().starts_with(files.folder.path())
        );
    }

    #[test]
    fn any_path_is_quoted_so_that_it_is_read_back() {
        for path in ["/tmp/a b", "/tmp/\"'\\\n", "/tmp/ü"] {
            let text = format!("path = {}", quoted(Path::new(path)).unwrap());
            let table: toml::Table = toml::from_str(&text).unwrap();
            assert_eq!(table.get("path").and_then(toml::Value::as_str), Some(path));
        }
    }
}
