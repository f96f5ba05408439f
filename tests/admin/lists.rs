//! What each list shows of a client at work, and lists that come in parts.

use ioasd_client::calls::{AccessKind, PinIntent, Placement};
use ioasd_client::units::{Iova, Permission};
use serde_json::{Value, json};

use crate::fixture::{Agent, attach, eventually, map, memory, range};
use crate::http::Door;

/// All rows of a list, part by part.
#[track_caller]
fn all(door: &Door, target: &str, limit: usize) -> (Vec<Value>, usize) {
    let (mut rows, mut parts, mut after) = (Vec::new(), 0, String::new());
    loop {
        let part = door.json(&format!("{target}?limit={limit}{after}"));
        let items = part["items"].as_array().unwrap();
        assert!(items.len() <= limit, "{} rows", items.len());
        rows.extend(items.iter().cloned());
        parts += 1;
        match part["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return (rows, parts),
        }
    }
}

#[track_caller]
fn only(door: &Door, target: &str) -> Value {
    let rows = door.json(target)["items"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 1, "{target}: {rows:?}");
    rows[0].clone()
}

/// One client at work is the only one at every account of its path.
fn assert_accounts(door: &Door, context: &Value, pages: &Value, domain: &Value) {
    let accounts = door.json("/v1/accounts")["items"].as_array().unwrap().clone();
    let levels: Vec<_> = accounts.iter().map(|account| account["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["host", "tenant", "user", "context"], "{accounts:?}");
    for account in &accounts {
        let used = |resource: &str| account["counters"][resource]["used"].as_u64().unwrap();
        assert_eq!(
            (used("pinned"), used(pages["strength"].as_str().unwrap())),
            (0x4000, 0x4000),
            "{account}"
        );
        assert_eq!((used("areas"), used("objects")), (1, 4), "{account}");
        assert!(used("tables") >= domain["table_bytes"].as_u64().unwrap(), "{account}");
    }
    let account = accounts.last().unwrap();
    assert_eq!((&account["uid"], &account["context"]), (&context["uid"], &context["id"]));
    assert_eq!(account["counters"]["first_touch"]["hard"], 0);
}

#[test]
fn every_list_shows_a_client_at_work_and_both_doors_say_the_same() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(8));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, &file, (0x1000, 0x4000), 0x10_0000);
    attach(&mut client, ioas);
    let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
    client.access_pin(access, range(0x10_1000, 0x2000), PinIntent::Read).unwrap();
    let door = agent.socket();
    let context = only(&door, "/v1/contexts");
    assert_eq!(context["pid"], rustix::process::getpid().as_raw_pid());
    assert_eq!(context["uid"], rustix::process::getuid().as_raw());
    let exe = std::env::current_exe().unwrap();
    assert_eq!(context["exe"], exe.to_str().unwrap());
    assert_eq!((&context["objects"], &context["pinned_bytes"]), (&json!(4), &json!(0x4000)));
    assert!(context["since"].as_str().unwrap().ends_with('Z') && context["comm"].is_string(), "{context}");
    let row = only(&door, "/v1/ioas");
    let expected = json!({ "id": row["id"], "context": context["id"], "object": ioas.get(), "areas": 1,
        "mapped_bytes": 0x4000, "domains": 1, "accesses": 1 });
    assert_eq!(row, expected);
    let pages = only(&door, "/v1/pages");
    assert_eq!(
        (&pages["length"], &pages["pinned_bytes"], &pages["charged_bytes"]),
        (&json!(0x4000), &json!(0x4000), &json!(0x4000))
    );
    let domain = only(&door, "/v1/domains");
    assert_eq!(
        (&domain["ioas"], &domain["format"], &domain["mapped_bytes"]),
        (&row["id"], &json!("amd-v1"), &json!(0x4000))
    );
    let access_row = only(&door, "/v1/accesses");
    assert_eq!(
        (&access_row["pins"], &access_row["pinned_bytes"], &access_row["may"]),
        (&json!(1), &json!(0x2000), &json!("pin"))
    );
    assert_accounts(&door, &context, &pages, &domain);
    for target in ["contexts", "ioas", "pages", "domains", "devices", "accesses", "accounts"] {
        let target = format!("/v1/{target}");
        assert_eq!(agent.tcp().json(&target), door.json(&target), "{target}");
    }
    client.access_unpin(access, range(0x10_1000, 0x2000)).unwrap();
    assert_eq!(only(&door, "/v1/accesses")["pins"], 0);
}

#[test]
fn a_device_shows_what_it_is_attached_to() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    attach(&mut client, ioas);
    let door = agent.socket();
    let device = only(&door, "/v1/devices");
    let words = (&device["kind"], &device["iommu"], &device["format"]);
    assert_eq!(words, (&json!("software"), &json!("own"), &json!("amd-v1")));
    let hwpt = only(&door, "/v1/domains")["object"].clone();
    assert_eq!((&device["attached"]["ioas"], &device["attached"]["hwpt"]), (&json!(1), &hwpt));
    assert_eq!(door.json(&format!("/v1/devices/{}", device["id"])), device);
    assert_eq!(door.json("/v1/devices?ioas=2")["items"], json!([]));
    let object = u32::try_from(device["object"].as_u64().unwrap()).unwrap();
    client.device_detach(ioasd_client::ids::DeviceId::new(object)).unwrap();
    assert_eq!(only(&door, "/v1/devices")["attached"], Value::Null);
}

#[test]
fn an_object_by_its_number_tells_more_and_is_absent_when_it_is_gone() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(8));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, &file, (0x1800, 0x800), 0x800);
    let door = agent.tcp();
    let area = only(&door, &format!("/v1/ioas/{}/areas", only(&door, "/v1/ioas")["id"]));
    let source = only(&door, "/v1/pages")["source"].clone();
    let expected = json!({ "start": "0x800", "last": "0xfff", "length": 0x800, "permission": "rw", "state": "ready",
        "pages": area["pages"], "first_page": 0, "page_offset": 0x800, "accesses": 0, "source": source,
        "strength": area["strength"] });
    assert_eq!(area, expected);
    client.unmap_all(ioas).unwrap();
    map(&mut client, ioas, &file, (0, 0x2000), 0x5000);
    attach(&mut client, ioas);
    let pages = only(&door, "/v1/pages");
    let detail = door.json(&format!("/v1/pages/{}", pages["id"]));
    assert_eq!((&detail["length"], &detail["shown_areas"]), (&pages["length"], &json!(1)));
    assert_eq!(detail["shown"][0]["start"], "0x5000");
    let domain = only(&door, "/v1/domains");
    let detail = door.json(&format!("/v1/domains/{}", domain["id"]));
    assert_eq!(
        (&detail["levels"], &detail["granule"], &detail["aperture_start"]),
        (&json!(4), &json!(4096), &json!("0x0"))
    );
    let context = only(&door, "/v1/contexts");
    assert_eq!(door.json(&format!("/v1/contexts/{}", context["id"])), context);
    let ids =
        [("contexts", &context), ("ioas", &only(&door, "/v1/ioas")), ("pages", &pages), ("domains", &domain)];
    drop(client);
    for (kind, row) in ids {
        let target = format!("/v1/{kind}/{}", row["id"]);
        assert!(eventually(|| door.get(&target).status == 404), "{target} is still there");
        let detail = door.get(&target).assert_problem(404, "object-absent", rustix::io::Errno::NOENT);
        assert!(detail.contains(&row["id"].to_string()), "{detail}");
    }
}

#[test]
fn ten_thousand_areas_come_in_parts_without_one_missing_or_shown_twice() {
    const AREAS: u64 = 10_000;
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(1));
    let (source, ioas) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, source, &file, (0, 0x1000), 0);
    for number in 0..AREAS {
        let place = Placement::Fixed(Iova::new(number * 0x2000));
        client.copy((source, range(0, 0x1000)), (ioas, place), Permission::Read).unwrap();
    }
    let ioases = agent.socket().json("/v1/ioas");
    let row = ioases["items"].as_array().unwrap().iter().find(|row| row["object"] == ioas.get()).unwrap();
    assert_eq!(row["areas"], AREAS);
    let target = format!("/v1/ioas/{}/areas", row["id"]);
    let (rows, parts) = all(&agent.socket(), &target, 1000);
    assert_eq!(parts, 10, "a full last part is the end");
    let starts: Vec<String> = rows.iter().map(|area| area["start"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<String> = (0..AREAS).map(|number| format!("{:#x}", number * 0x2000)).collect();
    assert!(starts == expected, "rows are missing, twice or out of order");
    let within = agent.tcp().json(&format!("{target}?after=0x4fff&limit=1"));
    assert_eq!((&within["items"][0]["start"], &within["next"]), (&json!("0x6000"), &json!("0x6fff")));
    let none = agent.tcp().json(&format!("{target}?after=0xffffffffffffffff"));
    assert_eq!(none, json!({ "items": [], "next": null }));
}

#[test]
fn numbered_lists_come_in_parts_too() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for _ in 0..25 {
        client.ioas_alloc().unwrap();
    }
    let (rows, parts) = all(&agent.tcp(), "/v1/ioas", 10);
    let mut ids: Vec<u64> = rows.iter().map(|row| row["id"].as_u64().unwrap()).collect();
    assert_eq!((ids.len(), parts), (25, 3));
    assert!(ids.is_sorted());
    ids.dedup();
    assert_eq!(ids.len(), 25);
    assert_eq!(agent.tcp().json("/v1/status")["ioases"], 25);
}

#[test]
fn filters_leave_what_was_asked_for_also_part_by_part() {
    let agent = Agent::start();
    let (mut one, mut other, file) = (agent.connect(), agent.connect(), memory(4));
    let mine: Vec<_> = (0..3).map(|_| one.ioas_alloc().unwrap()).collect();
    let theirs = other.ioas_alloc().unwrap();
    map(&mut one, mine[0], &file, (0, 0x1000), 0);
    map(&mut other, theirs, &file, (0x1000, 0x2000), 0);
    attach(&mut one, mine[0]);
    attach(&mut other, theirs);
    one.access_create(mine[1], AccessKind::Pinning).unwrap();
    let door = agent.socket();
    let contexts = door.json("/v1/contexts")["items"].clone();
    let (first, second) = (&contexts[0]["id"], &contexts[1]["id"]);
    let part = door.json(&format!("/v1/ioas?context={first}&limit=2"));
    let rest = door.json(&format!("/v1/ioas?context={first}&after={}", part["next"].as_str().unwrap()));
    let of_first = [&part["items"][0], &part["items"][1], &rest["items"][0]];
    assert!(of_first.iter().all(|row| row["context"] == *first), "{of_first:?}");
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    let ioas = only(&door, &format!("/v1/ioas?context={second}"))["id"].clone();
    assert_eq!(only(&door, &format!("/v1/pages?context={second}"))["length"], 0x2000);
    assert_eq!(only(&door, &format!("/v1/domains?context={second}"))["ioas"], ioas);
    assert_eq!(only(&door, &format!("/v1/domains?ioas={ioas}"))["context"], *second);
    assert_eq!(only(&door, &format!("/v1/accesses?context={first}"))["context"], *first);
    let uid = rustix::process::getuid().as_raw();
    for (target, rows) in [
        (format!("/v1/accesses?ioas={ioas}"), 0),
        (format!("/v1/domains?ioas={ioas}&context={first}"), 0),
        (format!("/v1/contexts?uid={uid}"), 2),
        (format!("/v1/contexts?uid={}", uid + 1), 0),
        (format!("/v1/pages?uid={uid}"), 2),
        (format!("/v1/ioas/{ioas}/areas?state=ready"), 1),
        (format!("/v1/ioas/{ioas}/areas?state=retiring"), 0),
    ] {
        assert_eq!(door.json(&target)["items"].as_array().unwrap().len(), rows, "{target}");
    }
}

#[test]
fn whoever_maps_is_a_payer_with_its_limit_until_its_context_is_gone() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(4));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, &file, (0, 0x4000), 0);
    attach(&mut client, ioas);
    let payer = only(&agent.socket(), "/v1/payers");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    let uid = rustix::process::getuid().as_raw();
    let accounts = agent.socket().json("/v1/accounts");
    let of_user = accounts["items"].as_array().unwrap().iter().find(|row| row["level"] == "user").unwrap();
    let expected = json!({ "pid": rustix::process::getpid().as_raw_pid(), "uid": uid, "ended": false,
        "charged_bytes": 0x4000, "limited_bytes": 0, "user_limited_bytes": of_user["limited_bytes"],
        "limit_bytes": limit.map(|bytes| bytes >> 12 << 12) });
    assert_eq!(payer, expected);
    drop(client);
    let none = json!({ "items": [], "next": null });
    assert!(eventually(|| agent.tcp().json("/v1/payers") == none));
}
