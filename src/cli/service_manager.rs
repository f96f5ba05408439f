//! What a service manager is told, and when: sd_notify(3).
//!
//! ```text
//! serving ──▶ READY, then STATUS when it changes and WATCHDOG as long as every check passes ──▶ dropped: STOPPING
//!    reloading ──▶ RELOADING with the time, then READY again
//! ```
//!
//! A failing check withholds the watchdog's sign of life. The manager ends an agent only after the whole interval without
//! one, so a hiccup costs nothing, and an arbiter that hangs for good does not keep clients waiting for ever.
//!
//! Imports allowed: `admin::health`, `actors::registry`, `sd_notify`.

use std::sync::Arc;
use std::time::Duration;

use actix_rt::task::JoinHandle;
use sd_notify::NotifyState;

use crate::actors::registry::Registry;
use crate::admin::health::Check;

/// How often the status is looked at where no watchdog asks for more.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// Signs of life in one interval of the watchdog.
const BEATS: u32 = 3;

/// Tells the service manager how the agent is; when dropped, that it stops.
pub(super) struct Serving(Option<JoinHandle<()>>);

/// The agent serves clients from now on.
pub(super) fn serving(checks: Vec<Check>, registry: Arc<Registry>) -> Serving {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Serving(None);
    }
    tell(&[NotifyState::Ready]);
    Serving(Some(actix_rt::spawn(report(checks, registry))))
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(reporting) = self.0.take() {
            reporting.abort();
            tell(&[NotifyState::Stopping, NotifyState::Status("stopping: ending every mapping")]);
        }
    }
}

/// The agent reads its configuration again; when dropped, it is done with that.
pub(super) struct Reloading(());

impl Reloading {
    pub(super) fn begin() -> Self {
        match NotifyState::monotonic_usec_now() {
            Ok(when) => tell(&[NotifyState::Reloading, when]),
            Err(error) => tracing::warn!(%error, "there is no monotonic clock"),
        }
        Self(())
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        tell(&[NotifyState::Ready]);
    }
}

async fn report(checks: Vec<Check>, registry: Arc<Registry>) {
    let watchdog = sd_notify::watchdog_enabled().map(|interval| interval / BEATS);
    let period = watchdog.map_or(STATUS_PERIOD, |beat| beat.min(STATUS_PERIOD));
    let mut said = String::new();
    loop {
        let healthy = checks.iter().try_for_each(Check::ask);
        if watchdog.is_some() && healthy.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
        let status = status(healthy, &registry);
        if status != said {
            tell(&[NotifyState::Status(&status)]);
            said = status;
        }
        actix_rt::time::sleep(period).await;
    }
}

fn status(healthy: Result<(), String>, registry: &Registry) -> String {
    let seen = registry.snapshot();
    match healthy {
        Ok(()) => format!("serving: {} contexts, {} bytes pinned", seen.contexts.len(), seen.pinned().get()),
        Err(missing) => format!("not well: {missing}"),
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::ByteLen;

    use super::*;
    use crate::actors::figures::examples;

    #[test]
    fn the_status_says_what_is_held_or_what_is_missing() {
        let registry = Registry::new();
        let pages = registry.register_pages(examples::pages(8192, 0));
        pages.pinned.set(ByteLen::new(8192));
        assert_eq!(status(Ok(()), &registry), "serving: 0 contexts, 8192 bytes pinned");
        let stuck = Check::new("arbiters", || Err("arbiter 1 does not answer".to_owned()));
        assert_eq!(status(stuck.ask(), &registry), "not well: arbiters: arbiter 1 does not answer");
    }

    #[test]
    fn without_a_service_manager_nobody_is_told() {
        let told = actix_rt::System::new().block_on(async { serving(Vec::new(), Registry::new()) });
        assert!(told.0.is_none());
    }
}
