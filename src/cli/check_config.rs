//! `ioasd check-config`: everything that is wrong with a configuration, or what it comes to.
//!
//! Imports allowed: config, reload.

use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::path::PathBuf;

use clap::Args;

use super::reload::checked_token;
use super::{Exit, with_causes};
use crate::config::effective::{Effective, Setting, effective};
use crate::config::load::Flags;
use crate::config::place::Environment;

/// The flags of `ioasd check-config`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CheckConfigArgs {
    /// Configuration file [default: the one that `ioasd serve` would read].
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Show every setting with where its value comes from.
    #[arg(long)]
    pub effective: bool,
}

/// Checks a configuration.
pub fn check_config(args: &CheckConfigArgs) -> Exit {
    let flags = Flags { config: args.file.clone(), ..Flags::default() };
    match checked(&flags, &Environment::of_process()) {
        Ok(effective) if args.effective => said(&shown(&effective.settings)),
        Ok(_) => said("ok\n"),
        Err(error) => {
            eprintln!("{error}");
            Exit::Failed
        }
    }
}

/// What the agent checks before it serves, too: as whoever asks, who has to be able to read the token.
fn checked(flags: &Flags, environment: &Environment) -> Result<Effective, String> {
    let effective = effective(flags, environment).map_err(|error| with_causes(&error))?;
    checked_token(&effective, environment)?;
    Ok(effective)
}

fn said(text: &str) -> Exit {
    match stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::Ok,
        Err(_) => Exit::Failed,
    }
}

/// The settings as a configuration file, the origin of each behind it.
fn shown(settings: &[Setting]) -> String {
    let line = |setting: &Setting| format!("{} = {}", setting.key, setting.value);
    let lines: Vec<String> = settings.iter().map(line).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let (mut text, mut section) = (String::new(), "");
    for (setting, line) in settings.iter().zip(&lines) {
        // Writing to a string cannot fail.
        if setting.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = &setting.section;
            writeln!(text, "{gap}{}", head(section)).unwrap_or_default();
        }
        let meaning = setting.meaning.as_ref().map(|meaning| format!(", here {meaning}")).unwrap_or_default();
        writeln!(text, "{line:<width$}  # {}{meaning}", setting.origin).unwrap_or_default();
    }
    text
}

/// How a section begins.
fn head(section: &str) -> String {
    if section.starts_with("tenant.") { "[[tenant]]".to_owned() } else { format!("[{section}]") }
}
