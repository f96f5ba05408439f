//! `ioasd check-host`: what this host offers, a line for each feature, each found by using it.
//!
//! Run it as the user, and under the limits, that the agent will have. It changes nothing and always exits 0: what is
//! missing may not be wanted.
//!
//! Imports allowed: everything.

pub mod peer;
mod pins;
mod processes;
mod surroundings;

use std::fmt;
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::Exit;

/// The flags of `ioasd check-host`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct CheckHostArgs {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What was found out about one feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    feature: &'static str,
    available: bool,
    /// What was tried, and what came of it.
    found: String,
    /// What to do about it, if something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

impl Finding {
    fn yes(feature: &'static str, found: impl Into<String>) -> Self {
        Self { feature, available: true, found: found.into(), remedy: None }
    }

    fn no(feature: &'static str, found: impl Into<String>, remedy: &'static str) -> Self {
        Self { feature, available: false, found: found.into(), remedy: Some(remedy) }
    }

    /// What trying it came to.
    fn tried<E: fmt::Display>(
        feature: &'static str,
        outcome: Result<impl Into<String>, E>,
        remedy: &'static str,
    ) -> Self {
        match outcome {
            Ok(found) => Self::yes(feature, found),
            Err(error) => Self::no(feature, error.to_string(), remedy),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let available = if self.available { "yes" } else { "no" };
        write!(f, "{:<20} {available:<4} {}", self.feature, self.found)?;
        self.remedy.map_or(Ok(()), |remedy| write!(f, "\n{:25} -> {remedy}", ""))
    }
}

#[derive(Serialize)]
struct Report {
    features: Vec<Finding>,
}

/// Tries everything and prints it.
pub fn check_host(args: CheckHostArgs) -> Exit {
    let report = Report { features: findings() };
    let text = if args.json {
        serde_json::to_string_pretty(&report).unwrap_or_default()
    } else {
        report.features.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => Exit::Ok,
        Err(_) => Exit::Failed,
    }
}

fn findings() -> Vec<Finding> {
    let mut findings = pins::findings();
    findings.extend(surroundings::findings());
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_one_line_and_what_is_missing_a_remedy() {
        let findings = surroundings::findings();
        let mut names: Vec<_> = findings.iter().map(|finding| finding.feature).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), findings.len());
        for finding in findings {
            assert!(
                !finding.found.is_empty() && finding.available == finding.remedy.is_none(),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn a_finding_reads_as_a_line_and_its_remedy_as_another() {
        assert_eq!(Finding::yes("swap", "none").to_string(), "swap                 yes  none");
        let missing = Finding::no("VFIO", "no such file", "load vfio-pci").to_string();
        assert_eq!(
            missing,
            "VFIO                 no   no such file\n                          -> load vfio-pci"
        );
    }
}
