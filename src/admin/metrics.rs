//! `/metrics`.
//!
//! Imports allowed: `actix_web`, `telemetry::{metrics, host}`.

use actix_web::{HttpResponse, web};

use super::Shown;
use crate::telemetry::host;
use crate::telemetry::metrics::{CONTENT_TYPE, scrape};

pub(super) async fn metrics(shown: web::Data<Shown>) -> HttpResponse {
    let registry = &shown.view.registry;
    let mut text = scrape(&shown.view, shown.series);
    if let Some(reading) = shown.host.read() {
        text += &host::scrape(&reading, registry);
    }
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(text)
}
