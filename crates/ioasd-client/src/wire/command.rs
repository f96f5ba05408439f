//! Commands: one struct of the uAPI each, declared once, and the rules by which an argument becomes such a struct.
//!
//! The rules are those of the kernel, in this order:
//!
//! 1. `size`, the first u32, unreadable: EFAULT. (Comes before the look at the command's number.)
//! 2. `size` below the command's minimum: EINVAL.
//! 3. `size` beyond the struct we know: what lies behind must be zero, else E2BIG; unreadable: EFAULT. Below: what is
//!    missing is taken as zero.
//! 4. The struct is copied back up to min(`size`, what we know), inputs included.
//!
//! Unreadable means: the message ends before `size` bytes. What follows the struct's `size` bytes is payload.
//!
//! Imports allowed: fields, `rustix::io::Errno`.

use std::fmt::Debug;

use rustix::io::Errno;

use super::field::Field;

/// A command of the uAPI, as the struct of its argument without `size`.
pub trait Command: Copy + Debug + Default + Eq {
    /// Number of the command: 0x3b00 | nr.
    const NUMBER: u32;
    /// Name of the command in the uAPI.
    const NAME: &'static str;
    /// What it does, as in its documentation.
    const NOTE: &'static str;
    /// The least `size` accepted.
    const MIN: usize;
    /// Bytes of the struct.
    const SIZE: usize;
    /// Where each field lies, in order; with `size` they cover the struct without holes.
    const FIELDS: &'static [FieldPlace];

    /// Reads the fields; missing bytes are zero.
    fn load(bytes: &[u8]) -> Self;

    /// Writes the fields, as far as `bytes` reach.
    fn store(&self, bytes: &mut [u8]);
}

/// Where a field lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPlace {
    /// Its name.
    pub name: &'static str,
    /// Its first byte.
    pub offset: usize,
    /// Its length.
    pub bytes: usize,
    /// What it means, as in its documentation.
    pub note: &'static str,
}

/// Sees every command of a family as a type.
pub trait Visitor {
    /// Called once for each command.
    fn visit<C: Command>(&mut self);
}

/// Whether `fields` and the leading `size` cover a struct of `size` bytes, in order, without holes or overlap.
#[must_use]
pub const fn covers(fields: &[FieldPlace], size: usize) -> bool {
    covers_from(fields, u32::BYTES, size)
}

/// Whether `fields` cover the bytes from `start` up to `size`, in order, without holes or overlap.
#[must_use]
pub const fn covers_from(fields: &[FieldPlace], start: usize, size: usize) -> bool {
    let (mut rest, mut end) = (fields, start);
    while let [field, behind @ ..] = rest {
        if field.offset != end {
            return false;
        }
        end += field.bytes;
        rest = behind;
    }
    end == size
}

/// Declares a family of commands: for each a struct, its [`Command`] and a compile-time check of its offsets.
macro_rules! commands {
    ($(
        $(#[doc = $note:literal])*
        $command:ident = $number:literal $name:literal, min $min:literal, size $size:literal {
            $( $(#[doc = $field_note:literal])* $field:ident: $kind:ty = $offset:literal ),* $(,)?
        }
    )*) => {
        $(
            $(#[doc = $note])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
            pub struct $command {
                $( $(#[doc = $field_note])* pub $field: $kind, )*
            }

            impl $crate::wire::command::Command for $command {
                const NUMBER: u32 = $number;
                const NAME: &'static str = $name;
                const NOTE: &'static str = concat!($($note),*);
                const MIN: usize = $min;
                const SIZE: usize = $size;
                const FIELDS: &'static [$crate::wire::command::FieldPlace] = &[ $(
                    $crate::wire::command::FieldPlace {
                        name: stringify!($field),
                        offset: $offset,
                        bytes: <$kind as $crate::wire::field::Field>::BYTES,
                        note: concat!($($field_note),*),
                    },
                )* ];

                #[inline]
                fn load(bytes: &[u8]) -> Self {
                    Self { $( $field: $crate::wire::field::Field::load(bytes, $offset), )* }
                }

                #[inline]
                fn store(&self, bytes: &mut [u8]) {
                    $( $crate::wire::field::Field::store(self.$field, bytes, $offset); )*
                }
            }

            const _: () = assert!(
                $crate::wire::command::covers(<$command as $crate::wire::command::Command>::FIELDS, $size)
                    && $min <= $size,
                concat!("the fields of ", $name, " do not cover its struct"),
            );
        )*

        /// Shows every command of this family to `visitor`.
        pub fn visit_all<V: $crate::wire::command::Visitor>(visitor: &mut V) {
            $( visitor.visit::<$command>(); )*
        }
    };
}

pub(crate) use commands;

/// What is wrong with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// The message ends before the argument does.
    #[error("the argument has {size} bytes by its own size, the message carries {present} of them")]
    Unreadable {
        /// Bytes that should be there.
        size: usize,
        /// Bytes that are.
        present: usize,
    },
    /// `size` is below the command's minimum.
    #[error("{command} needs a size of at least {min} bytes, not {size}")]
    TooSmall {
        /// Name of the command.
        command: &'static str,
        /// Its least size.
        min: usize,
        /// What was given.
        size: usize,
    },
    /// There is something behind the struct we know.
    #[error("{command} has {known} known bytes, byte {offset} behind them is not zero: a newer client?")]
    UnknownTail {
        /// Name of the command.
        command: &'static str,
        /// Bytes of the struct.
        known: usize,
        /// The first byte that is not zero.
        offset: usize,
    },
}

impl ArgumentError {
    /// Errno for the client.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Unreadable { .. } => Errno::FAULT,
            Self::TooSmall { .. } => Errno::INVAL,
            Self::UnknownTail { .. } => Errno::TOOBIG,
        }
    }

    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "argument-unreadable",
            Self::TooSmall { .. } => "argument-too-small",
            Self::UnknownTail { .. } => "argument-unknown-tail",
        }
    }
}

/// What a request carries behind its header: a struct of the uAPI and a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument<'a>(&'a [u8]);

/// An argument that has been understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a, C> {
    /// The struct.
    pub value: C,
    /// What lies behind the client's `size` bytes.
    pub payload: &'a [u8],
    user_size: u32,
}

impl<'a> Argument<'a> {
    /// Wraps the bytes behind a request's header.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The `size` the client gives its struct.
    ///
    /// # Errors
    /// EFAULT if the message ends before it.
    pub fn user_size(self) -> Result<u32, ArgumentError> {
        match self.0.first_chunk() {
            Some(bytes) => Ok(u32::from_le_bytes(*bytes)),
            None => Err(ArgumentError::Unreadable { size: u32::BYTES, present: self.0.len() }),
        }
    }

    /// Reads the argument of command `C`.
    ///
    /// # Errors
    /// EFAULT, EINVAL or E2BIG, by the rules at the head of this file.
    pub fn decode<C: Command>(self) -> Result<Decoded<'a, C>, ArgumentError> {
        let user_size = self.user_size()?;
        let size = user_size as usize;
        if size < C::MIN {
            return Err(ArgumentError::TooSmall { command: C::NAME, min: C::MIN, size });
        }
        let Some((bytes, payload)) = self.0.split_at_checked(size) else {
            require_zero_tail::<C>(self.0)?;
            return Err(ArgumentError::Unreadable { size, present: self.0.len() });
        };
        require_zero_tail::<C>(bytes)?;
        Ok(Decoded { value: C::load(bytes), payload, user_size })
    }
}

impl<C: Command> Decoded<'_, C> {
    /// The body of the reply: `value` as far as the client's struct reaches.
    #[must_use]
    pub fn reply_body(&self, value: &C) -> Vec<u8> {
        let mut bytes = encode_sized(value, self.user_size);
        bytes.truncate(self.user_size as usize);
        bytes
    }
}

fn require_zero_tail<C: Command>(bytes: &[u8]) -> Result<(), ArgumentError> {
    match bytes.iter().skip(C::SIZE).position(|byte| *byte != 0) {
        Some(behind) => Err(ArgumentError::UnknownTail {
            command: C::NAME,
            known: C::SIZE,
            offset: C::SIZE.saturating_add(behind),
        }),
        None => Ok(()),
    }
}

/// The whole struct of a command, `size` first.
#[must_use]
pub fn encode<C: Command>(value: &C) -> Vec<u8> {
    encode_sized(value, u32::try_from(C::SIZE).unwrap_or(u32::MAX))
}

fn encode_sized<C: Command>(value: &C, size: u32) -> Vec<u8> {
    let mut bytes = vec![0; C::SIZE];
    size.store(&mut bytes, 0);
    value.store(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::IoasId;
    use crate::wire::uapi::IoasAlloc;
    use grown::Grown;

    const ALLOC: IoasAlloc = IoasAlloc { flags: 7, out_ioas_id: IoasId::new(9) };

    fn bytes_with_size(size: u32, length: usize) -> Vec<u8> {
        let mut bytes = encode(&ALLOC);
        bytes.resize(length, 0);
        size.store(&mut bytes, 0);
        bytes
    }

    fn errno(bytes: &[u8]) -> Option<Errno> {
        Argument::new(bytes).decode::<IoasAlloc>().err().map(|error| error.errno())
    }

    #[test]
    fn a_size_that_is_missing_or_beyond_the_message_is_unreadable() {
        assert_eq!(errno(&[]), Some(Errno::FAULT));
        assert_eq!(errno(&[12, 0, 0]), Some(Errno::FAULT));
        assert_eq!(errno(&bytes_with_size(12, 11)), Some(Errno::FAULT));
        assert_eq!(errno(&bytes_with_size(u32::MAX, 64)), Some(Errno::FAULT));
    }

    #[test]
    fn a_size_below_the_minimum_is_refused_before_anything_is_read() {
        for size in [0, 4, 11] {
            assert_eq!(errno(&bytes_with_size(size, 12)), Some(Errno::INVAL));
        }
        assert_eq!(errno(&[8, 0, 0, 0]), Some(Errno::INVAL));
    }

    #[test]
    fn a_longer_struct_is_accepted_if_its_tail_is_zero() {
        let mut bytes = bytes_with_size(20, 24);
        assert_eq!(errno(&bytes), None);
        bytes[19] = 1;
        assert_eq!(errno(&bytes), Some(Errno::TOOBIG));
        bytes[19] = 0;
        bytes[20] = 1;
        let decoded = Argument::new(&bytes).decode::<IoasAlloc>().unwrap();
        assert_eq!((decoded.value, decoded.payload), (ALLOC, &bytes[20..]));
    }

    #[test]
    fn a_readable_unknown_tail_is_found_before_the_end_of_the_message() {
        let mut bytes = bytes_with_size(100, 24);
        assert_eq!(errno(&bytes), Some(Errno::FAULT));
        bytes[23] = 1;
        assert_eq!(errno(&bytes), Some(Errno::TOOBIG));
    }

    #[test]
    fn the_reply_never_passes_the_known_struct_and_keeps_the_size_of_the_client() {
        let bytes = bytes_with_size(20, 20);
        let decoded = Argument::new(&bytes).decode::<IoasAlloc>().unwrap();
        assert_eq!(decoded.reply_body(&ALLOC), bytes[..12]);
    }

    mod grown {
        #![expect(unreachable_pub, reason = "the macro declares for real families, which are public")]

        commands! {
            /// A struct that has grown: 8 bytes at first, 16 now.
            Grown = 0x3bdf "GROWN", min 8, size 16 {
                /// Always there.
                first: u32 = 4,
                /// Added later.
                later: u64 = 8,
            }
        }
    }

    #[test]
    fn an_older_struct_reads_as_zero_beyond_its_end_and_gets_no_more_back() {
        let decoded = Argument::new(&[10, 0, 0, 0, 1, 0, 0, 0, 2, 3, 99]).decode::<Grown>().unwrap();
        assert_eq!(decoded.value, Grown { first: 1, later: 0x302 });
        assert_eq!(decoded.payload, [99]);
        let reply = decoded.reply_body(&Grown { first: 5, later: u64::MAX });
        assert_eq!(reply, [10, 0, 0, 0, 5, 0, 0, 0, 0xff, 0xff]);
    }

    #[test]
    fn holes_and_overlaps_are_found_when_a_struct_is_declared() {
        let place = |offset, bytes| FieldPlace { name: "f", offset, bytes, note: "" };
        assert!(covers(&[place(4, 4), place(8, 8)], 16));
        assert!(!covers(&[place(4, 4), place(12, 4)], 16));
        assert!(!covers(&[place(4, 8), place(8, 8)], 16));
        assert!(!covers(&[place(4, 4)], 12));
        let mut names = Names(Vec::new());
        grown::visit_all(&mut names);
        assert_eq!(names.0, ["GROWN"]);
    }

    struct Names(Vec<&'static str>);

    impl Visitor for Names {
        fn visit<C: Command>(&mut self) {
            self.0.push(C::NAME);
        }
    }
}
