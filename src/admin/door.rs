//! The doors of the admin server: what may be seen through each, and who may change anything.
//!
//! ```text
//!                 looks at                                              changes
//!   Unix socket   everything, for whoever can open it                   the agent's user and root
//!   loopback      scope `metrics`: /livez /readyz /metrics /version;    whoever has the token
//!                 scope `full`, or with the token: everything
//!   remote        those four; with the token everything                 whoever has the token
//! ```
//!
//! A browser is a stranger with the operator's access. A request must name this host by an address or a name that was
//! configured, so that a page whose own name resolves here gets nothing; also over the Unix socket, which may be forwarded to
//! a port (`ssh -L`), but there any name will do that no page can have. A change must besides come from no other origin; what
//! it brings must be JSON, which no form can send.
//!
//! A handler that changes something takes a `Changer`, which only this file makes: no other way leads to a change.
//!
//! Imports allowed: `actix_web`, problem, token.

use std::any::Any;
use std::fmt;
use std::future::{Ready, ready};
use std::net::{IpAddr, SocketAddr};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Extensions, Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::rt::net::{TcpStream, UnixStream};
use actix_web::{Error, FromRequest, HttpRequest, web};

use super::Shown;
use super::problem::{Kind, Problem};
use super::token::AdminToken;

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

/// Paths that every door shows.
const METRICS_PATHS: [&str; 4] = ["/livez", "/readyz", "/metrics", "/version"];

/// Where a browser says which page a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who opens what.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// What is shown on loopback without the token.
    pub(super) scope: Scope,
    /// The token, if there is one.
    pub(super) token: Option<AdminToken>,
    /// Names of this host, besides its addresses.
    pub(super) names: Vec<String>,
}

/// The process at the other end of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    uid: u32,
    pid: Option<i32>,
}

/// The door a connection came in through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Loopback,
    Remote,
    Socket(Option<Peer>),
}

/// Notes on a new connection which door it came through; `loopback` is the address of that door.
pub(super) fn note(connection: &dyn Any, extensions: &mut Extensions, loopback: Option<SocketAddr>) {
    if let Some(stream) = connection.downcast_ref::<UnixStream>() {
        let peer = stream.peer_cred().ok().map(|peer| Peer { uid: peer.uid(), pid: peer.pid() });
        extensions.insert(Door::Socket(peer));
    } else if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        let own = loopback.is_some() && stream.local_addr().ok() == loopback;
        extensions.insert(if own { Door::Loopback } else { Door::Remote });
    }
}

/// Lets a request in, or answers it with what is wrong.
pub(super) async fn keep<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut response = match judge(request.request()) {
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
        Err(problem) => request.into_response(problem.response()),
    };
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// A connection whose door is not known is treated like one from elsewhere.
fn door(request: &HttpRequest) -> Door {
    request.conn_data::<Door>().copied().unwrap_or(Door::Remote)
}

fn keys(request: &HttpRequest) -> Keys {
    request.app_data::<web::Data<Shown>>().map(|shown| shown.keys.clone()).unwrap_or_default()
}

fn judge(request: &HttpRequest) -> Result<(), Problem> {
    let (door, keys) = (door(request), keys(request));
    require_own_host(request, &keys)?;
    if matches!(door, Door::Socket(_)) {
        return Ok(());
    }
    let authorized = authorized(request, &keys)?;
    let open = door == Door::Loopback && keys.scope == Scope::Full;
    if authorized || open || METRICS_PATHS.contains(&request.path()) {
        return Ok(());
    }
    Err(closed(&keys))
}

fn closed(keys: &Keys) -> Problem {
    let paths = METRICS_PATHS.join(", ");
    if keys.token.is_some() {
        let detail = format!("only {paths} are shown here without the token of admin.token_file");
        return Problem::new(Kind::TokenNeeded, detail);
    }
    let detail = format!(
        "only {paths} are shown over TCP: ask over the admin socket (ioasd ctl does), or set admin.scope to \"full\""
    );
    Problem::new(Kind::OutOfScope, detail)
}

/// Whether `request` shows the token; one that shows another is refused.
fn authorized(request: &HttpRequest, keys: &Keys) -> Result<bool, Problem> {
    let Some(given) = request.headers().get(AUTHORIZATION) else { return Ok(false) };
    let given = given.as_bytes();
    let scheme = given.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"Bearer "));
    let token = scheme.and_then(|_| given.get(7..));
    let fits = keys.token.as_ref().zip(token).is_some_and(|(token, given)| token.is(given));
    let wrong = || Problem::new(Kind::TokenNeeded, "that is not the token of admin.token_file");
    if fits { Ok(true) } else { Err(wrong()) }
}

fn header<'r>(request: &'r HttpRequest, name: &HeaderName) -> Option<&'r str> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or_default())
}

fn require_own_host(request: &HttpRequest, keys: &Keys) -> Result<(), Problem> {
    let host = header(request, &HOST).unwrap_or_default();
    let own = match door(request) {
        Door::Loopback => is_loopback(host),
        Door::Remote => is_address(host),
        Door::Socket(_) => is_address(host) || !name_in(host).contains('.'),
    };
    if own || keys.names.iter().any(|name| name.eq_ignore_ascii_case(name_in(host))) {
        return Ok(());
    }
    let detail = format!(
        "host {host:?} is not this host: use its address or localhost, or have the name in admin.names"
    );
    Err(Problem::new(Kind::HostNotAllowed, detail))
}

/// `host` without its port.
fn name_in(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn address_in(host: &str) -> Option<IpAddr> {
    let name = name_in(host);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse().ok()
}

fn is_loopback(host: &str) -> bool {
    name_in(host).eq_ignore_ascii_case("localhost") || address_in(host).is_some_and(|ip| ip.is_loopback())
}

/// An address is nobody's name: a page cannot have it resolve to another host.
fn is_address(host: &str) -> bool {
    is_loopback(host) || address_in(host).is_some()
}

/// Who changes something. That there is one means that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Changer(Option<Peer>);

impl fmt::Display for Changer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Peer { uid, pid: Some(pid) }) => write!(f, "process {pid} of user {uid}"),
            Some(Peer { uid, pid: None }) => write!(f, "user {uid}"),
            None => f.write_str("somebody with the token"),
        }
    }
}

impl FromRequest for Changer {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(changer(request))
    }
}

fn changer(request: &HttpRequest) -> Result<Changer, Problem> {
    require_own_origin(request)?;
    let changer = match door(request) {
        Door::Socket(peer) => Changer(Some(owner(peer)?)),
        Door::Loopback | Door::Remote => {
            let keys = keys(request);
            if !authorized(request, &keys)? {
                return Err(token_needed(&keys));
            }
            Changer(None)
        }
    };
    require_json(request)?;
    Ok(changer)
}

fn owner(peer: Option<Peer>) -> Result<Peer, Problem> {
    let own = rustix::process::geteuid().as_raw();
    if let Some(peer) = peer.filter(|peer| peer.uid == 0 || peer.uid == own) {
        return Ok(peer);
    }
    let who =
        peer.map_or_else(|| "a peer that cannot be seen".to_owned(), |peer| format!("user {}", peer.uid));
    let detail =
        format!("{who} may look and change nothing: only user {own}, whose agent it is, and root may");
    Err(Problem::new(Kind::ChangeNotAllowed, detail))
}

fn token_needed(keys: &Keys) -> Problem {
    let detail = match keys.token {
        Some(_) => "over TCP a change needs \"Authorization: Bearer\" with the token of admin.token_file",
        None => {
            "over TCP nothing can be changed without admin.token_file: use the admin socket (ioasd ctl does)"
        }
    };
    let kind = if keys.token.is_some() { Kind::TokenNeeded } else { Kind::ChangeNotAllowed };
    Problem::new(kind, detail)
}

/// Neither a page of another origin nor one whose origin is hidden changes anything, whatever it knows.
fn require_own_origin(request: &HttpRequest) -> Result<(), Problem> {
    let host = header(request, &HOST).unwrap_or_default();
    let site = header(request, &FETCH_SITE).is_none_or(|site| ["same-origin", "none"].contains(&site));
    let origin = header(request, &ORIGIN).is_none_or(|origin| {
        ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host))
    });
    if site && origin {
        return Ok(());
    }
    let detail = "a page of another origin cannot change anything here";
    Err(Problem::new(Kind::CrossOrigin, detail))
}

/// What brings nothing has no kind; whatever a form sends has one.
fn require_json(request: &HttpRequest) -> Result<(), Problem> {
    let kind = header(request, &CONTENT_TYPE);
    if kind.is_none() && !has_body(request) {
        return Ok(());
    }
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!("a change is sent as application/json, not as {kind:?}");
    Err(Problem::new(Kind::ContentType, detail))
}

fn has_body(request: &HttpRequest) -> bool {
    request.headers().contains_key(TRANSFER_ENCODING)
        || header(request, &CONTENT_LENGTH).is_some_and(|length| length != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_this_host() {
        for own in
            ["localhost", "LOCALHOST:9884", "127.0.0.1", "127.0.0.1:80", "127.1.2.3", "[::1]", "[::1]:1"]
        {
            assert!(is_loopback(own) && is_address(own), "{own}");
        }
        for other in
            ["", "evil.example", "evil.example:9884", "192.0.2.1", "localhost.evil.example", "0.0.0.0"]
        {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn from_elsewhere_an_address_is_this_host_and_a_name_is_not() {
        for own in ["192.0.2.1:9885", "[2001:db8::1]:9885"] {
            assert!(is_address(own), "{own}");
        }
        for other in ["evil.example", "192.0.2.1.evil.example:80", ""] {
            assert!(!is_address(other), "{other}");
        }
    }
}
