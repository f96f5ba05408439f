//! The token that opens the admin API over TCP: a secret in a file that only the agent's user and root can read.
//!
//! It is read when the agent starts and whenever the configuration is read again; from then on the one before is refused.
//!
//! Imports allowed: `std`, `rustix`, `parking_lot`.

use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

/// Characters of the shortest and of the longest token.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=512;

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the admin token {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("the admin token {} has mode {mode:04o} and user {uid}: it must belong to root or the agent's user, and nobody else may read it (chmod 0400)", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whose it is.
        uid: u32,
    },
    /// It is no token.
    #[error("the admin token {} must be one line of {} to {} visible ASCII characters", path.display(), LENGTHS.start(), LENGTHS.end())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// The token in force, and the file that it is from.
#[derive(Clone, Debug)]
pub struct AdminToken(Arc<InForce>);

#[derive(Debug)]
struct InForce {
    path: PathBuf,
    token: RwLock<Token>,
}

impl AdminToken {
    /// The token in the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, others can read it, or it is none.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let token = RwLock::new(Token::read(path)?);
        Ok(Self(Arc::new(InForce { path: path.to_owned(), token })))
    }

    /// Puts the token of `fresh` in force, if it is from the same file; tells whether that is another one.
    #[must_use]
    pub fn renew(&self, fresh: &Self) -> bool {
        if self.0.path != fresh.0.path {
            return false;
        }
        let new = fresh.0.token.read().clone();
        let old = std::mem::replace(&mut *self.0.token.write(), new.clone());
        !old.is(&new.0)
    }

    /// Whether `given` is the token.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.0.token.read().is(given)
    }
}

/// A token.
#[derive(Clone)]
struct Token(Vec<u8>);

impl Token {
    /// The token in the file at `path`.
    fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let (mode, uid) = (about.mode() & 0o7777, about.uid());
        let own = rustix::process::geteuid().as_raw();
        if mode & 0o077 != 0 || ![0, own].contains(&uid) {
            return Err(TokenError::Readable { path: path.to_owned(), mode, uid });
        }
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text).map_err(failed)?;
        let token = text.trim_end_matches(['\r', '\n']);
        if !LENGTHS.contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Malformed { path: path.to_owned() });
        }
        Ok(Self(token.as_bytes().to_vec()))
    }

    /// Whether `given` is the token. How long that takes tells nothing about where they differ.
    fn is(&self, given: &[u8]) -> bool {
        let differ = self.0.iter().enumerate().fold(0, |differ, (at, byte)| {
            black_box(differ | (byte ^ given.get(at).copied().unwrap_or(!byte)))
        });
        black_box(differ) == 0 && self.0.len() == given.len()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<Token, TokenError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        Token::read(file.path())
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = read("0123456789abcdef\n", 0o600).unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in ["", "0", "0123456789abcdeF", "0123456789abcdef0", "x123456789abcdef"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn a_token_is_renewed_from_its_own_file_alone() {
        let (file, other) =
            (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let write = |file: &tempfile::NamedTempFile, text: &str| std::fs::write(file.path(), text).unwrap();
        write(&file, "the-first-token-1");
        write(&other, "of-another-file-1");
        let in_force = AdminToken::read(file.path()).unwrap();
        assert!(!in_force.renew(&AdminToken::read(other.path()).unwrap()));
        assert!(!in_force.renew(&AdminToken::read(file.path()).unwrap()), "it is the same");
        write(&file, "the-second-token-2");
        assert!(in_force.is(b"the-first-token-1"));
        assert!(in_force.renew(&AdminToken::read(file.path()).unwrap()));
        assert!(in_force.is(b"the-second-token-2") && !in_force.is(b"the-first-token-1"));
    }

    #[test]
    fn a_token_that_others_can_read_or_that_is_none_is_refused() {
        for mode in [0o644, 0o640, 0o602, 0o601] {
            assert!(matches!(read("0123456789abcdef", mode), Err(TokenError::Readable { .. })), "{mode:o}");
        }
        for text in ["", "short", "0123456789abcdef 0", "0123456789abcdef\nmore", "0123456789abcdé0"] {
            assert!(matches!(read(text, 0o400), Err(TokenError::Malformed { .. })), "{text:?}");
        }
        assert!(matches!(Token::read(Path::new("/nonexistent/x")), Err(TokenError::Read { .. })));
    }
}
