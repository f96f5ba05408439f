//! `/`: a page for people. Everything it needs is in the program; it asks `/v1` like any other client.
//!
//! Imports allowed: `actix_web`.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use actix_web::web::{ServiceConfig, get};

use super::read_only;

/// Nothing from elsewhere, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(read_only("/", get().to(page)))
        .service(read_only("/ui/page.css", get().to(style)))
        .service(read_only("/ui/page.js", get().to(script)));
}

async fn page() -> HttpResponse {
    file("text/html; charset=utf-8", include_str!("ui/page.html"))
}

async fn style() -> HttpResponse {
    file("text/css; charset=utf-8", include_str!("ui/page.css"))
}

async fn script() -> HttpResponse {
    file("text/javascript; charset=utf-8", include_str!("ui/page.js"))
}

fn file(kind: &'static str, text: &'static str) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_SECURITY_POLICY, POLICY)).insert_header((CACHE_CONTROL, "no-cache"));
    response.content_type(kind).body(text)
}
