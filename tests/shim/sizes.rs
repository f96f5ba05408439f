//! The rules by which a struct is read and written, and what is no command at all.

use std::os::fd::AsRawFd;
use std::ptr::{null_mut, without_provenance_mut};

use libc::{E2BIG, EFAULT, EINVAL, ENOTTY, EOPNOTSUPP};

use crate::device::{DESTROY, IOAS_ALLOC, MAP_FILE, ioas_alloc, open, page_before_nothing, raw};
use crate::program::{Part, play};

pub(crate) const PARTS: &[Part] = &[("sizes", sizes), ("undone", undone), ("unknown", unknown)];

/// Writes a struct so that it ends, `behind` bytes later, where memory ends.
fn before_nothing(words: &[u32], behind: usize) -> *mut libc::c_void {
    let start = page_before_nothing().wrapping_add(4096 - 4 * words.len() - behind);
    for (at, word) in words.iter().enumerate() {
        // SAFETY: within the page that can be used.
        unsafe { start.add(4 * at).cast::<u32>().write_unaligned(*word) };
    }
    start.cast()
}

#[test]
fn a_struct_is_read_by_its_own_size() {
    play("sizes");
}

fn sizes() {
    let device = open();
    let alloc = |argument| raw(device.as_raw_fd(), IOAS_ALLOC, argument);
    for bad in [null_mut(), without_provenance_mut(usize::MAX), without_provenance_mut(0xdead_b000)] {
        assert_eq!(alloc(bad), Err(EFAULT), "{bad:?}");
    }
    assert_eq!(alloc(before_nothing(&[8], 0)), Err(EINVAL), "too small counts before unreadable");
    assert_eq!(alloc(before_nothing(&[12], 0)), Err(EFAULT));
    assert_eq!(alloc(before_nothing(&[12, 0], 0)), Err(EFAULT));
    assert_eq!(alloc(before_nothing(&[12, 0, 0], 0)), Ok(0));
    assert_eq!(alloc(before_nothing(&[20, 0, 0, 0, 0], 0)), Ok(0));
    assert_eq!(alloc(before_nothing(&[24, 0, 0, 0, 0], 0)), Err(EFAULT), "the tail cannot be read");
    assert_eq!(alloc(before_nothing(&[20, 0, 0, 0, 1], 0)), Err(E2BIG));
    assert_eq!(alloc(before_nothing(&[u32::MAX, 0, 0, 0, 0], 0)), Err(EFAULT));
    let mut long = vec![0_u32; 1 << 16];
    long[0] = 1 << 18;
    assert_eq!(alloc(long.as_mut_ptr().cast()), Ok(0), "no size is too large by itself");
    assert_eq!((long[0], long[2]), (1 << 18, 3));
    long[(1 << 16) - 1] = 1;
    assert_eq!(alloc(long.as_mut_ptr().cast()), Err(E2BIG));
    assert_eq!(ioas_alloc(&device), Ok(4), "what was refused has made nothing");
}

#[test]
fn an_answer_that_cannot_be_written_undoes_what_it_tells_of() {
    play("undone");
}

fn undone() {
    let device = open();
    let argument = before_nothing(&[12, 0, 0], 0);
    let page = without_provenance_mut(argument.expose_provenance() & !4095);
    // SAFETY: the page is ours and holds nothing else.
    assert_eq!(unsafe { libc::mprotect(page, 4096, libc::PROT_READ) }, 0);
    assert_eq!(raw(device.as_raw_fd(), IOAS_ALLOC, argument), Err(EFAULT));
    assert_eq!(ioas_alloc(&device), Ok(1));
}

#[test]
fn what_is_no_command_is_enotty_and_a_bad_pointer_is_noticed_first() {
    play("unknown");
}

fn unknown() {
    let device = open();
    let call = |command, argument| raw(device.as_raw_fd(), command, argument);
    let good = || before_nothing(&[64, 0, 0, 0], 64);
    assert_eq!(call(0x3b9f, good()), Err(ENOTTY), "behind the table");
    assert_eq!(call(0x3b9f, null_mut()), Err(ENOTTY), "behind the table");
    assert_eq!(call(0xc008_0000 | IOAS_ALLOC, good()), Err(ENOTTY), "with a direction");
    assert_eq!(call(0xc008_0000 | IOAS_ALLOC, null_mut()), Err(EFAULT), "with a direction");
    assert_eq!(call(0x3b79, null_mut()), Err(ENOTTY), "a number of nobody");
    let physical = |words: &[u32]| call(0x3b95, before_nothing(words, 0));
    let mut words = [0; 11];
    for (size, errno) in [(40, EOPNOTSUPP), (39, EINVAL), (44, EOPNOTSUPP)] {
        words[0] = size;
        assert_eq!(physical(&words), Err(errno), "there is no device without IOMMU");
    }
    words[10] = 1;
    assert_eq!((physical(&words), call(0x3b95, null_mut())), (Err(E2BIG), Err(EFAULT)));
    let other = std::fs::File::open("/dev/null").unwrap();
    for command in [DESTROY, IOAS_ALLOC, MAP_FILE] {
        assert_eq!(raw(other.as_raw_fd(), command, good()), Err(ENOTTY), "not the device");
        assert_eq!(raw(-1, command, good()), Err(libc::EBADF));
    }
}
