//! A client that knows just enough HTTP/1.1, and asks for one thing a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;

/// Where to ask.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Tcp(SocketAddr),
    Socket(PathBuf),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Asserts that it is a problem with this status, code and errno; gives its detail.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str, errno: rustix::io::Errno) -> String {
        let body = self.json();
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        assert_eq!((self.status, &body["status"]), (status, &Value::from(status)), "{body}");
        assert_eq!(body["type"], format!("urn:ioasd:error:{code}"));
        assert_eq!(body["errno"], errno.raw_os_error(), "{body}");
        body["detail"].as_str().unwrap().to_owned()
    }
}

impl Door {
    /// Asks for `target`.
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "localhost")
    }

    /// The JSON at `target`, which must be there.
    #[track_caller]
    pub(crate) fn json(&self, target: &str) -> Value {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        answer.json()
    }

    /// Asks with any method and host.
    pub(crate) fn ask(&self, method: &str, target: &str, host: &str) -> Answer {
        self.send(method, target, &[("Host", host)], "")
    }

    /// Asks with any headers and body.
    pub(crate) fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let rest = format!("Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        let request = format!("{method} {target} HTTP/1.1\r\n{headers}{rest}");
        match self {
            Self::Tcp(address) => exchange(TcpStream::connect(address).unwrap(), &request),
            Self::Socket(path) => exchange(UnixStream::connect(path).unwrap(), &request),
        }
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
