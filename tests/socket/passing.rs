//! Files that come and go beside walkers that stay: frames are given to one file after the other, and walkers read the right one
//! each time.

use std::os::fd::AsFd;

use ioasd::storage::frame_window::FrameLimit;
use ioasd_client::units::Iova;
use ioasd_client::walker::Stream;
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::dup;

use crate::fixture::Agent;
use crate::memory::{at, client_with_domain, empty_memfd, map, range, slice, write_at};
use crate::walking::open;

/// Windows of frames that there are: more than an export channel keeps files, far fewer than files that pass.
const WINDOWS: FrameLimit = FrameLimit { output_lg2: 39 };

/// Files that pass.
const FILES: u64 = 3000;

const IOVA: u64 = 0x1_0000;

/// What lies there, as a stream that learns of files sees it.
fn word(stream: &mut Stream) -> u64 {
    let mut bytes = [0; 8];
    stream.burst(|burst| burst.read(Iova::new(IOVA), &mut bytes)).unwrap();
    u64::from_le_bytes(bytes)
}

/// Files that a walker reads before another one does.
const TURN: u64 = 100;

#[test]
fn walkers_that_stay_read_the_right_one_of_thousands_of_files() {
    let agent = Agent::with(|settings| settings.frames = WINDOWS);
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    // Through one channel: what it keeps of the files of one walker goes with those of the next.
    let channel = client.domain_export(hwpt).unwrap();
    let walkers = [(); 6].map(|()| open(dup(&channel).unwrap()));
    let mut streams = walkers.each_ref().map(|walker| walker.stream().unwrap().with_iotlb());
    for number in 1..=FILES {
        let file = empty_memfd("passing", 1);
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        write_at(&file, 0, &number.to_le_bytes().repeat(512));
        map(&mut client, ioas, slice(file.as_fd(), 0, 0x1000), at(IOVA)).unwrap();
        let turn = usize::try_from(number / TURN).unwrap() % streams.len();
        assert_eq!(word(&mut streams[turn]), number);
        if number % 700 == 0 {
            let late = open(dup(&channel).unwrap());
            assert_eq!(word(&mut late.stream().unwrap()), number, "a walker that came later");
        }
        client.unmap(ioas, range(IOVA, 0x1000)).unwrap();
    }
    assert!(FILES > 5 * WINDOWS.windows());
}
