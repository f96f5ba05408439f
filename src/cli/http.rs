//! One request over a Unix socket or TCP: as much HTTP/1.1 as the agent's own admin server needs.
//!
//! Imports allowed: `std`.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How long the agent may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the longest answer that is taken.
const ANSWER_MAX: u64 = 64 << 20;

/// Where an admin server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Unix socket.
    Socket(PathBuf),
    /// An address of this host.
    Tcp(SocketAddr),
}

/// A text that names no admin server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no admin server, write the path of its socket, or for example http://127.0.0.1:9884")]
pub struct NotATarget(String);

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let wrong = || NotATarget(text.to_owned());
        match text.strip_prefix("http://") {
            Some(address) => {
                let address = address.trim_end_matches('/').replace("localhost", "127.0.0.1");
                address.parse().map(Self::Tcp).map_err(|_| wrong())
            }
            None if text.is_empty() || text.contains("://") => Err(wrong()),
            None => Ok(Self::Socket(text.into())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

/// Bytes of the longest line, and of the longest head of an answer.
const LINE_MAX: u64 = 16 << 10;
const HEAD_MAX: usize = 64 << 10;

/// Any kind of answer.
const ANY: &str = "*/*";

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'r> {
    pub(super) method: &'static str,
    pub(super) path: &'r str,
    /// JSON.
    pub(super) body: &'r str,
    /// What opens the API over TCP.
    pub(super) token: Option<&'r str>,
}

/// Asks the server at `target` for `path`.
pub(super) fn get(target: &Target, path: &str) -> io::Result<Answer> {
    ask(target, Request { method: "GET", path, body: "", token: None })
}

/// Asks the server at `target`.
pub(super) fn ask(target: &Target, request: Request<'_>) -> io::Result<Answer> {
    let mut stream = connect(target, PATIENCE)?;
    stream.write_all(written(&host(target), ANY, request).as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    whole(&answer)
}

/// What came when a stream was asked for.
pub(super) enum Followed {
    /// The stream; the end of it is an error unless the agent ended it.
    Stream(Box<dyn BufRead>),
    /// Something else.
    Answer(Answer),
}

/// Asks the server at `target` for a stream of events that is never silent for longer than `silence`.
pub(super) fn follow(target: &Target, request: Request<'_>, silence: Duration) -> io::Result<Followed> {
    let mut stream = connect(target, silence)?;
    stream.write_all(written(&host(target), "text/event-stream", request).as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if (&mut stream).take(LINE_MAX).read_line(&mut head)? == 0 || head.len() > HEAD_MAX {
            return whole(&head).map(Followed::Answer);
        }
    }
    if head.starts_with("HTTP/1.1 200 ")
        && head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked\r\n")
    {
        return Ok(Followed::Stream(Box::new(BufReader::new(Chunks { from: stream, left: 0 }))));
    }
    stream.take(ANSWER_MAX).read_to_string(&mut head)?;
    whole(&head).map(Followed::Answer)
}

/// A body that comes in chunks.
struct Chunks<R> {
    from: R,
    /// Bytes of the chunk at hand.
    left: u64,
}

impl<R: BufRead> Chunks<R> {
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.from).take(LINE_MAX).read_line(&mut line)?;
        if line.ends_with('\n') {
            Ok(line.trim_end().to_owned())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.left = u64::from_str_radix(&self.line()?, 16).map_err(|_| garbled())?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let got = (&mut self.from).take(self.left).read(into)?;
        self.left -= got as u64;
        if got == 0 && !into.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.left == 0 {
            self.line()?;
        }
        Ok(got)
    }
}

/// A connection.
trait Wire: Read + Write {}

impl<S: Read + Write> Wire for S {}

fn connect(target: &Target, patience: Duration) -> io::Result<Box<dyn Wire>> {
    match target {
        Target::Socket(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            Ok(Box::new(stream))
        }
        Target::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            Ok(Box::new(stream))
        }
    }
}

fn host(target: &Target) -> String {
    match target {
        Target::Socket(_) => "localhost".to_owned(),
        Target::Tcp(address) => address.to_string(),
    }
}

fn written(host: &str, accept: &str, Request { method, path, body, token }: Request<'_>) -> String {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n");
    if method != "GET" {
        let length = body.len();
        head += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    if let Some(token) = token {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    head + "\r\n" + body
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no whole HTTP answer")
}

fn whole(answer: &str) -> io::Result<Answer> {
    parse(answer).ok_or_else(garbled)
}

/// Understands an answer whose body has a stated length.
fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length: usize = head.lines().find_map(content_length)?;
    (body.len() == length).then(|| Answer { status, body: body.to_owned() })
}

fn content_length(line: &str) -> Option<usize> {
    let (name, value) = line.split_once(':')?;
    if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_found() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nnot\r\n");
        assert_eq!(answer, Some(Answer { status: 503, body: "not\r\n".to_owned() }));
    }

    #[test]
    fn half_an_answer_is_none() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), None, "{end} bytes");
        }
        assert!(parse(whole).is_some());
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\nok"), None);
    }

    #[test]
    fn chunks_are_one_text_and_a_broken_off_one_has_no_end() {
        let read = |body: &str| {
            let mut text = String::new();
            let end = Chunks { from: body.as_bytes(), left: 0 }.read_to_string(&mut text);
            (text, end.map_err(|error| error.kind()).map(drop))
        };
        let whole = "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        assert_eq!(read(whole), ("abc0123456789abcdef".to_owned(), Ok(())));
        for end in 0..whole.len() - 4 {
            let kind = read(&whole[..end]).1;
            assert_eq!(kind, Err(io::ErrorKind::UnexpectedEof), "{end} bytes");
        }
        assert_eq!(read("x\r\n").1, Err(io::ErrorKind::InvalidData));
    }

    #[test]
    fn a_target_is_a_path_or_an_address_of_http() {
        assert_eq!("/run/x.sock".parse(), Ok(Target::Socket("/run/x.sock".into())));
        for text in ["http://127.0.0.1:9884", "http://127.0.0.1:9884/", "http://localhost:9884"] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), "http://127.0.0.1:9884", "{text}");
        }
        for bad in ["", "http://", "http://host:1", "https://127.0.0.1:1", "http://127.0.0.1"] {
            assert_eq!(bad.parse::<Target>(), Err(NotATarget(bad.to_owned())), "{bad}");
        }
    }
}
