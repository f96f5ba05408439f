//! What the admin server says when it cannot answer: `application/problem+json` (RFC 9457).
//!
//! The `type` is stable and ends in the code of the error; people read `title` and `detail`.
//!
//! Imports allowed: `actix_web`.

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde::Serialize;

const CONTENT_TYPE: &str = "application/problem+json";

#[derive(Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

/// The answer to a path that does not exist.
pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    Problem {
        r#type: "urn:ioasd:error:not-found",
        title: "no such resource",
        status: StatusCode::NOT_FOUND.as_u16(),
        detail: format!("there is nothing at {}, try /livez, /readyz, /metrics or /version", request.path()),
    }
    .answer(&mut HttpResponse::NotFound())
}

/// The answer to any method but GET at a path that can only be read.
pub(super) async fn only_get(request: HttpRequest) -> HttpResponse {
    Problem {
        r#type: "urn:ioasd:error:method-not-allowed",
        title: "method not allowed",
        status: StatusCode::METHOD_NOT_ALLOWED.as_u16(),
        detail: format!("{} takes GET, not {}", request.path(), request.method()),
    }
    .answer(HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET")))
}

impl Problem {
    fn answer(self, response: &mut HttpResponseBuilder) -> HttpResponse {
        response.content_type(CONTENT_TYPE).json(self)
    }
}
