//! `ioasd bench`, as small as it goes: every scenario runs, finds its tables right, and gives figures that make sense.
//! How fast anything is, no test says.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

/// The scenarios whose names are fixed.
const SCENARIOS: [&str; 14] = [
    "memory",
    "fanout",
    "fanout-marginal",
    "map-file",
    "map-longterm",
    "map-process",
    "attach",
    "copy",
    "unmap",
    "small",
    "vectored",
    "access",
    "translate",
    "rewriting",
];

const KEYS: [&str; 10] =
    ["case", "floor", "median", "p10", "p90", "p99", "ratio", "scenario", "unit", "valid"];

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ioasd")).arg("bench").args(arguments).output().unwrap()
}

/// Runs scenarios and gives the rows they wrote, and what they complained of.
fn rows(scenarios: &[&str]) -> (Vec<Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("figures.jsonl");
    let mut arguments = vec!["--size", "2MiB", "--rounds", "2", "--json", json.to_str().unwrap()];
    arguments.extend(scenarios);
    let output = bench(&arguments);
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{complaints}");
    for skipped in complaints.lines().filter_map(|line| line.strip_prefix("SKIP: ")) {
        ioasd::skip!("{skipped}");
    }
    let text = std::fs::read_to_string(json).unwrap();
    let rows = parsed(&text);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        shown.lines().count(),
        rows.len() + 1,
        "people and programs are told different things:\n{shown}"
    );
    (rows, complaints)
}

fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap()
}

#[test]
fn every_scenario_gives_complete_and_sane_figures() {
    let (rows, complaints) = rows(&[]);
    let found: BTreeSet<&str> = rows.iter().map(|row| text(row, "scenario")).collect();
    let mut expected = BTreeSet::from(SCENARIOS);
    for scenario in ["map-longterm", "map-process"] {
        if complaints.contains(&format!("SKIP: {scenario}: ")) {
            expected.remove(scenario);
        }
    }
    assert_eq!(found, expected, "what is missing says why:\n{complaints}");
    let mut cases = BTreeSet::new();
    for row in &rows {
        let keys: BTreeSet<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(KEYS), "{row}");
        assert!(cases.insert((text(row, "scenario"), text(row, "case"))), "twice: {row}");
        assert!(text(row, "case").split(',').all(|pair| pair.split('=').count() == 2), "{row}");
        check_figures(row);
    }
}

fn check_figures(row: &Value) {
    let quantiles = ["p10", "median", "p90", "p99"].map(|key| number(row, key));
    assert!(quantiles.is_sorted(), "{row}");
    let median = quantiles[1];
    // A difference of two times may come out below zero.
    assert!(median > 0.0 || ["fanout-marginal", "memory"].contains(&text(row, "scenario")), "{row}");
    assert!(row["valid"].is_boolean(), "{row}");
    if row["floor"].is_null() {
        let has_none = text(row, "unit") == "B" || text(row, "scenario") == "rewriting";
        assert!(row["ratio"].is_null() && has_none, "this has a floor: {row}");
    } else {
        let ratio = median / number(row, "floor");
        assert!(number(row, "floor") > 0.0 && (number(row, "ratio") - ratio).abs() < 1e-9, "{row}");
    }
}

#[test]
fn only_what_was_named_is_shown() {
    let (rows, _) = rows(&["fanout-marginal"]);
    let cases: BTreeSet<&str> = rows.iter().map(|row| text(row, "case")).collect();
    for domains in [4, 16, 64] {
        for frames in ["contiguous", "scattered"] {
            for formats in ["one", "mixed"] {
                let case = format!("domains={domains},frames={frames},formats={formats}");
                assert!(cases.contains(case.as_str()), "{case} is missing");
            }
        }
    }
    assert!(rows.iter().all(|row| text(row, "scenario") == "fanout-marginal"));
}

#[test]
fn files_are_mapped_with_both_sizes_of_leaves_and_ranges_in_both_ways() {
    let (rows, _) = rows(&["map-file", "vectored"]);
    let cases: BTreeSet<&str> = rows.iter().map(|row| text(row, "case")).collect();
    let expected = [
        "domains=1,leaf=4KiB",
        "domains=1,leaf=large",
        "path=socket,op=map,call=list,ranges=256",
        "path=socket,op=map,call=single,ranges=256",
        "path=socket,op=unmap,call=list,ranges=256",
        "path=socket,op=unmap,call=single,ranges=256",
    ];
    assert_eq!(cases, BTreeSet::from(expected));
}

#[test]
fn without_a_file_the_objects_are_all_that_standard_output_shows() {
    for json in [&["--json", "-"][..], &["--json"]] {
        let arguments = [&["map-file", "--size", "2MiB", "--rounds", "1"], json].concat();
        let output = bench(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows = parsed(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(rows.len(), 2, "{rows:?}");
    }
}

#[test]
fn a_size_that_cannot_be_measured_and_a_scenario_that_is_not_there_are_wrong_usage() {
    for arguments in [["--size", "4095"], ["--size", "1MiB"], ["--rounds", "0"], ["speed", "--size=2MiB"]] {
        let output = bench(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}
