//! `/livez` and `/readyz`: does the agent live, and can it be used.
//!
//! Imports allowed: `actix_web`, the actors' contexts.

use std::fmt;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse, web};

use super::Shown;
use crate::actors::contexts::{Contexts, Draining};

/// One condition of readiness.
///
/// The probe is called by the admin thread at each request: it must return at once and say what is missing.
pub struct Check {
    name: &'static str,
    probe: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Check {
    /// A check called `name`.
    pub fn new(name: &'static str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { name, probe: Box::new(probe) }
    }

    /// Whether whoever connects is served.
    #[must_use]
    pub fn not_draining(contexts: &Arc<Contexts>) -> Self {
        let contexts = Arc::clone(contexts);
        Self::new("admitting", move || match contexts.draining() {
            Draining::No => Ok(()),
            Draining::Yes => {
                Err("the agent drains: DELETE /v1/drain (ioasd ctl drain --undo) ends that".to_owned())
            }
        })
    }

    /// Asks now.
    ///
    /// # Errors
    /// What is missing, with the name of the check.
    pub fn ask(&self) -> Result<(), String> {
        (self.probe)().map_err(|missing| format!("{}: {missing}", self.name))
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

/// Everything that must hold before clients can be served.
#[derive(Debug, Default)]
pub struct Readiness {
    checks: Vec<Check>,
}

impl Readiness {
    /// Ready when every check of `checks` passes.
    #[must_use]
    pub const fn new(checks: Vec<Check>) -> Self {
        Self { checks }
    }

    /// What is missing, a line a check that does not pass.
    pub(super) fn missing(&self) -> Vec<String> {
        let failing = self.report().results.into_iter();
        failing.filter_map(|(name, result)| Some(format!("{name}: {}", result.err()?))).collect()
    }

    fn report(&self) -> Report {
        let results = self.checks.iter().map(|check| (check.name, (check.probe)())).collect();
        Report { results }
    }
}

struct Report {
    results: Vec<(&'static str, Result<(), String>)>,
}

impl Report {
    fn passed(&self) -> bool {
        self.results.iter().all(|(_, result)| result.is_ok())
    }

    fn status(&self) -> StatusCode {
        if self.passed() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    fn lines(&self, detail: Detail) -> String {
        let shown = self.results.iter().filter(|(_, result)| detail == Detail::All || result.is_err());
        let mut text = shown.fold(String::new(), |text, (name, result)| text + &line(name, result));
        text.push_str(if self.passed() { "ready\n" } else { "not ready\n" });
        text
    }
}

fn line(name: &str, result: &Result<(), String>) -> String {
    match result {
        Ok(()) => format!("[+] {name} ok\n"),
        Err(reason) => format!("[-] {name} failed: {reason}\n"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    Failures,
    All,
}

impl Detail {
    fn asked_by(request: &HttpRequest) -> Self {
        let verbose =
            request.query_string().split('&').any(|key| key == "verbose" || key.starts_with("verbose="));
        if verbose { Self::All } else { Self::Failures }
    }
}

pub(super) async fn livez() -> HttpResponse {
    plain(StatusCode::OK, "live\n".to_owned())
}

pub(super) async fn readyz(request: HttpRequest, shown: web::Data<Shown>) -> HttpResponse {
    let report = shown.readiness.report();
    plain(report.status(), report.lines(Detail::asked_by(&request)))
}

fn plain(status: StatusCode, text: String) -> HttpResponse {
    HttpResponse::build(status).content_type(ContentType::plaintext()).body(text)
}
