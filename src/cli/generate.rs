//! `ioasd generate FOLDER`: the manual pages and shell completions, made from the definition of the command line. For
//! those who build packages.
//!
//! Imports allowed: cli, `clap_complete`, `clap_mangen`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_complete::aot::generate_to;

use super::{Cli, Exit, with_causes};

/// The shells that have completions.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// The flags of `ioasd generate`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct GenerateArgs {
    /// Where to put the files; made if it is not there.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// Why the files could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write into {}", folder.display())]
struct GenerateError {
    folder: PathBuf,
    #[source]
    source: io::Error,
}

/// Writes the files.
#[must_use]
pub fn run(args: &GenerateArgs) -> Exit {
    match generate(&args.folder) {
        Ok(()) => Exit::Ok,
        Err(source) => {
            let error = GenerateError { folder: args.folder.clone(), source };
            eprintln!("ioasd: {}", with_causes(&error));
            Exit::Failed
        }
    }
}

fn generate(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    for shell in SHELLS {
        generate_to(shell, &mut command, "ioasd", folder)?;
    }
    clap_mangen::generate_to(command, folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_has_a_page_and_every_shell_a_file() {
        let folder = tempfile::tempdir().unwrap();
        generate(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = read(&format!("ioasd-{}.1", command.get_name()));
            assert!(page.contains(".SH SYNOPSIS"), "{}: {page}", command.get_name());
        }
        assert!(read("ioasd.1").contains("ioasd\\-serve(1)"));
        for file in ["ioasd.bash", "ioasd.fish", "_ioasd"] {
            assert!(read(file).contains("serve"), "{file}");
            for command in Cli::command().find_subcommand("ctl").map(clap::Command::get_subcommands).unwrap()
            {
                let (name, about) = (command.get_name(), command.get_about().unwrap().to_string());
                // In bash a branch of its own, elsewhere beside what it is for, whose punctuation shells write in ways of
                // their own.
                let told = match file {
                    "ioasd.bash" => format!("ioasd__subcmd__ctl,{name})"),
                    _ => about.split([':', '\'', '[']).next().unwrap().to_owned(),
                };
                assert!(read(file).contains(&told), "{file}: {name}");
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let args = GenerateArgs { folder: "/proc/nowhere".into() };
        assert_eq!(run(&args), Exit::Failed);
    }
}
