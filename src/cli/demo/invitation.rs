//! The domains with what each maps, and what to look at while the demo stays up.
//!
//! Imports allowed: units, size, admin's answers.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use ioasd_client::units::ByteLen;

use crate::admin::domains::DomainRow;
use crate::admin::json::Hex;
use crate::cli::size::human;

/// A line for each domain.
pub(super) fn domains(domains: &[(DomainRow, Hex)]) -> String {
    let mut text = String::new();
    for (domain, _) in domains {
        let (mapped, tables) =
            (human(ByteLen::new(domain.mapped_bytes)), human(ByteLen::new(domain.table_bytes)));
        let DomainRow { id, ioas, format, .. } = domain;
        line(&mut text, &format!("domain {id}: {format}, IOAS {ioas}, mapped {mapped}, tables {tables}"));
    }
    text.trim_end().to_owned()
}

/// Addresses and commands to try, ready to be copied. `program` is this one; each domain comes with an IOVA that it maps.
pub(super) fn text(program: &Path, admin: &Path, tcp: SocketAddr, domains: &[(DomainRow, Hex)]) -> String {
    let mut text = "the demo stays up, its devices go on reading\n".to_owned();
    if let Some((domain, first)) = domains.first() {
        invite(&mut text, program, admin, tcp, domain, *first);
    }
    text.push_str("Ctrl-C takes everything down and checks that nothing is left");
    text
}

fn invite(text: &mut String, program: &Path, admin: &Path, tcp: SocketAddr, domain: &DomainRow, first: Hex) {
    let DomainRow { id: domain, ioas, .. } = domain;
    let ctl = format!("{} ctl --admin {}", program.display(), admin.display());
    text.push_str("look at it in a browser:\n");
    line(text, &format!("http://{tcp}/"));
    line(text, &format!("http://{tcp}/v1/domains/{domain}/walk?iova={first}"));
    text.push_str("or in another terminal:\n");
    line(text, &format!("{ctl} status"));
    line(text, &format!("{ctl} areas {ioas}"));
    line(text, &format!("{ctl} walk {domain} {first}"));
    line(text, &format!("curl http://{tcp}/metrics"));
}

fn line(text: &mut String, line: &str) {
    let written = writeln!(text, "  {line}");
    debug_assert!(written.is_ok(), "a string takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_names_what_is_there() {
        let domain = |id, format: &str| {
            let row = DomainRow {
                id,
                context: Some(1),
                ioas: 7,
                object: 3,
                format: format.to_owned(),
                mapped_bytes: 1 << 30,
                table_bytes: 8192,
                walkers: 1,
                faults: 0,
            };
            (row, Hex(0x20_0000))
        };
        let domains = [domain(4, "amd-v1"), domain(5, "vtd-ss")];
        let tcp = SocketAddr::from(([127, 0, 0, 1], 9));
        let lines = super::domains(&domains);
        assert!(lines.ends_with("  domain 5: vtd-ss, IOAS 7, mapped 1 GiB, tables 8 KiB"), "{lines}");
        let text = text(Path::new("/p/ioasd"), Path::new("/a.sock"), tcp, &domains);
        for expected in [
            "http://127.0.0.1:9/v1/domains/4/walk?iova=0x200000\n",
            "/p/ioasd ctl --admin /a.sock areas 7\n",
            "/p/ioasd ctl --admin /a.sock walk 4 0x200000\n",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
