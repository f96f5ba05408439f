//! What is shown through which door, and to whom.

use ioasd::admin::door::Scope;
use rustix::io::Errno;

use crate::fixture::Agent;

#[test]
fn in_scope_metrics_tcp_shows_four_paths_and_the_socket_shows_all() {
    let agent = Agent::with_scope(Scope::Metrics);
    for target in ["/livez", "/readyz", "/metrics", "/version"] {
        assert_eq!(agent.tcp().get(target).status, 200, "{target}");
    }
    for target in
        ["/", "/ui/main.js", "/v1/status", "/v1/ioas", "/v1/nothing", "/livez/../v1/ioas", "//livez"]
    {
        agent.tcp().get(target).assert_problem(403, "out-of-scope", Errno::ACCESS);
    }
    for target in ["/", "/ui/main.js", "/v1/status", "/v1/ioas"] {
        assert_eq!(agent.socket().get(target).status, 200, "{target}");
    }
}

#[test]
fn a_request_must_name_this_host_and_over_the_socket_no_other() {
    let agent = Agent::start();
    for host in ["evil.example", "evil.example:9884", "192.0.2.1", "ioasd", ""] {
        for target in ["/v1/ioas", "/metrics", "/"] {
            let answer = agent.tcp().ask("GET", target, host);
            answer.assert_problem(403, "host-not-allowed", Errno::ACCESS);
            let answer = agent.socket().ask("GET", target, host);
            if host.starts_with("evil") {
                answer.assert_problem(403, "host-not-allowed", Errno::ACCESS);
            } else {
                assert_eq!(answer.status, 200, "{host}");
            }
        }
    }
    for host in ["127.0.0.1:9884", "localhost", "[::1]:1"] {
        assert_eq!(agent.tcp().ask("GET", "/v1/ioas", host).status, 200, "{host}");
    }
}

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let agent = Agent::start();
    let page = agent.tcp().get("/");
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    assert!(page.head.contains("x-content-type-options: nosniff"), "{}", page.head);
    for target in ["/", "/ui/page.css", "/ui/main.js"] {
        let text = agent.tcp().get(target).body;
        assert!(!text.contains("//cdn") && !text.contains("http:") && !text.contains("https:"), "{target}");
    }
    let links = page.body.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let links: Vec<&str> = links.filter(|link| !link.starts_with('#')).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links {
        assert_eq!(agent.tcp().get(link).status, 200, "{link}");
    }
}
