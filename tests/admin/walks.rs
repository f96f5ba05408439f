//! Walking an address, level by level, down to the byte of the file behind it.

use std::os::fd::AsFd;

use serde_json::json;

use crate::fixture::{Agent, attach, map, memory};

#[test]
fn a_walk_shows_every_level_and_what_lies_there() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(8));
    let ioas = client.ioas_alloc().unwrap();
    attach(&mut client, ioas);
    map(&mut client, ioas, &file, (0x2000, 0x3000), 0x4020_0000);
    let walk = agent.tcp().json("/v1/domains/1/walk?iova=0x40201234");
    assert_eq!(
        (&walk["iova"], &walk["format"], &walk["levels"]),
        (&json!("0x40201234"), &json!("amd-v1"), &json!(4))
    );
    let steps = walk["steps"].as_array().unwrap();
    let column = |name: &str| steps.iter().map(|step| step[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("level"), [3, 2, 1, 0]);
    assert_eq!(column("index"), [0, 1, 1, 1]);
    assert_eq!(column("kind"), ["table", "table", "table", "leaf"]);
    // The first two pages are one leaf of 8 KiB, which fills two entries.
    assert_eq!(column("covers"), ["0x0", "0x40000000", "0x40200000", "0x40200000"]);
    assert_eq!(column("size"), [1_u64 << 39, 1 << 30, 1 << 21, 1 << 13]);
    for pair in steps.windows(2) {
        assert_eq!(pair[0]["points_to"], pair[1]["table"]);
    }
    let destination = &walk["destination"];
    assert_eq!((&destination["permission"], &destination["length"]), (&json!("rw"), &json!(0xdcc)));
    let stat = rustix::fs::fstat(file.as_fd()).unwrap();
    let place = json!({ "device": format!("{:#x}", stat.st_dev), "inode": stat.st_ino, "offset": 0x3234 });
    assert_eq!(destination["file"], place);
    assert_eq!((&walk["area"]["start"], &walk["area"]["last"]), (&json!("0x40200000"), &json!("0x40202fff")));
    assert_eq!((&walk["pages"]["id"], &walk["pages"]["length"]), (&walk["area"]["pages"], &json!(0x3000)));
    assert_eq!(walk["fault"], json!(null));
}

#[test]
fn a_walk_to_nothing_says_where_it_ends() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    attach(&mut client, ioas);
    let walk = agent.socket().json("/v1/domains/1/walk?iova=4096");
    assert_eq!(
        (&walk["iova"], &walk["destination"], &walk["area"]),
        (&json!("0x1000"), &json!(null), &json!(null))
    );
    assert_eq!(walk["steps"][0]["kind"], "absent");
    assert_eq!(walk["fault"], "nothing is mapped at 0x1000: the entry of level 3 is absent");
    let outside = agent.socket().json("/v1/domains/1/walk?iova=0xffffffffffffffff");
    assert_eq!(outside["steps"], json!([]));
    assert!(outside["fault"].as_str().unwrap().contains("outside of the aperture"), "{outside}");
}
