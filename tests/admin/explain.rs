//! What `explain` foretells is what a real map through the socket gives: place, errno, code and text.

use std::os::fd::{AsFd, OwnedFd};

use ioasd::storage::ledger::limits::{Limit, Limits, TenantLimits, TreeLimits};
use ioasd::storage::ledger::resource::Resource;
use ioasd_client::calls::{FileSlice, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova, Permission};
use serde_json::{Value, json};

use crate::fixture::{Agent, attach, eventually, map, memory, range};

/// A client of an agent, and a file to map.
struct Bed {
    agent: Agent,
    client: Connection,
    ioas: IoasId,
    file: OwnedFd,
}

/// A map to ask about: where, and the slice of the file.
#[derive(Clone, Copy, Debug)]
struct Asked(Option<u64>, (u64, u64));

const PAGE: Asked = Asked(None, (0, 0x1000));

impl Bed {
    fn new() -> Self {
        let agent = Agent::start();
        let mut client = agent.connect();
        let ioas = client.ioas_alloc().unwrap();
        Self { agent, client, ioas, file: memory(16) }
    }

    fn explained(&self, Asked(iova, (offset, length)): Asked) -> Value {
        let iova = iova.map(|iova| format!("&iova={iova:#x}")).unwrap_or_default();
        let path = format!("/v1/ioas/1/explain?length={length:#x}&offset={offset:#x}{iova}");
        self.agent.socket().json(&path)
    }

    /// All that a question could change and that can be seen.
    fn seen(&self) -> [Value; 4] {
        let door = self.agent.socket();
        ["/v1/accounts", "/v1/payers", "/v1/ioas/1/areas", "/v1/pages"].map(|path| door.json(path))
    }

    fn map(&mut self, Asked(iova, (offset, length)): Asked) -> Result<u64, (i32, String)> {
        let (offset, length) = (ByteLen::new(offset), ByteLen::new(length));
        let slice = FileSlice { file: self.file.as_fd(), offset, length };
        let place = iova.map_or(Placement::Any, |iova| Placement::Fixed(Iova::new(iova)));
        let mapped = self.client.map_file(self.ioas, slice, Permission::ReadWrite, place);
        mapped.map(Iova::get).map_err(|error| (error.errno().raw_os_error(), error.to_string()))
    }

    /// Asks, maps, and compares. What was mapped is unmapped again.
    #[track_caller]
    fn foretold(&mut self, asked: Asked, code: Option<&str>) -> Value {
        let mut told = Value::Null;
        let unchanged = eventually(|| {
            let before = self.seen();
            told = self.explained(asked);
            self.seen() == before
        });
        assert!(unchanged, "a question changes nothing, once what was refused before is gone");
        assert_eq!(told["refusal"]["code"], json!(code), "{asked:?}: {told}");
        assert_eq!(told["succeeds"], json!(code.is_none()), "{asked:?}: {told}");
        match self.map(asked) {
            Ok(iova) => {
                assert_eq!(told["start"], json!(format!("{iova:#x}")), "{asked:?}: {told}");
                let length = self.client.unmap(self.ioas, range(iova, asked.1.1)).unwrap();
                assert_eq!(length.get(), asked.1.1);
            }
            Err((errno, text)) => {
                assert_eq!(told["refusal"]["errno"], json!(errno), "{asked:?}: {told}, in truth {text}");
                let foretold = told["refusal"]["text"].as_str().unwrap();
                assert!(text.contains(foretold), "{asked:?}: {text} instead of {foretold}");
                let event = self.agent.socket().json("/v1/events?limit=1000")["items"].to_string();
                assert!(event.contains(&*foretold.replace('"', "\\\"")), "{foretold} is not in the journal");
            }
        }
        told
    }

    /// Lets `level` have so much of `resource`.
    fn limit(&self, level: &str, resource: Resource, hard: u64) {
        let none = TenantLimits::default();
        let limits = Limits::NONE.with(resource, Limit { soft: 1, hard });
        let (host, unnamed) = match level {
            "host" => (limits, none),
            "tenant" => (Limits::NONE, TenantLimits { tenant: limits, ..none }),
            "user" => (Limits::NONE, TenantLimits { user: limits, ..none }),
            _ => (Limits::NONE, TenantLimits { context: limits, ..none }),
        };
        self.agent.shared.ledger.limit(TreeLimits { host, unnamed, ..TreeLimits::default() });
    }
}

/// The limits of an explanation that stand in the way.
fn in_the_way(told: &Value) -> Vec<(&str, &str)> {
    let rows = told["limits"].as_array().unwrap().iter().filter(|row| row["binds"] == true);
    rows.map(|row| (row["level"].as_str().unwrap(), row["resource"].as_str().unwrap())).collect()
}

#[test]
fn a_place_and_every_refusal_of_one_are_foretold() {
    let mut bed = Bed::new();
    let told = bed.foretold(PAGE, None);
    assert_eq!((&told["pins_at_once"], &told["alignment"]), (&json!(false), &json!(1)));
    attach(&mut bed.client, bed.ioas);
    map(&mut bed.client, bed.ioas, &bed.file, (0, 0x2000), 0x10_0000);
    map(&mut bed.client, bed.ioas, &bed.file, (0, 0x1000), 0x10_8000);
    bed.foretold(PAGE, None);
    bed.foretold(Asked(Some(0x20_0000), (0x3000, 0x4000)), None);
    let told = bed.foretold(Asked(Some(0xf_f000), (0, 0xa000)), Some("iova-occupied"));
    assert_eq!((&told["areas_found"], told["areas"].as_array().unwrap().len()), (&json!(2), 2));
    assert_eq!(told["areas"][1], json!({ "start": "0x108000", "last": "0x108fff", "state": "ready" }));
    let told = bed.foretold(Asked(Some(1 << 60), (0, 0x1000)), Some("iova-reserved"));
    assert_eq!((&told["ranges"][0]["kind"], &told["alignment"]), (&json!("reserved"), &json!(0x1000)));
    assert!(told["alignment_asked_by"][0].as_str().unwrap().starts_with("domain "), "{told}");
    for (asked, code) in [
        (Asked(Some(0x800), (0, 0x1000)), "iova-misaligned"),
        (Asked(Some(0x4000), (0, 0x800)), "length-misaligned"),
        (Asked(Some(0x4000), (0x800, 0x1000)), "offset-misaligned"),
        (Asked(Some(u64::MAX - 0xfff), (0, 0x2000)), "range-past-end"),
        (Asked(Some(0x4000), (0, 0)), "length-zero"),
        (Asked(Some(u64::MAX), (0, 0x1000)), "number-is-maximum"),
    ] {
        bed.foretold(asked, Some(code));
    }
    bed.client.allow_iovas(bed.ioas, &[range(0x10_0000, 0x4000)]).unwrap();
    bed.foretold(Asked(None, (0, 0x2000)), None);
    let told = bed.foretold(Asked(None, (0, 0x3000)), Some("iova-space-exhausted"));
    assert!(told["ranges"].to_string().contains("allowed"), "{told}");
    bed.foretold(Asked(Some(0x8000), (0, 0x3000)), None);
}

#[test]
fn a_limit_at_every_level_is_foretold_with_what_is_used_and_needed() {
    let mut bed = Bed::new();
    attach(&mut bed.client, bed.ioas);
    map(&mut bed.client, bed.ioas, &bed.file, (0, 0x3000), 0x10_0000);
    for level in ["host", "tenant", "user", "context"] {
        bed.limit(level, Resource::Areas, 1);
        let told = bed.foretold(PAGE, Some("too-many-areas"));
        assert_eq!(in_the_way(&told), [(level, "areas")]);
        bed.limit(level, Resource::Pinned, 0x5000);
        bed.foretold(Asked(None, (0, 0x2000)), None);
        let told = bed.foretold(Asked(None, (0x800, 0x3000)), Some("origin-misaligned"));
        assert_eq!(in_the_way(&told), [(level, "pinned")]);
        let told = bed.foretold(Asked(None, (0, 0x3000)), Some("over-account-limit"));
        assert_eq!(in_the_way(&told), [(level, "pinned")]);
        let rows = told["limits"].as_array().unwrap();
        let row = rows.iter().find(|row| row["binds"] == true).unwrap();
        assert_eq!(
            (&row["used"], &row["soft"], &row["hard"], &row["needed"]),
            (&json!(0x3000), &json!(1), &json!(0x5000), &json!(0x3000))
        );
        let strength = Resource::parse(told["strength"].as_str().unwrap()).unwrap();
        bed.limit(level, strength, 0x3000);
        let told = bed.foretold(PAGE, Some("over-account-limit"));
        assert_eq!(in_the_way(&told), [(level, strength.name())]);
        bed.agent.shared.ledger.limit(TreeLimits::default());
        bed.foretold(PAGE, None);
    }
}

#[test]
fn another_strength_meets_other_limits_and_what_cannot_be_meant_is_said() {
    let bed = Bed::new();
    let door = bed.agent.socket();
    for (query, parameter) in [
        ("", "length"),
        ("length=1&iova=x", "iova"),
        ("length=1&permission=x", "permission"),
        ("length=1&strength=firm", "strength"),
    ] {
        let answer = door.get(&format!("/v1/ioas/1/explain?{query}"));
        assert_eq!((answer.status, &answer.json()["parameter"]), (400, &json!(parameter)), "{query}");
    }
    let told = door.json("/v1/ioas/1/explain?length=4096&strength=resident&permission=r");
    assert_eq!(told["strength"], "resident");
    let of = |resource: &str| {
        told["limits"].as_array().unwrap().iter().filter(|row| row["resource"] == resource).count()
    };
    assert_eq!((of("resident"), of("longterm"), of("memlock")), (4, 0, 0), "{told}");
}
