//! Where the admin server listens: a loopback TCP address, one that others reach, a Unix socket, or any of them.
//!
//! A Unix socket that a service manager bound already is used as it is and left where it is.
//!
//! Imports allowed: `std`, sys::activation, the error of `admin`.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::AdminError;
use crate::sys::activation;

/// A TCP address that only programs of this host can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackAddr(SocketAddr);

/// Why an address is not one the admin server may use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an address and a port.
    #[error("{0:?} is not an IP address and a port, write for example \"127.0.0.1:9884\"")]
    Malformed(String),
    /// Others than this host could reach it.
    #[error(
        "{0} is not a loopback address: use 127.0.0.1 or [::1], or admin.remote, which needs admin.token_file"
    )]
    NotLoopback(SocketAddr),
}

impl LoopbackAddr {
    /// Port 9884 of 127.0.0.1.
    pub const DEFAULT: Self =
        Self(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9884));

    /// The address.
    #[must_use]
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl TryFrom<SocketAddr> for LoopbackAddr {
    type Error = AddressError;

    fn try_from(address: SocketAddr) -> Result<Self, AddressError> {
        if address.ip().is_loopback() { Ok(Self(address)) } else { Err(AddressError::NotLoopback(address)) }
    }
}

impl FromStr for LoopbackAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        text.parse::<SocketAddr>().map_err(|_| AddressError::Malformed(text.to_owned()))?.try_into()
    }
}

/// A socket file of ours; removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "admin socket was gone already");
        }
    }
}

pub(super) fn tcp(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address).map_err(|source| AdminError::Tcp { address, source })
}

pub(super) fn unix(path: &Path) -> Result<(UnixListener, Option<SocketFile>), AdminError> {
    if let Some(socket) = activation::take(path) {
        return Ok((socket.into(), None));
    }
    bind(path)
        .map(|(listener, file)| (listener, Some(file)))
        .map_err(|source| AdminError::Unix { path: path.to_owned(), source })
}

fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok((listener, file))
}

/// A socket file on which nobody listens is left over from an agent that died. Any other file is not ours to remove.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => remove_if_silent(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket lies there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_if_silent(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_taken() {
        for good in ["127.0.0.1:9884", "127.8.0.1:0", "[::1]:80"] {
            assert!(good.parse::<LoopbackAddr>().is_ok(), "{good}");
        }
        for bad in ["0.0.0.0:9884", "[::]:9884", "192.0.2.1:80", "[::ffff:127.0.0.1]:80"] {
            let error = bad.parse::<LoopbackAddr>().unwrap_err();
            assert!(matches!(error, AddressError::NotLoopback(_)), "{bad}: {error}");
        }
        for bad in ["localhost:9884", "127.0.0.1", "", ":9884"] {
            assert_eq!(bad.parse::<LoopbackAddr>(), Err(AddressError::Malformed(bad.to_owned())));
        }
    }

    #[test]
    fn a_socket_is_ours_alone_and_goes_with_its_guard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/admin.sock");
        let (listener, file) = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = unix(&path).unwrap_err();
        assert!(
            matches!(&error, AdminError::Unix { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
        );
        drop((listener, file));
        assert!(!path.try_exists().unwrap());
    }

    #[test]
    fn a_left_over_socket_is_replaced_and_any_other_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(unix(&path).is_ok());
        fs::write(&path, "precious").unwrap();
        assert!(unix(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
