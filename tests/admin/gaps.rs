//! What is free in an address space, and what is reserved or allowed, from the clients' side.

use ioasd_client::calls::Placement;
use ioasd_client::units::{Iova, Permission};
use serde_json::{Value, json};

use crate::fixture::{Agent, attach, map, memory, range};
use crate::http::Door;

/// All rows at `target`, and the parts they came in.
fn rows(door: &Door, target: &str, limit: usize) -> (Vec<Value>, usize) {
    let (mut rows, mut parts, mut after) = (Vec::new(), 0, String::new());
    loop {
        let part = door.json(&format!("{target}?limit={limit}{after}"));
        rows.extend(part["items"].as_array().unwrap().iter().cloned());
        parts += 1;
        let Some(next) = part["next"].as_str() else { return (rows, parts) };
        after = format!("&after={next}");
    }
}

fn ends(rows: &[Value]) -> Vec<(&str, &str)> {
    rows.iter().map(|row| (row["start"].as_str().unwrap(), row["last"].as_str().unwrap())).collect()
}

#[test]
fn gaps_and_areas_and_reserved_ranges_leave_nothing_out() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(4));
    let ioas = client.ioas_alloc().unwrap();
    let door = agent.socket();
    let whole = json!([{ "start": "0x0", "last": "0xffffffffffffffff", "length": u64::MAX }]);
    assert_eq!(door.json("/v1/ioas/1/gaps")["items"], whole);
    assert_eq!(door.json("/v1/ioas/1/ranges")["items"], json!([]));
    attach(&mut client, ioas);
    map(&mut client, ioas, &file, (0, 0x4000), 0x10_0000);
    let aperture = door.json("/v1/domains/1")["aperture_last"].as_str().unwrap().to_owned();
    let (gaps, _) = rows(&door, "/v1/ioas/1/gaps", 10);
    assert_eq!(ends(&gaps), [("0x0", "0xfffff"), ("0x104000", aperture.as_str())]);
    let (ranges, _) = rows(&door, "/v1/ioas/1/ranges", 10);
    assert_eq!(
        (ranges.len(), &ranges[0]["kind"], &ranges[0]["requests"]),
        (1, &json!("reserved"), &json!(1))
    );
    assert_eq!(ranges[0]["last"], "0xffffffffffffffff");
    assert!(ranges[0]["owners"][0].as_str().unwrap().starts_with("domain "), "{ranges:?}");
    client.allow_iovas(ioas, &[range(0x2000, 0x1000), range(0x10_3000, 0x2000)]).unwrap();
    assert_eq!(ends(&rows(&door, "/v1/ioas/1/gaps", 1).0), [("0x2000", "0x2fff"), ("0x104000", "0x104fff")]);
    let (ranges, parts) = rows(&door, "/v1/ioas/1/ranges", 1);
    let kinds: Vec<&str> = ranges.iter().map(|range| range["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds, parts), (vec!["allowed", "allowed", "reserved"], 3));
}

#[test]
fn an_answer_passes_a_bounded_number_of_areas_and_says_where_it_stopped() {
    const AREAS: u64 = 12_000;
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(1));
    let (source, ioas) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, source, &file, (0, 0x1000), 0);
    for number in 0..AREAS {
        let place = Placement::Fixed(Iova::new(number << 12));
        client.copy((source, range(0, 0x1000)), (ioas, place), Permission::Read).unwrap();
    }
    let door = agent.socket();
    let first = door.json("/v1/ioas/2/gaps");
    assert_eq!((&first["items"], first["next"].is_string()), (&json!([]), true), "{first}");
    let (gaps, parts) = rows(&door, "/v1/ioas/2/gaps", 100);
    assert_eq!((ends(&gaps)[0].0, gaps.len(), parts), ("0x2ee0000", 1, 2));
}
