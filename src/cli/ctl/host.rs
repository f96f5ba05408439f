//! The host: what is held in place, by control group and by process, and what no figure says.
//!
//! Imports allowed: table, admin's answers.

use super::table::Lean::{Left, Right};
use super::table::{Column, Row, size, table};
use crate::admin::host::{CgroupRow, Host, ProcessRow};

impl Row for CgroupRow {
    const COLUMNS: &'static [Column] = &[
        ("VIA IOASD", Right),
        ("OTHER PINNED", Right),
        ("OTHER LOCKED", Right),
        ("UNEVICTABLE", Right),
        ("CGROUP", Left),
    ];

    fn cells(&self) -> Vec<String> {
        let sizes = [
            self.ioasd_pinned_bytes,
            self.other_pinned_bytes,
            self.other_locked_bytes,
            self.unevictable_bytes,
        ];
        sizes.iter().map(|bytes| size(*bytes)).chain([self.cgroup.clone()]).collect()
    }
}

impl Row for ProcessRow {
    const COLUMNS: &'static [Column] = &[
        ("PID", Right),
        ("UID", Right),
        ("COMM", Left),
        ("PINNED", Right),
        ("LOCKED", Right),
        ("VIA", Left),
        ("CGROUP", Left),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.pid.to_string(),
            self.uid.to_string(),
            self.comm.clone(),
            size(self.pinned_bytes),
            size(self.locked_bytes),
            self.via.clone(),
            self.cgroup.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

/// The whole view.
pub(super) fn shown(host: &Host) -> String {
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "not told".to_owned(), size);
    let count = |count: Option<u64>| count.map_or_else(|| "not told".to_owned(), |count| count.to_string());
    let coverage = &host.coverage;
    let mut text = format!(
        "read at {}: unevictable {}, locked {}; pages pinned since the start {}, unpinned {}\n",
        host.taken,
        bytes(host.unevictable_bytes),
        bytes(host.mlocked_bytes),
        count(host.pins_acquired),
        count(host.pins_released),
    );
    text += &format!(
        "{} processes, {} not read yet, {} not readable\n\n",
        coverage.processes, coverage.unread, coverage.unreadable
    );
    text += &(table(&host.cgroups) + &left_out(host.cgroups_left_out) + "\n");
    text += &(table(&host.processes) + &left_out(host.processes_left_out) + "\n");
    host.not_told.iter().fold(text, |text, note| text + "not told: " + note + "\n")
}

fn left_out(count: usize) -> String {
    if count == 0 { String::new() } else { format!("and {count} more\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_groups_processes_and_gaps_are_shown() {
        let host: Host = serde_json::from_str(
            r#"{"taken": "2001-09-09T01:46:40Z", "unevictable_bytes": 4096, "mlocked_bytes": null,
                "pins_acquired": 7, "pins_released": 5, "cgroups_left_out": 2, "processes_left_out": 0,
                "cgroups": [{"cgroup": "/tenants/a", "ioasd_pinned_bytes": 8192, "other_pinned_bytes": 0,
                             "other_locked_bytes": 0, "unevictable_bytes": 0}],
                "processes": [{"pid": 42, "uid": 7, "comm": "qemu", "cgroup": null, "pinned_bytes": 12288,
                               "locked_bytes": 0, "via": "other"}],
                "coverage": {"processes": 9, "unread": 1, "unreadable": 0, "cgroups_complete": true},
                "not_told": ["why"]}"#,
        )
        .unwrap();
        let text = shown(&host);
        for part in
            ["unevictable 4 KiB, locked not told", "8 KiB", "/tenants/a", "and 2 more", "12 KiB", "qemu"]
        {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(text.ends_with("not told: why\n"), "{text}");
    }
}
