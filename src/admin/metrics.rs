//! `/metrics`.
//!
//! Imports allowed: `actix_web`, `telemetry::metrics`.

use actix_web::{HttpResponse, web};

use super::Shown;
use crate::telemetry::metrics::{CONTENT_TYPE, scrape};

pub(super) async fn metrics(shown: web::Data<Shown>) -> HttpResponse {
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(scrape(&shown.view.registry))
}
