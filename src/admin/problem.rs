//! What the admin server says when it cannot answer: `application/problem+json` (RFC 9457).
//!
//! The `type` is stable and ends in the code of the error; people read `title` and `detail`. One table, [`Kind::facts`],
//! gives each kind its code, HTTP status and errno.
//!
//! Imports allowed: `actix_web`, `utoipa`, error, the actors' inbox.

use std::fmt;

use actix_web::http::{StatusCode, StatusCode as Http, header};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::actors::inbox::NoAnswer;
use crate::error::Errno;

/// What a problem is sent as.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No such path.
    NotFound,
    /// A path that does not take this method.
    MethodNotAllowed,
    /// No such object, or no longer.
    ObjectAbsent,
    /// A parameter with a value that cannot be meant.
    ParameterInvalid,
    /// A parameter that the path does not take.
    ParameterUnknown,
    /// A path that is not shown through this door.
    OutOfScope,
    /// A host name that is not this host's.
    HostNotAllowed,
    /// A change by somebody who may only look.
    ChangeNotAllowed,
    /// The token is missing or another.
    TokenNeeded,
    /// A change that a page of another origin asks for.
    CrossOrigin,
    /// A body of another kind than JSON.
    ContentType,
    /// A body that says nothing that can be done.
    BodyInvalid,
    /// A configuration that cannot be read again as it is.
    ConfigurationInvalid,
    /// An operation that has no way back.
    OperationFixed,
    /// This agent has no such thing.
    NotOffered,
    /// As many streams as there may be are open.
    StreamsExhausted,
    /// The kernel does not show this host.
    HostUnreadable,
    /// The owner of an object did not answer in time.
    OwnerSilent,
    /// Too many questions wait for the owner of an object.
    OwnerBusy,
}

/// Code, title, status and errno.
type Facts = (&'static str, &'static str, StatusCode, Errno);

impl Kind {
    const fn facts(self) -> Facts {
        match self {
            Self::NotFound => ("not-found", "no such resource", Http::NOT_FOUND, Errno::NOENT),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "method not allowed", Http::METHOD_NOT_ALLOWED, Errno::OPNOTSUPP)
            }
            Self::ObjectAbsent => ("object-absent", "no such object", Http::NOT_FOUND, Errno::NOENT),
            Self::ParameterInvalid => {
                ("parameter-invalid", "a parameter cannot be used", Http::BAD_REQUEST, Errno::INVAL)
            }
            Self::ParameterUnknown => {
                ("parameter-unknown", "an unknown parameter", Http::BAD_REQUEST, Errno::INVAL)
            }
            Self::OutOfScope => ("out-of-scope", "not shown here", Http::FORBIDDEN, Errno::ACCESS),
            Self::HostNotAllowed => {
                ("host-not-allowed", "not a name of this host", Http::FORBIDDEN, Errno::ACCESS)
            }
            Self::ChangeNotAllowed => {
                ("change-not-allowed", "not yours to change", Http::FORBIDDEN, Errno::PERM)
            }
            Self::TokenNeeded => ("token-needed", "the token is missing", Http::UNAUTHORIZED, Errno::ACCESS),
            Self::CrossOrigin => ("cross-origin", "another origin", Http::FORBIDDEN, Errno::ACCESS),
            Self::ContentType => ("content-type", "not JSON", Http::UNSUPPORTED_MEDIA_TYPE, Errno::INVAL),
            Self::BodyInvalid => ("body-invalid", "the body cannot be used", Http::BAD_REQUEST, Errno::INVAL),
            Self::ConfigurationInvalid => {
                ("configuration-invalid", "the configuration is wrong", Http::CONFLICT, Errno::INVAL)
            }
            Self::OperationFixed => ("operation-fixed", "cannot be cancelled", Http::CONFLICT, Errno::BUSY),
            Self::NotOffered => ("not-offered", "not offered here", Http::NOT_FOUND, Errno::OPNOTSUPP),
            Self::StreamsExhausted => {
                ("streams-exhausted", "too many streams", Http::SERVICE_UNAVAILABLE, Errno::BUSY)
            }
            Self::HostUnreadable => {
                ("host-unreadable", "the host is not shown", Http::SERVICE_UNAVAILABLE, Errno::IO)
            }
            Self::OwnerSilent => {
                ("owner-silent", "the data side does not answer", Http::SERVICE_UNAVAILABLE, Errno::TIMEDOUT)
            }
            Self::OwnerBusy => {
                ("owner-busy", "the data side does not answer", Http::SERVICE_UNAVAILABLE, Errno::BUSY)
            }
        }
    }
}

/// A problem.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    parameter: Option<&'static str>,
    allow: &'static str,
}

/// A problem as it is sent (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    /// `urn:ioasd:error:` and the stable code of the error.
    r#type: String,
    /// What kind of problem it is.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was found and what to do.
    detail: &'a str,
    /// The errno of the error.
    errno: i32,
    /// The parameter that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'static str>,
}

impl Problem {
    /// A problem of `kind`; `detail` says what was found and what to do.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), parameter: None, allow: "GET" }
    }

    /// Parameter `name` has a value that cannot be used.
    pub(super) fn parameter(name: &'static str, detail: impl fmt::Display) -> Self {
        let detail = format!("{name}: {detail}");
        Self { parameter: Some(name), ..Self::new(Kind::ParameterInvalid, detail) }
    }

    /// There is no such `object`.
    pub(super) fn absent(object: impl fmt::Display) -> Self {
        Self::new(Kind::ObjectAbsent, format!("there is no {object}, or no longer"))
    }

    /// The owner of `object` was asked and gave no answer.
    pub(super) fn no_answer(object: impl fmt::Display, why: NoAnswer) -> Self {
        match why {
            NoAnswer::Gone => Self::absent(object),
            NoAnswer::Busy => {
                Self::new(Kind::OwnerBusy, format!("{object}: {why}; see /readyz, and try again later"))
            }
            NoAnswer::Late => {
                Self::new(Kind::OwnerSilent, format!("{object}: {why}; see /readyz, and try again later"))
            }
        }
    }

    /// The answer.
    pub(super) fn response(&self) -> HttpResponse {
        let (code, title, status, errno) = self.kind.facts();
        let mut response = HttpResponse::build(status);
        match self.kind {
            Kind::MethodNotAllowed => response.insert_header((header::ALLOW, self.allow)),
            Kind::TokenNeeded => response.insert_header((header::WWW_AUTHENTICATE, "Bearer")),
            Kind::OwnerSilent | Kind::OwnerBusy | Kind::StreamsExhausted => {
                response.insert_header((header::RETRY_AFTER, "1"))
            }
            _ => &mut response,
        };
        response.content_type(CONTENT_TYPE).json(Body {
            r#type: format!("urn:ioasd:error:{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            errno: errno.raw_os_error(),
            parameter: self.parameter,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        let (_, _, status, _) = self.kind.facts();
        status
    }

    fn error_response(&self) -> HttpResponse {
        self.response()
    }
}

/// The answer to a path that does not exist.
pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    let detail = format!("there is nothing at {}, see / for what there is", request.path());
    Problem::new(Kind::NotFound, detail).response()
}

/// The answer to a method that a path does not take; it takes those that `allow` lists.
pub(super) async fn only(allow: &'static str, request: HttpRequest) -> HttpResponse {
    let detail = format!("{} takes {allow}, not {}", request.path(), request.method());
    Problem { allow, ..Problem::new(Kind::MethodNotAllowed, detail) }.response()
}
