//! `/v1/config`: what the agent was configured with, and where each value comes from.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::shown;
use super::parameters;
use super::problem::Problem;

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingRow {
    /// Its section; that of a tenant is `tenant.` and its name.
    pub section: String,
    /// Its key.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// `flag`, `environment`, `file` or `default`.
    pub source: String,
    /// The flag, the variable, or the file and the line.
    pub origin: String,
    /// What `"auto"` means here.
    pub meaning: Option<String>,
}

/// Every setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// They, in the order of the commented file, then what the file says of tenants; none if the agent was started by a program.
    pub items: Vec<SettingRow>,
}

pub(super) async fn config(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    let configured = data.configured.as_ref();
    Ok(shown(&configured.map(|configured| configured.settings()).unwrap_or_default()))
}
