//! Where the agent puts its sockets when nobody says.
//!
//! ```text
//! root                     /run/ioasd/<name>
//! with $XDG_RUNTIME_DIR    $XDG_RUNTIME_DIR/ioasd/<name>
//! else                     ./.ioasd/<name>
//! ```
//!
//! A function of user id and environment, so that it can be tested for every user.
//!
//! Imports allowed: `std`, `rustix`, `serde`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::process::Uid;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What the agent takes from its process: the user and the variables it heeds. An empty variable counts as unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The effective user.
    pub uid: Uid,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$IOASD_SOCKET`.
    pub socket: Option<PathBuf>,
    /// `$IOASD_CONFIG`.
    pub config: Option<PathBuf>,
    /// `$IOASD_LOG`.
    pub log: Option<OsString>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(rustix::process::geteuid(), |name| std::env::var_os(name))
    }

    /// The environment of user `uid` with the variables that `variable` knows.
    #[must_use]
    pub fn new(uid: Uid, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let path = |name| set(name).map(PathBuf::from);
        Self {
            uid,
            runtime_dir: path("XDG_RUNTIME_DIR").filter(|folder| folder.is_absolute()),
            socket: path("IOASD_SOCKET"),
            config: path("IOASD_CONFIG"),
            log: set("IOASD_LOG"),
        }
    }

    fn folder(&self) -> PathBuf {
        match (self.uid.is_root(), &self.runtime_dir) {
            (true, _) => PathBuf::from("/run/ioasd"),
            (false, Some(folder)) => folder.join("ioasd"),
            (false, None) => PathBuf::from("./.ioasd"),
        }
    }
}

/// One of the agent's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Where clients connect.
    Clients,
    /// Where people and monitoring connect.
    Admin,
}

impl Socket {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Clients => "ioasd.sock",
            Self::Admin => "admin.sock",
        }
    }
}

/// Where a socket shall be; written as a path or `"auto"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// By the rule at the head of this module.
    #[default]
    Auto,
    /// Here.
    At(PathBuf),
}

/// A socket path that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a socket path, write a path or \"auto\"")]
pub struct NotAPath(String);

impl Place {
    /// The path at which `socket` shall be.
    #[must_use]
    pub fn resolve(&self, socket: Socket, environment: &Environment) -> PathBuf {
        match self {
            Self::Auto => environment.folder().join(socket.file_name()),
            Self::At(path) => path.clone(),
        }
    }
}

impl FromStr for Place {
    type Err = NotAPath;

    fn from_str(text: &str) -> Result<Self, NotAPath> {
        match text {
            "auto" => Ok(Self::Auto),
            "" | "off" => Err(NotAPath(text.to_owned())),
            path => Ok(Self::At(PathBuf::from(path))),
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A place, or none when the setting is `"off"`.
pub(super) fn or_off<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Place>, D::Error> {
    let text = String::deserialize(from)?;
    if text == "off" { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(uid: u32, runtime_dir: &str) -> Environment {
        let runtime_dir = OsString::from(runtime_dir);
        Environment::new(Uid::from_raw(uid), |name| (name == "XDG_RUNTIME_DIR").then(|| runtime_dir.clone()))
    }

    #[track_caller]
    fn assert_default(uid: u32, runtime_dir: &str, expected: &str) {
        let path = Place::Auto.resolve(Socket::Clients, &environment(uid, runtime_dir));
        assert_eq!(path, PathBuf::from(expected));
    }

    #[test]
    fn the_default_depends_on_user_and_runtime_folder() {
        assert_default(0, "", "/run/ioasd/ioasd.sock");
        assert_default(0, "/run/user/0", "/run/ioasd/ioasd.sock");
        assert_default(1000, "/run/user/1000", "/run/user/1000/ioasd/ioasd.sock");
        assert_default(1000, "", "./.ioasd/ioasd.sock");
        assert_default(1000, "relative/is/not/heeded", "./.ioasd/ioasd.sock");
    }

    #[test]
    fn the_admin_socket_lies_beside_the_clients_socket() {
        let path = Place::Auto.resolve(Socket::Admin, &environment(0, ""));
        assert_eq!(path, PathBuf::from("/run/ioasd/admin.sock"));
    }

    #[test]
    fn a_path_given_is_the_path_taken() {
        let at: Place = "/tmp/x".parse().unwrap();
        assert_eq!(at.resolve(Socket::Clients, &environment(0, "")), PathBuf::from("/tmp/x"));
        assert_eq!("off".parse::<Place>(), Err(NotAPath("off".to_owned())));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let empty = Environment::new(Uid::ROOT, |_| Some(OsString::new()));
        assert_eq!(empty, Environment::new(Uid::ROOT, |_| None));
    }
}
