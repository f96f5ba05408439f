//! `/v1/reload`: the configuration is read again, and what can count without a restart counts.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, door, config.

use std::fmt;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::config::Settings;
use super::door::Changer;
use super::json::shown;
use super::parameters;
use super::problem::{Kind, Problem};

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Settings that changed and count from now on.
    pub applied: Vec<String>,
    /// Settings that changed and need a restart; what they were before stays in force.
    pub needs_restart: Vec<String>,
}

/// Where the configuration comes from.
pub trait Configured: fmt::Debug + Send + Sync {
    /// The settings in force.
    fn settings(&self) -> Settings;

    /// Reads the configuration again, because `who` asked. May wait for a file.
    ///
    /// # Errors
    /// What is wrong with it, for people; nothing has changed then.
    fn reload(&self, who: &str) -> Result<Reloaded, String>;
}

pub(super) async fn reload(
    changer: Changer,
    request: HttpRequest,
    data: web::Data<Shown>,
) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    let none =
        || Problem::new(Kind::NotOffered, "this agent's configuration is no file that could be read again");
    let configured = Arc::clone(data.configured.as_ref().ok_or_else(none)?);
    let reloaded = web::block(move || configured.reload(&changer.to_string())).await;
    let wrong = |detail| Problem::new(Kind::ConfigurationInvalid, detail);
    reloaded.map_err(|error| wrong(error.to_string()))?.map(|reloaded| shown(&reloaded)).map_err(wrong)
}
