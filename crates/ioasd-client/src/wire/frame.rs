//! Frames: the headers of requests and replies, and where their parts lie.
//!
//! ```text
//!   request  magic@0:4 command@4:4 tag@8:8 version@16:2 flags@18:2 length@20:4           then the argument
//!   reply    magic@0:4 command@4:4 tag@8:8 errno@16:4 body@20:4 code@24:2 text@26:2 payload@28:4
//!            then body, payload, code, text, exactly as long as the header says
//! ```
//!
//! `length` is that of the whole message. A broken header is the agent's EPROTO; it still answers, with what it can read
//! of command and tag ([`Echo::of`]).
//!
//! Imports allowed: fields, `rustix::io::Errno`.

use rustix::io::Errno;

use super::FRAME_MAX;
use super::command::Argument;
use super::field::Field;

/// "IOAS", the first four bytes of every frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"IOAS");

/// The version of the wire that this code speaks.
pub const VERSION: u16 = 1;

/// Bytes of a request's header.
pub const REQUEST_HEADER: usize = 24;

/// Bytes of a reply's header.
pub const REPLY_HEADER: usize = 32;

/// Bytes of explanation a reply carries at most; the rest is cut.
pub const TEXT_MAX: usize = 4096;

/// The largest errno there is.
const ERRNO_MAX: i32 = 4095;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message ends within the header.
    #[error("a message of {found} bytes is shorter than the header of {wanted} bytes")]
    Short {
        /// Bytes of the message.
        found: usize,
        /// Bytes of the header.
        wanted: usize,
    },
    /// The frame is longer than a message may be.
    #[error("a message of {found} bytes is longer than {FRAME_MAX} bytes: pass large arrays in a memfd")]
    Long {
        /// Bytes of the message.
        found: usize,
    },
    /// The first four bytes are something else.
    #[error("the message starts with {found:#010x} instead of {MAGIC:#010x} (\"IOAS\")")]
    Magic {
        /// What stands there.
        found: u32,
    },
    /// Another version of the wire.
    #[error("the message has wire version {found}, only {VERSION} is spoken here")]
    Version {
        /// Its version.
        found: u16,
    },
    /// Header flags that nobody has defined.
    #[error("the header has unknown flags {found:#06x}, they must be 0")]
    Flags {
        /// The flags.
        found: u16,
    },
    /// The header's length is not the message's.
    #[error("the header declares {declared} bytes, the message has {found}")]
    Length {
        /// What the header says.
        declared: u64,
        /// Bytes of the message.
        found: usize,
    },
    /// The reply's errno is none.
    #[error("the reply has errno {found}, outside of 0 to {ERRNO_MAX}")]
    Errno {
        /// What stands there.
        found: i32,
    },
    /// The reply's code or text is not UTF-8.
    #[error("the reply's code or text is not UTF-8")]
    Text,
}

impl FrameError {
    /// Errno for whoever sent the frame.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        Errno::PROTO
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Short { .. } => "frame-short",
            Self::Long { .. } => "frame-long",
            Self::Magic { .. } => "frame-magic",
            Self::Version { .. } => "frame-version",
            Self::Flags { .. } => "frame-flags",
            Self::Length { .. } => "frame-length",
            Self::Errno { .. } => "frame-errno",
            Self::Text => "frame-text",
        }
    }
}

/// What a client chose to recognise a reply by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// What a reply repeats of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Echo {
    /// The number of the command.
    pub command: u32,
    /// The request's tag.
    pub tag: Tag,
}

impl Echo {
    /// Reads command and tag, zero where the message has ended: also of a frame that is broken.
    #[must_use]
    #[inline]
    pub fn of(message: &[u8]) -> Self {
        Self { command: u32::load(message, 4), tag: Tag(u64::load(message, 8)) }
    }

    #[inline]
    fn store(self, message: &mut [u8]) {
        MAGIC.store(message, 0);
        self.command.store(message, 4);
        self.tag.0.store(message, 8);
    }
}

/// A request: which command, and its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What the reply will repeat.
    pub echo: Echo,
    /// The uAPI struct and the payload behind it.
    pub argument: Argument<'a>,
}

impl<'a> Request<'a> {
    /// Takes a message apart.
    ///
    /// # Errors
    /// If the header is broken; the argument is judged later, by its command.
    pub fn decode(message: &'a [u8]) -> Result<Self, FrameError> {
        let argument = behind_header(message, REQUEST_HEADER)?;
        match (u16::load(message, 16), u16::load(message, 18)) {
            (VERSION, 0) => {}
            (VERSION, found) => return Err(FrameError::Flags { found }),
            (found, _) => return Err(FrameError::Version { found }),
        }
        require_length(u64::from(u32::load(message, 20)), message.len())?;
        Ok(Self { echo: Echo::of(message), argument: Argument::new(argument) })
    }

    /// The header of a request whose argument and payload have `argument` bytes together, for whoever sends the parts of
    /// a message from where they are.
    ///
    /// # Errors
    /// If the message would be longer than one may be.
    #[inline]
    pub fn header(echo: Echo, argument: usize) -> Result<[u8; REQUEST_HEADER], FrameError> {
        let length = fit(REQUEST_HEADER.saturating_add(argument))?;
        let mut header = [0; REQUEST_HEADER];
        echo.store(&mut header);
        VERSION.store(&mut header, 16);
        length.store(&mut header, 20);
        Ok(header)
    }

    /// Puts a message together.
    ///
    /// # Errors
    /// If it would be longer than a message may be.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let argument = self.argument.bytes();
        let mut message = Self::header(self.echo, argument.len())?.to_vec();
        message.extend_from_slice(argument);
        Ok(message)
    }
}

/// A reply: the outcome of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// What it repeats of its request.
    pub echo: Echo,
    /// 0, or a positive errno.
    pub errno: i32,
    /// The struct copied back, cut to the size the client gave.
    pub body: &'a [u8],
    /// What belongs to the answer and is not in the struct.
    pub payload: &'a [u8],
    /// Stable, kebab-case name of the kind of error; empty if there is none.
    pub code: &'a str,
    /// Why, in words; empty if there was no error.
    pub text: &'a str,
}

impl<'a> Reply<'a> {
    /// The reply of a request that was carried out.
    #[must_use]
    pub const fn done(echo: Echo, body: &'a [u8], payload: &'a [u8]) -> Self {
        Self { echo, errno: 0, body, payload, code: "", text: "" }
    }

    /// The reply of a request that was refused.
    #[must_use]
    pub fn refused(echo: Echo, errno: Errno, code: &'a str, text: &'a str) -> Self {
        Self { echo, errno: errno.raw_os_error(), body: &[], payload: &[], code, text: cut(text) }
    }

    /// Takes a message apart.
    ///
    /// # Errors
    /// If the header is broken, or the parts do not fill the message exactly.
    pub fn decode(message: &'a [u8]) -> Result<Self, FrameError> {
        let parts = behind_header(message, REPLY_HEADER)?;
        let lengths = PartLengths::load(message);
        let declared = lengths.of_message();
        let broken = FrameError::Length { declared, found: message.len() };
        require_length(declared, message.len())?;
        let (body, rest) = parts.split_at_checked(lengths.body).ok_or(broken)?;
        let (payload, rest) = rest.split_at_checked(lengths.payload).ok_or(broken)?;
        let (code, text) = rest.split_at_checked(lengths.code).ok_or(broken)?;
        Ok(Self {
            echo: Echo::of(message),
            errno: require_errno(i32::load(message, 16))?,
            body,
            payload,
            code: utf8(code)?,
            text: utf8(text)?,
        })
    }

    /// Puts a message together.
    ///
    /// # Errors
    /// If it would be longer than a message may be.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let parts = [self.body, self.payload, self.code.as_bytes(), self.text.as_bytes()];
        let found = REPLY_HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
        fit(found)?;
        let mut message = vec![0; REPLY_HEADER];
        self.echo.store(&mut message);
        self.errno.store(&mut message, 16);
        fit(self.body.len())?.store(&mut message, 20);
        short(self.code.len(), found)?.store(&mut message, 24);
        short(self.text.len(), found)?.store(&mut message, 26);
        fit(self.payload.len())?.store(&mut message, 28);
        message.extend(parts.into_iter().flatten());
        Ok(message)
    }
}

/// What the header of a reply says, for whoever receives the parts of a message to where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// What it repeats of its request.
    pub echo: Echo,
    /// 0, or a positive errno.
    pub errno: i32,
    /// Bytes of the struct that follows.
    pub body: usize,
    /// Bytes of payload behind it.
    pub payload: usize,
}

impl ReplyHead {
    /// Reads a header; whether the parts fill the message is not looked at.
    ///
    /// # Errors
    /// If it is none.
    #[inline]
    pub fn decode(header: &[u8; REPLY_HEADER]) -> Result<Self, FrameError> {
        behind_header(header, REPLY_HEADER)?;
        let PartLengths { body, payload, .. } = PartLengths::load(header);
        Ok(Self { echo: Echo::of(header), errno: require_errno(i32::load(header, 16))?, body, payload })
    }

    /// Writes the header, as far as `message` reaches, of a reply without code and text, for whoever sends its parts from
    /// where they are.
    pub fn store(&self, message: &mut [u8]) {
        self.echo.store(message);
        self.errno.store(message, 16);
        u32::try_from(self.body).unwrap_or(u32::MAX).store(message, 20);
        0_u32.store(message, 24);
        u32::try_from(self.payload).unwrap_or(u32::MAX).store(message, 28);
    }
}

/// The lengths in a reply's header.
struct PartLengths {
    body: usize,
    code: usize,
    text: usize,
    payload: usize,
}

impl PartLengths {
    #[inline]
    fn load(message: &[u8]) -> Self {
        Self {
            body: u32::load(message, 20) as usize,
            code: usize::from(u16::load(message, 24)),
            text: usize::from(u16::load(message, 26)),
            payload: u32::load(message, 28) as usize,
        }
    }

    /// Cannot overflow: two 32-bit and two 16-bit numbers.
    fn of_message(&self) -> u64 {
        [REPLY_HEADER, self.body, self.code, self.text, self.payload].iter().map(|part| *part as u64).sum()
    }
}

/// Checks what both kinds of frame have in common and gives what follows the header.
#[inline]
fn behind_header(message: &[u8], header: usize) -> Result<&[u8], FrameError> {
    let found = message.len();
    let (_, rest) = message.split_at_checked(header).ok_or(FrameError::Short { found, wanted: header })?;
    fit(found)?;
    match u32::load(message, 0) {
        MAGIC => Ok(rest),
        found => Err(FrameError::Magic { found }),
    }
}

fn require_length(declared: u64, found: usize) -> Result<(), FrameError> {
    if declared == found as u64 { Ok(()) } else { Err(FrameError::Length { declared, found }) }
}

#[inline]
fn require_errno(found: i32) -> Result<i32, FrameError> {
    if (0..=ERRNO_MAX).contains(&found) { Ok(found) } else { Err(FrameError::Errno { found }) }
}

/// A length that a frame may have.
#[inline]
fn fit(found: usize) -> Result<u32, FrameError> {
    match u32::try_from(found) {
        Ok(length) if found <= FRAME_MAX => Ok(length),
        _ => Err(FrameError::Long { found }),
    }
}

/// The length of a part with a 16-bit length, of a frame of `found` bytes.
fn short(length: usize, found: usize) -> Result<u16, FrameError> {
    u16::try_from(length).map_err(|_| FrameError::Long { found })
}

/// `text` up to [`TEXT_MAX`], whole characters only.
fn cut(text: &str) -> &str {
    let end = (0..=TEXT_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn utf8(bytes: &[u8]) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|_| FrameError::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: Echo = Echo { command: 0x3b81, tag: Tag(0x1122_3344_5566_7788) };

    fn request() -> Vec<u8> {
        Request { echo: ECHO, argument: Argument::new(&[12, 0, 0, 0]) }.encode().unwrap()
    }

    #[test]
    fn the_bytes_of_a_request_are_as_documented() {
        let wanted: &[u8] = &[
            b'I', b'O', b'A', b'S', 0x81, 0x3b, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 1, 0,
            0, 0, 28, 0, 0, 0, 12, 0, 0, 0,
        ];
        assert_eq!(request(), wanted);
    }

    #[test]
    fn the_bytes_of_a_reply_are_as_documented() {
        let reply = Reply {
            errno: 2,
            body: &[1],
            payload: &[2, 3],
            code: "c",
            text: "why",
            ..Reply::done(ECHO, &[], &[])
        };
        let message = reply.encode().unwrap();
        assert_eq!(message[16..32], [2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 3, 0, 2, 0, 0, 0]);
        assert_eq!(message[32..], [1, 2, 3, b'c', b'w', b'h', b'y']);
        assert_eq!(Reply::decode(&message), Ok(reply));
    }

    #[test]
    fn every_broken_header_has_its_own_code() {
        let broken = |offset: usize, value: u8| {
            let mut message = request();
            message[offset] = value;
            Request::decode(&message).unwrap_err()
        };
        assert_eq!(broken(0, b'X').code(), "frame-magic");
        assert_eq!(broken(16, 2), FrameError::Version { found: 2 });
        assert_eq!(broken(18, 1), FrameError::Flags { found: 1 });
        assert_eq!(broken(20, 27), FrameError::Length { declared: 27, found: 28 });
        assert_eq!(Request::decode(&request()[..23]), Err(FrameError::Short { found: 23, wanted: 24 }));
        assert_eq!(Request::decode(&[]).unwrap_err().errno(), Errno::PROTO);
    }

    #[test]
    fn a_broken_request_can_still_be_answered_by_tag() {
        let mut message = request();
        message[0] = 0;
        assert!(Request::decode(&message).is_err());
        assert_eq!(Echo::of(&message), ECHO);
        assert_eq!(Echo::of(&message[..6]), Echo { command: 0x3b81, tag: Tag(0) });
    }

    #[test]
    fn a_frame_never_exceeds_its_limit() {
        let argument = vec![0; FRAME_MAX - REQUEST_HEADER + 1];
        let request = |length| Request { echo: ECHO, argument: Argument::new(&argument[..length]) };
        assert!(Request::decode(&request(argument.len() - 1).encode().unwrap()).is_ok());
        assert_eq!(request(argument.len()).encode(), Err(FrameError::Long { found: FRAME_MAX + 1 }));
        assert!(Reply::done(ECHO, &argument, &[]).encode().is_err());
    }

    #[test]
    fn a_long_explanation_is_cut_between_characters() {
        let text = format!("a{}", "é".repeat(TEXT_MAX));
        let message = Reply::refused(ECHO, Errno::NOENT, "ioas-absent", &text).encode().unwrap();
        let reply = Reply::decode(&message).unwrap();
        assert_eq!((reply.text.len(), reply.errno), (TEXT_MAX - 1, 2));
    }

    #[test]
    fn a_reply_whose_parts_do_not_fill_it_is_broken() {
        let message = Reply::done(ECHO, &[1, 2, 3, 4], &[5]).encode().unwrap();
        for (offset, value) in [(20, 5), (23, 0xff), (24, 1), (28, 0)] {
            let mut message = message.clone();
            message[offset] = value;
            assert!(matches!(Reply::decode(&message), Err(FrameError::Length { .. })), "offset {offset}");
        }
    }

    #[test]
    fn errno_and_text_of_a_reply_are_not_trusted() {
        let mut message = Reply::refused(ECHO, Errno::NOENT, "c", "t").encode().unwrap();
        message[33] = 0xff;
        assert_eq!(Reply::decode(&message), Err(FrameError::Text));
        (-2_i32).store(&mut message, 16);
        assert_eq!(Reply::decode(&message), Err(FrameError::Errno { found: -2 }));
    }
}
