//! `/metrics` of an agent at work: every byte, and nothing afterwards.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use ioasd::actors::view::View;
use ioasd::admin::health::Readiness;
use ioasd::admin::{self, Controls, Endpoints};
use ioasd::storage::source::{Strength, StrengthSetting};
use ioasd_client::calls::Iommu;

use crate::fixture::{Agent, eventually};
use crate::memory::{Memory, at, attach_new, map};
use crate::walking::open;

/// The samples of one scrape, by name and labels.
fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let samples = answer.lines().filter(|line| line.starts_with("ioasd_"));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse::<f64>().unwrap()))
        .collect()
}

fn admin(agent: &Agent) -> admin::AdminHandle {
    let endpoints = Endpoints { tcp: Some("127.0.0.1:0".parse().unwrap()), ..Endpoints::default() };
    let view = View::of(Arc::clone(agent.registry()));
    let started = admin::start(&endpoints, view, Controls::default(), Readiness::default());
    started.unwrap().unwrap()
}

#[track_caller]
fn assert_samples(samples: &BTreeMap<String, f64>, expected: &[(&str, u64)]) {
    for (name, value) in expected {
        assert_eq!(samples.get(*name), Some(&(*value as f64)), "{name}");
    }
}

/// Nothing is left but what counts from the start of the agent, or is not about clients.
#[track_caller]
fn assert_idle(samples: &BTreeMap<String, f64>) {
    const CONSTANT: [&str; 6] = [
        "ioasd_build_info",
        "ioasd_start_time",
        "ioasd_request",
        "ioasd_events_total",
        "ioasd_kernel_held_bytes",
        "ioasd_host_",
    ];
    for (name, value) in samples {
        let constant = CONSTANT.iter().any(|constant| name.starts_with(constant));
        assert!(constant || *value == 0.0, "{name} is {value} on an idle agent");
    }
}

#[test]
fn a_scrape_shows_every_byte_while_it_is_mapped_and_none_afterwards() {
    let agent = Agent::with(|settings| settings.pins.strength = StrengthSetting::Exactly(Strength::Resident));
    let admin = admin(&agent);
    let address = admin.address().unwrap();
    let (mut client, memory) = (agent.connect(), Memory::new(600));
    let ioas = client.ioas_alloc().unwrap();
    let hwpts = [(); 2].map(|()| attach_new(&mut client, ioas, Iommu::Own).1);
    map(&mut client, ioas, memory.slice(0, 512 << 12), at(2 << 20)).unwrap();
    map(&mut client, ioas, memory.slice(512 << 12, 88 << 12), at(4 << 20)).unwrap();
    let walking = open(client.domain_export(hwpts[0]).unwrap());
    // A root, one table of each of the next levels, and one for what is no whole leaf of 2 MiB; of 4 KiB each.
    let (bytes, table) = (memory.size(), 4 * 4096);
    let account = format!(
        "ioasd_account_charged_bytes{{account=\"{}\",strength=\"resident\"}}",
        rustix::process::getuid().as_raw()
    );
    assert_samples(
        &scrape(address),
        &[
            ("ioasd_pages_length_bytes", bytes),
            ("ioasd_pinned_bytes{strength=\"resident\"}", bytes),
            ("ioasd_pinned_bytes{strength=\"longterm\"}", 0),
            ("ioasd_pinned_bytes{strength=\"locked\"}", 0),
            ("ioasd_held_bytes{strength=\"resident\"}", 0),
            ("ioasd_charged_bytes", bytes),
            (&account, bytes),
            ("ioasd_distinct_bytes{strength=\"resident\"}", bytes),
            ("ioasd_context_pinned_bytes{context=\"1\"}", bytes),
            ("ioasd_retiring_bytes", 0),
            ("ioasd_mapped_bytes", 2 * bytes),
            ("ioasd_table_bytes{format=\"amd-v1\"}", 2 * table),
            ("ioasd_contexts", 1),
            ("ioasd_ioas", 1),
            ("ioasd_pages", 2),
            ("ioasd_domains", 2),
            ("ioasd_areas", 2),
            ("ioasd_walkers", 1),
            ("ioasd_requests_total{command=\"IOAS_MAP_FILE\",result=\"ok\"}", 2),
        ],
    );
    drop((walking, client));
    agent.assert_clean();
    assert!(eventually(|| scrape(address).get("ioasd_walkers") == Some(&0.0)));
    let samples = scrape(address);
    assert_idle(&samples);
    assert!(!samples.contains_key(&account));
    admin.stop();
}
