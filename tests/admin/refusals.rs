//! Questions that cannot be answered: each names what is wrong with it.

use rustix::io::Errno;

use crate::fixture::{Agent, attach};

#[test]
fn a_parameter_that_is_wrong_is_named() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    attach(&mut client, ioas);
    let door = agent.tcp();
    for (target, parameter) in [
        ("/v1/ioas?limit=0", "limit"),
        ("/v1/ioas?limit=1001", "limit"),
        ("/v1/ioas?limit=-1", "limit"),
        ("/v1/ioas?limit=1&limit=2", "limit"),
        ("/v1/ioas?after=x", "after"),
        ("/v1/ioas?context=one", "context"),
        ("/v1/domains?ioas=1&ioas=1", "ioas"),
        ("/v1/contexts?uid=root", "uid"),
        ("/v1/events?since=yesterday", "since"),
        ("/v1/events?limit=0", "limit"),
        ("/v1/ioas/1/areas?state=lost", "state"),
        ("/v1/accounts?after=99999999999999999999999", "after"),
        ("/v1/ioas/1/areas?after=12g", "after"),
        ("/v1/ioas/1/gaps?after=12g", "after"),
        ("/v1/ioas/1/gaps?limit=0", "limit"),
        ("/v1/ioas/1/ranges?after=-1", "after"),
        ("/v1/ioas/one", "id"),
        ("/v1/pages/0x1", "id"),
        ("/v1/domains/18446744073709551616", "id"),
        ("/v1/domains/1/walk", "iova"),
        ("/v1/domains/1/walk?iova=", "iova"),
        ("/v1/domains/1/walk?iova=0x10000000000000000", "iova"),
        ("/v1/domains/1/walk?iova=%00", "iova"),
    ] {
        let answer = door.get(target);
        let detail = answer.assert_problem(400, "parameter-invalid", Errno::INVAL);
        assert_eq!(answer.json()["parameter"], parameter, "{target}: {detail}");
        assert!(detail.starts_with(&format!("{parameter}: ")), "{target}: {detail}");
    }
    for (target, parameter) in [
        ("/v1/ioas?lmit=1", "lmit"),
        ("/v1/ioas?ioas=1", "ioas"),
        ("/v1/accounts?context=1", "context"),
        ("/v1/pages?state=ready", "state"),
        ("/v1/status?x", "x"),
        ("/v1/domains/1/walk?iova=1&at=2", "at"),
    ] {
        let detail = door.get(target).assert_problem(400, "parameter-unknown", Errno::INVAL);
        assert_eq!(detail, format!("{parameter:?} is no parameter of this path"), "{target}");
    }
}

#[test]
fn what_was_never_there_is_absent() {
    let agent = Agent::start();
    for target in [
        "contexts/7",
        "ioas/7",
        "ioas/7/areas",
        "ioas/7/gaps",
        "ioas/7/ranges",
        "devices/7",
        "pages/7",
        "domains/7",
        "domains/7/walk?iova=0",
        "domains/7/faults",
    ] {
        let answer = agent.socket().get(&format!("/v1/{target}"));
        let detail = answer.assert_problem(404, "object-absent", Errno::NOENT);
        assert!(detail.contains('7'), "{detail}");
    }
}

#[test]
fn nothing_takes_anything_but_get() {
    let agent = Agent::start();
    for target in ["/", "/v1/ioas", "/v1/domains/1/walk", "/v1/status"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = agent.socket().ask(method, target, "localhost");
            answer.assert_problem(405, "method-not-allowed", Errno::OPNOTSUPP);
            assert!(answer.head.contains("allow: GET"), "{}", answer.head);
        }
    }
}
