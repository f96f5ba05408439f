//! `/version`.
//!
//! Imports allowed: `actix_web`, `utoipa`.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

/// What answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Version {
    /// The name of the program.
    name: &'static str,
    /// Its version.
    version: &'static str,
}

pub(super) async fn version() -> HttpResponse {
    HttpResponse::Ok().json(Version { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") })
}
