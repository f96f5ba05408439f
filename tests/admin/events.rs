//! The journal: who came and went, and what was refused, in the words that the client was told.

use std::os::fd::AsFd;

use ioasd_client::calls::{FileSlice, Placement};
use ioasd_client::units::{ByteLen, Iova, Permission};
use serde_json::{Value, json};

use crate::fixture::{Agent, eventually, map, memory};
use crate::http::Door;

fn events(door: &Door, since: u64) -> Vec<Value> {
    door.json(&format!("/v1/events?since={since}"))["items"].as_array().unwrap().clone()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_refusal_is_told_as_the_client_was_told_and_a_client_leaves_word_of_its_end() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(4));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, &file, (0, 0x1000), 0x10_0000);
    let door = agent.socket();
    let before = events(&door, 0);
    assert_eq!(kinds(&before), ["opened"]);
    assert!(before[0]["text"].as_str().unwrap().contains(&format!("process {}", std::process::id())));
    let context = &before[0]["context"];
    let mut refuse = || {
        let slice = FileSlice { file: file.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(0x1000) };
        let place = Placement::Fixed(Iova::new(0x10_0000));
        client.map_file(ioas, slice, Permission::Read, place).unwrap_err().to_string()
    };
    let told = refuse();
    let after = events(&door, 1);
    let [refusal] = &after[..] else { panic!("{after:?}") };
    let expected = (&json!("refused"), context, &json!("IOAS_MAP_FILE"), &json!(1));
    assert_eq!((&refusal["kind"], &refusal["context"], &refusal["command"], &refusal["times"]), expected);
    assert!(told.contains(refusal["text"].as_str().unwrap()), "{told}, {refusal}");
    assert_eq!(refuse(), told);
    let counted = events(&door, refusal["number"].as_u64().unwrap());
    assert_eq!((counted.len(), &counted[0]["times"], &counted[0]["code"]), (1, &json!(2), &refusal["code"]));
    drop(client);
    assert!(eventually(|| kinds(&events(&door, 0)).last() == Some(&"closed")));
    assert_eq!(door.json("/v1/events?limit=1")["next"], "1");
}
