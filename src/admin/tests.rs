//! The admin server over real sockets, spoken to by a client that knows just enough HTTP/1.1.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use super::health::Check;
use super::*;
use crate::actors::figures::examples;
use crate::actors::registry::Registry;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn assert_header(&self, name: &str, value: &str) {
        let line = format!("{name}: {value}");
        assert!(
            self.head.lines().any(|found| found.eq_ignore_ascii_case(&line)),
            "no {line:?} in\n{}",
            self.head
        );
    }
}

fn ask(mut stream: impl Read + Write, method: &str, target: &str) -> Answer {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answer is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("answer has a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("answer has a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn any_port() -> Endpoints {
    Endpoints { tcp: "127.0.0.1:0".parse().ok(), socket: None, scope: Scope::Full, ..Endpoints::default() }
}

fn started(registry: &Arc<Registry>, readiness: Readiness) -> AdminHandle {
    start(&any_port(), View::of(Arc::clone(registry)), Controls::default(), readiness)
        .expect("a free port")
        .expect("something to listen on")
}

fn connect(admin: &AdminHandle) -> TcpStream {
    TcpStream::connect(admin.address().expect("listens on TCP")).expect("answers")
}

#[test]
fn livez_answers_on_the_port_it_got() {
    let admin = started(&Registry::new(), Readiness::default());
    assert_ne!(admin.address().map_or(0, |address| address.port()), 0);
    let answer = ask(connect(&admin), "GET", "/livez");
    assert_eq!((answer.status, answer.body.as_str()), (200, "live\n"));
    admin.stop();
}

#[test]
fn readyz_follows_its_checks_and_names_the_failing_one() {
    let bound = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&bound);
    let socket = move || seen.load(Ordering::SeqCst).then_some(()).ok_or_else(|| "not bound".to_owned());
    let checks = vec![Check::new("arbiters", || Ok(())), Check::new("socket", socket)];
    let admin = started(&Registry::new(), Readiness::new(checks));
    let answer = ask(connect(&admin), "GET", "/readyz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "[-] socket failed: not bound\nnot ready\n"));
    bound.store(true, Ordering::SeqCst);
    let answer = ask(connect(&admin), "GET", "/readyz");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
    for target in ["/readyz?verbose", "/readyz?x=1&verbose=1"] {
        let answer = ask(connect(&admin), "GET", target);
        assert_eq!((answer.status, answer.body.as_str()), (200, "[+] arbiters ok\n[+] socket ok\nready\n"));
    }
}

#[test]
fn metrics_are_those_of_the_registry_at_the_moment() {
    let registry = Registry::new();
    let admin = started(&registry, Readiness::default());
    let pages = registry.register_pages(examples::pages(8192, 0));
    let answer = ask(connect(&admin), "GET", "/metrics");
    assert_eq!(answer.status, 200);
    answer.assert_header("content-type", "text/plain; version=0.0.4; charset=utf-8");
    assert!(answer.body.contains("\nioasd_pages_length_bytes 8192\n"), "{}", answer.body);
    drop(pages);
    let answer = ask(connect(&admin), "GET", "/metrics");
    assert!(answer.body.contains("\nioasd_pages_length_bytes 0\n"), "{}", answer.body);
}

#[test]
fn version_is_the_package_version() {
    let admin = started(&Registry::new(), Readiness::default());
    let answer = ask(connect(&admin), "GET", "/version");
    answer.assert_header("content-type", "application/json");
    assert_eq!(answer.body, format!("{{\"name\":\"ioasd\",\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_path_is_a_problem() {
    let admin = started(&Registry::new(), Readiness::default());
    let paths = [("GET", "/v1"), ("GET", "/livez/"), ("POST", "/metric"), ("GET", "/v1/ioas/1/area?x=%00")];
    for (method, target) in paths {
        let answer = ask(connect(&admin), method, target);
        assert_eq!(answer.status, 404, "{method} {target}");
        answer.assert_header("content-type", "application/problem+json");
        assert!(answer.body.contains("\"type\":\"urn:ioasd:error:not-found\""), "{}", answer.body);
        assert!(answer.body.contains("\"status\":404"), "{}", answer.body);
    }
}

#[test]
fn a_method_a_path_does_not_take_is_a_problem_that_says_which_it_takes() {
    let admin = started(&Registry::new(), Readiness::default());
    for target in ["/livez", "/readyz", "/metrics", "/version"] {
        for method in ["POST", "DELETE", "PUT"] {
            let answer = ask(connect(&admin), method, target);
            assert_eq!(answer.status, 405, "{method} {target}");
            answer.assert_header("allow", "GET");
            answer.assert_header("content-type", "application/problem+json");
            assert!(answer.body.contains("method-not-allowed"), "{}", answer.body);
        }
    }
}

#[test]
fn a_stopped_server_lets_its_port_go_although_a_connection_is_open() {
    let admin = started(&Registry::new(), Readiness::default());
    let address = admin.address().expect("listens on TCP");
    let idle = connect(&admin);
    admin.stop();
    assert!(TcpStream::connect(address).is_err());
    drop(idle);
}

#[test]
fn two_servers_run_beside_each_other_and_a_taken_port_is_refused_by_name() {
    let one = started(&Registry::new(), Readiness::default());
    let other = started(&Registry::new(), Readiness::default());
    assert_ne!(one.address(), other.address());
    let tcp = one.address().and_then(|address| address.try_into().ok());
    let taken = Endpoints { tcp, ..Endpoints::default() };
    let error = start(&taken, View::of(Registry::new()), Controls::default(), Readiness::default())
        .expect_err("the port is taken");
    let address = one.address().expect("listens on TCP").to_string();
    assert!(error.to_string().contains(&address), "{error}");
}

#[test]
fn the_unix_socket_answers_as_the_port_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let endpoints = Endpoints { socket: Some(path.clone()), ..Endpoints::default() };
    let admin = start(&endpoints, View::of(Registry::new()), Controls::default(), Readiness::default())
        .expect("a free path")
        .expect("something to listen on");
    assert_eq!(admin.address(), None);
    assert_eq!(ask(UnixStream::connect(&path).expect("answers"), "GET", "/livez").status, 200);
    admin.stop();
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn with_nothing_to_listen_on_there_is_no_server() {
    let none =
        start(&Endpoints::default(), View::of(Registry::new()), Controls::default(), Readiness::default());
    assert!(matches!(none, Ok(None)));
}

#[test]
fn it_answers_while_the_system_that_started_it_is_stuck() {
    let body = actix_web::rt::System::new().block_on(async {
        let admin = started(&Registry::new(), Readiness::default());
        ask(connect(&admin), "GET", "/livez").body
    });
    assert_eq!(body, "live\n");
}
