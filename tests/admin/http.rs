//! A client that knows just enough HTTP/1.1, and asks for one thing a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;

use crate::fixture::PATIENCE;

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

/// A stream of events.
pub(crate) struct Stream {
    lines: Box<dyn BufRead>,
    pub(crate) head: String,
}

/// One message of a stream.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) event: String,
    pub(crate) id: u64,
    pub(crate) data: Value,
}

impl Door {
    /// Opens the stream at `target`.
    pub(crate) fn follow(&self, target: &str, headers: &str) -> Stream {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{headers}\r\n");
        let mut lines: Box<dyn BufRead> = match self {
            Self::Tcp(address) => {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                Box::new(BufReader::new(stream))
            }
            Self::Socket(path) => {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                Box::new(BufReader::new(stream))
            }
        };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        Stream { lines, head }
    }
}

impl Stream {
    /// The next message; `None` when the server has ended the stream in good order.
    pub(crate) fn next(&mut self) -> Option<Message> {
        let mut message = Message { event: String::new(), id: 0, data: Value::Null };
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the stream breaks off");
            // Lines of the stream end in LF alone, what frames its chunks in CR LF.
            match line.trim_end_matches('\n') {
                "0\r" => return None,
                "" if !message.data.is_null() => return Some(message),
                line => match line.split_once(": ") {
                    Some(("event", event)) => event.clone_into(&mut message.event),
                    Some(("id", id)) => message.id = id.parse().unwrap(),
                    Some(("data", data)) => message.data = serde_json::from_str(data).unwrap(),
                    _ => {}
                },
            }
        }
    }

    /// The next message, which must be there.
    pub(crate) fn must(&mut self) -> Message {
        self.next().unwrap()
    }
}
