//! OPTION.

use std::fs::{File, OpenOptions};

use libc::{EBUSY, EINVAL, ENOENT, EOPNOTSUPP, EPERM};

use crate::device::{OPTION, Struct, ioas_alloc, open};
use crate::program::{Part, play};

pub(crate) const PARTS: &[Part] = &[("options", options), ("options of a container", of_a_container)];

#[test]
fn options_are_set_and_told() {
    play("options");
}

fn options() {
    let device = open();
    let option = |option: u32, op: u16, object: u32, value: u64| {
        let mut option = Struct::new(24).u32(4, option).u16(8, op).u32(12, object).u64(16, value);
        option.call(&device, OPTION).map(|()| option.get_u64(16))
    };
    let privileged = matches!(option(0, 0, 0, 2), Err(EINVAL));
    if !privileged {
        assert_eq!(option(0, 0, 0, 1), Err(EPERM));
    }
    assert_eq!(option(0, 1, 0, 7), Ok(0));
    let ioas = ioas_alloc(&device).unwrap();
    if privileged {
        assert_eq!(option(0, 0, 0, 1), Err(EBUSY));
    }
    assert_eq!([option(1, 1, ioas, 7), option(1, 0, ioas, 0), option(1, 1, ioas, 7)], [Ok(1), Ok(0), Ok(0)]);
    assert_eq!(
        [option(1, 1, 77, 0), option(1, 0, ioas, 2), option(9, 1, ioas, 0)],
        [Err(ENOENT), Err(EINVAL), Err(EOPNOTSUPP)]
    );
}

#[test]
fn a_container_begins_with_the_limit_of_the_process() {
    play("options of a container");
}

fn of_a_container() {
    let mode = |device: &File| {
        let mut option = Struct::new(24).u16(8, 1);
        option.call(device, OPTION).map(|()| option.get_u64(16))
    };
    let container = OpenOptions::new().read(true).write(true).open("/dev/vfio/vfio").unwrap();
    assert_eq!((mode(&container), mode(&open())), (Ok(1), Ok(0)));
    assert_eq!(mode(&container.try_clone().unwrap()), Ok(1));
    assert!(ioas_alloc(&container).is_ok());
}
