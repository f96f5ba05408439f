//! Reading the configuration again while the agent runs, on SIGHUP or for the admin server.
//!
//! ```text
//!   file ──checked whole──▶ wrong: the old one stays in force, an error and an event tell why
//!                           right: limits, tenants and the admin token count at once, what needs a restart is named
//! ```
//!
//! One reload runs at a time. What is in force is kept setting by setting: those that need a restart stay what they were,
//! and are told again at each reload until there is one.
//!
//! Imports allowed: config, admin's answers and token, the actors' journal, `service_manager`.

use std::fmt;
use std::sync::Arc;

use actix_rt::signal::unix::Signal;
use actix_rt::task::{JoinHandle, spawn_blocking};
use parking_lot::Mutex;

use super::service_manager::Reloading;
use super::with_causes;
use crate::actors::journal::{Happening, Journal};
use crate::admin::config::{SettingRow, Settings};
use crate::admin::reload::{Configured, Reloaded};
use crate::admin::token::AdminToken;
use crate::config::Config;
use crate::config::difference::{Difference, taken};
use crate::config::effective::{Effective, Setting, effective};
use crate::config::load::Flags;
use crate::config::place::Environment;

/// Puts in force what of a configuration counts without a restart.
pub type Govern = Box<dyn Fn(&Config) + Send + Sync>;

/// What of a configuration counts without a restart.
pub(super) struct Governed {
    /// Limits and tenants.
    pub(super) govern: Govern,
    /// The token in force, whose file may say another.
    pub(super) token: Option<AdminToken>,
}

/// A configuration that can be read again.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The flags it was read with.
    pub flags: Flags,
    /// What it came to.
    pub settings: Vec<Setting>,
}

/// What reads it again.
pub(super) struct Reloader {
    flags: Flags,
    environment: Environment,
    governed: Governed,
    journal: Arc<Journal>,
    turn: Mutex<()>,
    in_force: Mutex<Vec<Setting>>,
}

impl Reloader {
    pub(super) fn new(
        Origin { flags, settings }: Origin,
        environment: Environment,
        governed: Governed,
        journal: Arc<Journal>,
    ) -> Self {
        Self { flags, environment, governed, journal, turn: Mutex::default(), in_force: Mutex::new(settings) }
    }

    /// The configuration, and the token that its file says, if both are right.
    fn read(&self) -> Result<(Effective, Option<AdminToken>), String> {
        let effective = effective(&self.flags, &self.environment).map_err(|error| with_causes(&error))?;
        let token = checked_token(&effective, &self.environment)?;
        Ok((effective, token))
    }

    fn apply(
        &self,
        Effective { config, settings }: Effective,
        token: Option<&AdminToken>,
        who: &str,
    ) -> Reloaded {
        (self.governed.govern)(&config);
        let renewed = self.governed.token.as_ref().zip(token).is_some_and(|(old, new)| old.renew(new));
        let mut in_force = self.in_force.lock();
        let Difference { mut live, restart } = Difference::between(&in_force, &settings);
        *in_force = taken(&in_force, settings);
        drop(in_force);
        live.extend(renewed.then(|| format!("what {TOKEN_FILE} holds")));
        let text = told(&live, &restart);
        tracing::info!(who, applied = ?live, needs_restart = ?restart, "the configuration is read again");
        self.journal.tell(Happening::changed(None, format!("configuration read again for {who}: {text}")));
        Reloaded { applied: live, needs_restart: restart }
    }

    fn refuse(&self, who: &str, why: String) -> String {
        tracing::error!(who, why, "the configuration is wrong: the one before stays in force");
        self.journal.tell(Happening::not_reloaded(who, &why));
        why
    }
}

/// The key of the token's file.
const TOKEN_FILE: &str = "admin.token_file";

/// The token of a configuration, which can be used if there is one, and is there if it must be.
///
/// # Errors
/// What is wrong with it and where it is named, for people.
pub(super) fn checked_token(
    Effective { config, settings }: &Effective,
    environment: &Environment,
) -> Result<Option<AdminToken>, String> {
    let token = config.admin_endpoints(environment).token(config.admin.token_file.as_deref());
    token.map_err(|error| {
        let key = if config.admin.token_file.is_some() { TOKEN_FILE } else { "admin.remote" };
        let named = settings.iter().find(|setting| format!("{}.{}", setting.section, setting.key) == key);
        let origin = named.map(|setting| format!("{}: ", setting.origin)).unwrap_or_default();
        format!("{origin}{key}: {}", with_causes(&error))
    })
}

/// What a reload did, for people.
fn told(live: &[String], restart: &[String]) -> String {
    let list = |settings: &[String], what: &str| {
        (!settings.is_empty()).then(|| format!("{what} {}", settings.join(", ")))
    };
    let parts = [list(live, "changed"), list(restart, "a restart is needed for")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "nothing changed".to_owned() } else { parts.join("; ") }
}

impl Configured for Reloader {
    fn settings(&self) -> Settings {
        let row = |setting: &Setting| SettingRow {
            source: setting.origin.kind().to_owned(),
            origin: setting.origin.to_string(),
            section: setting.section.clone(),
            key: setting.key.clone(),
            value: setting.value.clone(),
            meaning: setting.meaning.clone(),
        };
        Settings { items: self.in_force.lock().iter().map(row).collect() }
    }

    fn reload(&self, who: &str) -> Result<Reloaded, String> {
        let _turn = self.turn.lock();
        let _told = Reloading::begin();
        match self.read() {
            Ok((effective, token)) => Ok(self.apply(effective, token.as_ref(), who)),
            Err(why) => Err(self.refuse(who, why)),
        }
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("flags", &self.flags).finish_non_exhaustive()
    }
}

/// Reloads at each of these signals, until it is aborted.
pub(super) fn at_each(mut hangup: Signal, reloader: Arc<Reloader>) -> JoinHandle<()> {
    actix_rt::spawn(async move {
        while hangup.recv().await.is_some() {
            let reloader = Arc::clone(&reloader);
            let reloaded = spawn_blocking(move || reloader.reload("SIGHUP")).await;
            tracing::debug!(?reloaded, "SIGHUP");
        }
    })
}

#[cfg(test)]
mod tests {
    use rustix::process::Uid;

    use super::*;

    #[test]
    fn a_wrong_file_changes_nothing_and_a_right_one_what_it_can() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        let flags = Flags { config: Some(file.path().into()), ..Flags::default() };
        let environment = Environment::new(Uid::ROOT, |_| None);
        let (governed, journal) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Journal::default()));
        let settings = effective(&flags, &environment).unwrap().settings;
        let govern = {
            let governed = Arc::clone(&governed);
            move |config: &Config| governed.lock().push(config.tenant.len())
        };
        let reloader = Reloader::new(
            Origin { flags, settings },
            environment,
            Governed { govern: Box::new(govern), token: None },
            Arc::clone(&journal),
        );

        write("[limits]\nhost = { areas = 5 }\n[server]\narbiters = 3\n[[tenant]]\nname = \"a\"\n");
        let reloaded = reloader.reload("a test").unwrap();
        assert_eq!(reloaded.applied, ["limits.host", "tenant.a.name"]);
        assert_eq!(reloaded.needs_restart, ["server.arbiters"]);
        let before = reloader.settings();
        let row = |key: &str| before.items.iter().find(|row| row.key == key).unwrap().value.clone();
        assert_eq!((row("host"), row("arbiters")), ("{ areas = 5 }".to_owned(), "0".to_owned()));

        write("[limits]\nhost = { areas = 6 }\nhots = 1\n");
        let wrong = reloader.reload("a test").unwrap_err();
        assert!(wrong.ends_with(":3:1: limits.hots: unknown key, did you mean host?"), "{wrong}");
        assert_eq!((reloader.settings(), governed.lock().clone()), (before, vec![1]));
        let events = journal.since(0, 10).events;
        let told: Vec<_> =
            events.iter().map(|event| (event.what.kind.name(), event.what.text.as_str())).collect();
        let [("changed", changed), ("not-reloaded", refused)] = told[..] else { panic!("{told:?}") };
        let text = "configuration read again for a test: changed limits.host, tenant.a.name; a restart is needed for server.arbiters";
        assert_eq!(changed, text);
        assert!(refused.contains("limits.hots"), "{refused}");
    }
}
