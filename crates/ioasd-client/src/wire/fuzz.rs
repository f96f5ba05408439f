//! Entry points for fuzzers: each takes any bytes, decodes them in every way there is, and panics only on a bug.
//!
//! Imports allowed: the rest of `wire`.

use super::command::{Argument, Command, Visitor, encode};
use super::frame::{Reply, Request};
use super::{channels, own, uapi};

/// Decodes `message` as a request, and its argument as that of every command. What is understood must survive being
/// encoded again.
///
/// # Panics
/// If the decoder has a bug.
pub fn fuzz_request(message: &[u8]) {
    let Ok(request) = Request::decode(message) else {
        return;
    };
    assert_eq!(request.encode().as_deref(), Ok(message), "a request changed when it was encoded again");
    fuzz_argument(request.argument.bytes());
}

/// Decodes `bytes` as the argument of every command.
///
/// # Panics
/// If the decoder has a bug.
pub fn fuzz_argument(bytes: &[u8]) {
    let mut round_trip = RoundTrip(Argument::new(bytes));
    uapi::visit_all(&mut round_trip);
    own::visit_all(&mut round_trip);
    channels::visit_all(&mut round_trip);
}

/// Decodes `message` as a reply. What is understood must survive being encoded again.
///
/// # Panics
/// If the decoder has a bug.
pub fn fuzz_reply(message: &[u8]) {
    let Ok(reply) = Reply::decode(message) else { return };
    assert_eq!(reply.encode().as_deref(), Ok(message), "a reply changed when it was encoded again");
}

struct RoundTrip<'a>(Argument<'a>);

impl Visitor for RoundTrip<'_> {
    fn visit<C: Command>(&mut self) {
        let Ok(decoded) = self.0.decode::<C>() else { return };
        let again = encode(&decoded.value);
        let copy = Argument::new(&again).decode::<C>().map(|copy| copy.value);
        assert_eq!(copy, Ok(decoded.value), "{} changed when it was encoded again", C::NAME);
        let body = decoded.reply_body(&decoded.value);
        assert!(self.0.bytes().starts_with(&body), "{}: an unchanged struct came back changed", C::NAME);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::wire::frame::{Echo, Tag};

    const FRAMES: usize = 300;
    const MUTATIONS: usize = 100;

    /// Runs `fuzz` on a frame of each seed, all its truncations and many mutations; names the seed of a failure.
    fn torture(frame: fn(&mut fastrand::Rng) -> Vec<u8>, fuzz: fn(&[u8])) {
        for seed in 0..FRAMES as u64 {
            let outcome = catch_unwind(|| {
                let mut rng = fastrand::Rng::with_seed(seed);
                let message = frame(&mut rng);
                fuzz(&message);
                (0..message.len()).for_each(|end| fuzz(&message[..end]));
                (0..MUTATIONS).for_each(|_| fuzz(&mutate(&message, &mut rng)));
            });
            assert!(outcome.is_ok(), "seed {seed}");
        }
    }

    fn mutate(message: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut message = message.to_vec();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(0..message.len());
            match rng.u8(0..3) {
                0 => message[at] = rng.u8(..),
                1 => message[at] ^= 1 << rng.u8(0..8),
                _ => message.insert(at, rng.u8(..)),
            }
        }
        message
    }

    fn echo(rng: &mut fastrand::Rng) -> Echo {
        Echo { command: rng.u32(..), tag: Tag(rng.u64(..)) }
    }

    fn random_bytes(rng: &mut fastrand::Rng, limit: usize) -> Vec<u8> {
        (0..rng.usize(0..limit)).map(|_| rng.u8(..)).collect()
    }

    fn argument(rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut argument = random_bytes(rng, 80);
        let size = rng.u32(0..64).to_le_bytes();
        argument.iter_mut().zip(size).for_each(|(to, from)| *to = from);
        argument.push(rng.u8(..));
        argument
    }

    fn request(rng: &mut fastrand::Rng) -> Vec<u8> {
        let argument = argument(rng);
        Request { echo: echo(rng), argument: Argument::new(&argument) }.encode().unwrap()
    }

    fn reply(rng: &mut fastrand::Rng) -> Vec<u8> {
        let (body, payload) = (random_bytes(rng, 60), random_bytes(rng, 60));
        let reply = Reply {
            errno: rng.i32(0..4096),
            code: "a-code",
            text: "é",
            ..Reply::done(echo(rng), &body, &payload)
        };
        reply.encode().unwrap()
    }

    #[test]
    fn no_request_makes_the_decoder_panic_and_what_decodes_encodes_back() {
        torture(request, fuzz_request);
        torture(argument, fuzz_argument);
    }

    #[test]
    fn no_reply_makes_the_decoder_panic_and_what_decodes_encodes_back() {
        torture(reply, fuzz_reply);
    }

    /// Fills the struct of every command at random and takes it through a whole request.
    struct Values<'a>(&'a mut fastrand::Rng);

    impl Visitor for Values<'_> {
        fn visit<C: Command>(&mut self) {
            let random: Vec<u8> = (0..C::SIZE).map(|_| self.0.u8(..)).collect();
            let value = C::load(&random);
            let argument = encode(&value);
            assert_eq!(argument[4..], random[4..], "{}: a byte belongs to no field", C::NAME);
            let request = Request { echo: echo(self.0), argument: Argument::new(&argument) };
            let message = request.encode().unwrap();
            let decoded = Request::decode(&message).unwrap();
            assert_eq!(decoded, request);
            assert_eq!(decoded.argument.decode::<C>().unwrap().value, value);
        }
    }

    #[test]
    fn every_command_survives_the_wire() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            uapi::visit_all(&mut Values(&mut rng));
            own::visit_all(&mut Values(&mut rng));
            channels::visit_all(&mut Values(&mut rng));
        }
    }
}
