//! `/version`.
//!
//! Imports allowed: `actix_web`.

use actix_web::HttpResponse;
use serde::Serialize;

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

pub(super) async fn version() -> HttpResponse {
    HttpResponse::Ok().json(Version { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") })
}
