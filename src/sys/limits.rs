//! Limits of the agent's own process.
//!
//! Imports allowed: rustix.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of descriptors this process may have to its hard limit and tells it; `None` is no limit. The agent
/// holds a descriptor for each client, file, table and export channel.
///
/// # Errors
/// If the kernel refuses.
pub fn raise_descriptors() -> Result<Option<u64>, Errno> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn afterwards_the_soft_limit_is_the_hard_one() {
        let raised = raise_descriptors().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, raised);
    }
}
