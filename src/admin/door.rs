//! The doors of the admin server, and what may be seen through each.
//!
//! ```text
//!   Unix socket   everything: only the agent's user and root can open it
//!   TCP           scope `metrics`: /livez /readyz /metrics /version; scope `full`: everything that only reads
//! ```
//!
//! Through TCP a request must name this host as a browser would that was sent here on purpose: a page of another origin
//! that had its own name resolve to 127.0.0.1 is refused.
//!
//! Imports allowed: `actix_web`, problem.

use std::any::Any;
use std::net::IpAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use actix_web::rt::net::{TcpStream, UnixStream};
use actix_web::{Error, web};

use super::Shown;
use super::problem::{Kind, Problem};

/// What the admin server shows through TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Whether the agent lives and what it counts.
    #[default]
    Metrics,
    /// Everything that only reads.
    Full,
}

impl Scope {
    /// The word used in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Full => "full",
        }
    }
}

/// Paths of scope `metrics`.
const METRICS_PATHS: [&str; 4] = ["/livez", "/readyz", "/metrics", "/version"];

/// The door a connection came in through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Tcp,
    Socket,
}

/// Notes on a new connection which door it came through.
pub(super) fn note(connection: &dyn Any, extensions: &mut Extensions) {
    if connection.is::<UnixStream>() {
        extensions.insert(Door::Socket);
    } else if connection.is::<TcpStream>() {
        extensions.insert(Door::Tcp);
    }
}

/// Lets a request in, or answers it with what is wrong.
pub(super) async fn keep<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut response = match judge(&request) {
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
        Err(problem) => request.into_response(problem.response()),
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// A connection whose door is not known is treated like one from TCP.
fn judge(request: &ServiceRequest) -> Result<(), Problem> {
    if request.conn_data::<Door>() == Some(&Door::Socket) {
        return Ok(());
    }
    require_own_host(request.headers().get(HOST))?;
    let scope = request.app_data::<web::Data<Shown>>().map_or(Scope::Metrics, |shown| shown.scope);
    let path = request.path();
    if scope == Scope::Full || METRICS_PATHS.contains(&path) {
        return Ok(());
    }
    let detail = format!(
        "only {} are shown over TCP: ask over the admin socket (ioasd ctl does), or set admin.scope to \"full\"",
        METRICS_PATHS.join(", ")
    );
    Err(Problem::new(Kind::OutOfScope, detail))
}

fn require_own_host(host: Option<&HeaderValue>) -> Result<(), Problem> {
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_own(host) {
        return Ok(());
    }
    let detail = format!("host {host:?} is not this host: use 127.0.0.1, [::1] or localhost");
    Err(Problem::new(Kind::HostNotAllowed, detail))
}

fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_this_host() {
        for own in
            ["localhost", "LOCALHOST:9884", "127.0.0.1", "127.0.0.1:80", "127.1.2.3", "[::1]", "[::1]:1"]
        {
            assert!(is_own(own), "{own}");
        }
        for other in
            ["", "evil.example", "evil.example:9884", "192.0.2.1", "localhost.evil.example", "0.0.0.0"]
        {
            assert!(!is_own(other), "{other}");
        }
    }
}
