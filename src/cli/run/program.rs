//! Finding a program as a shell does, and telling whether the dynamic linker will put a shim before it.
//!
//! Source of the layout: ELF-64 Object File Format, version 1.5, "ELF header" and "Program header table".
//!
//! Imports allowed: `std`, `rustix`.

use std::ffi::{OsStr, OsString};
use std::fs::{File, metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

/// Scripts whose interpreter is a script, at most.
const SCRIPTS: usize = 4;
/// Bytes at the start of a file that are looked at: an ELF header, or the first line of a script.
const START: usize = 256;
/// Program headers that are looked at at most.
const HEADERS_MAX: u16 = 256;
/// `e_ident`: 64-bit, little-endian.
const ELF64_LE: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
/// `e_machine` of x86-64.
const X86_64: u16 = 62;
/// `p_type` of the header that names the dynamic linker.
const PT_INTERP: u32 = 3;
/// Bytes of a program header.
const PROGRAM_HEADER: u64 = 56;
/// Mode bits of a program that runs with the rights of its owner or group.
const SET_ID: u32 = 0o6000;

/// Why a program cannot be run with a shim.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("no program was named")]
    None,
    #[error("there is no program {}", .0.display())]
    NotFound(OsString),
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} is statically linked: nothing can be loaded before it. Link it dynamically, or use the client library",
        .0.display()
    )]
    Static(PathBuf),
    #[error("{} is not a program for 64-bit x86: the shim cannot be loaded into it", .0.display())]
    Foreign(PathBuf),
    #[error(
        "{} runs with the rights of its owner, which forbids loading a shim: run it as that user instead",
        .0.display()
    )]
    SetId(PathBuf),
}

/// A program that a shim can be put before.
#[derive(Debug)]
pub(super) struct Program(PathBuf);

impl Program {
    /// The program that a shell would run as `name`.
    pub(super) fn find(name: &OsStr) -> Result<Self, ProgramError> {
        let search = std::env::var_os("PATH").unwrap_or_default();
        let path = locate(name, &search).ok_or_else(|| ProgramError::NotFound(name.to_owned()))?;
        require_shim_possible(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

fn locate(name: &OsStr, search: &OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| access(path, Access::EXEC_OK).is_ok() && path.is_file();
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(runs);
    }
    std::env::split_paths(search).map(|folder| folder.join(name)).find(runs)
}

fn require_shim_possible(program: &Path) -> Result<(), ProgramError> {
    let mut path = program.to_owned();
    for _ in 0..SCRIPTS {
        match look(&path).map_err(|source| ProgramError::Unreadable { path: path.clone(), source })? {
            Kind::Dynamic => return Ok(()),
            Kind::Static => return Err(ProgramError::Static(path)),
            Kind::Foreign => return Err(ProgramError::Foreign(path)),
            Kind::SetId => return Err(ProgramError::SetId(path)),
            Kind::Script(interpreter) => path = interpreter,
        }
    }
    Ok(())
}

/// What a file is to the kernel.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Dynamic,
    Static,
    Foreign,
    SetId,
    Script(PathBuf),
}

fn look(path: &Path) -> io::Result<Kind> {
    let about = metadata(path)?;
    if about.mode() & SET_ID != 0 && about.uid() != geteuid().as_raw() {
        return Ok(Kind::SetId);
    }
    let file = File::open(path)?;
    let mut start = [0; START];
    let len = file.read_at(&mut start, 0)?;
    let start = start.get(..len).unwrap_or_default();
    match start.strip_prefix(b"#!") {
        Some(line) => Ok(interpreter(line).map_or(Kind::Foreign, Kind::Script)),
        None if !start.starts_with(&ELF64_LE) || half(start, 18) != Some(X86_64) => Ok(Kind::Foreign),
        None => linking(&file, start),
    }
}

fn interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
    let path = line.split(u8::is_ascii_whitespace).next().filter(|path| !path.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// A program that names a dynamic linker is linked dynamically.
fn linking(file: &File, start: &[u8]) -> io::Result<Kind> {
    let table = start.get(32..40).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    for header in 0..u64::from(half(start, 56).unwrap_or(0).min(HEADERS_MAX)) {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, table.saturating_add(header * PROGRAM_HEADER))?;
        if u32::from_le_bytes(kind) == PT_INTERP {
            return Ok(Kind::Dynamic);
        }
    }
    Ok(Kind::Static)
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|half| u16::from_le_bytes(*half))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(folder: &tempfile::TempDir, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = folder.path().join(name);
        write(&path, bytes).unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A 64-bit program with one program header.
    fn elf(machine: u16, header: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(&ELF64_LE);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&header.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_is_known_by_its_headers() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |bytes: &[u8]| look(&file(&folder, "program", bytes, 0o755)).unwrap();
        assert_eq!(kind(&elf(X86_64, PT_INTERP)), Kind::Dynamic);
        assert_eq!(kind(&elf(X86_64, 1)), Kind::Static);
        assert_eq!(kind(&elf(40, PT_INTERP)), Kind::Foreign);
        assert_eq!(kind(b"nothing"), Kind::Foreign);
        assert_eq!(kind(b"#! /bin/sh -e\n"), Kind::Script("/bin/sh".into()));
        assert_eq!(kind(b"#!/usr/bin/env"), Kind::Script("/usr/bin/env".into()));
        assert_eq!(kind(b"#!\n/bin/sh"), Kind::Foreign);
    }

    #[test]
    fn a_truncated_program_is_an_error_and_nothing_worse() {
        let folder = tempfile::tempdir().unwrap();
        let whole = elf(X86_64, PT_INTERP);
        for len in 0..whole.len() {
            let kind = look(&file(&folder, "program", &whole[..len], 0o755));
            assert!(!matches!(kind, Ok(Kind::Dynamic)) || len >= 68, "{len} bytes");
        }
    }

    #[test]
    fn names_are_looked_for_as_a_shell_does() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        file(&first, "tool", b"", 0o644);
        let tool = file(&second, "tool", b"", 0o755);
        let search = std::env::join_paths([first.path(), second.path()]).unwrap();
        assert_eq!(locate("tool".as_ref(), &search), Some(tool.clone()));
        assert_eq!(locate(tool.as_os_str(), "".as_ref()), Some(tool));
        assert_eq!(locate("missing".as_ref(), &search), None);
        assert_eq!(locate(second.path().as_os_str(), &search), None, "a folder is no program");
    }

    #[test]
    fn this_test_is_dynamic_and_a_script_is_what_its_interpreter_is() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        assert!(require_shim_possible(&own).is_ok());
        let fixed = file(&folder, "fixed", &elf(X86_64, 1), 0o755);
        let script = file(&folder, "script", format!("#!{}\n", fixed.display()).as_bytes(), 0o755);
        assert!(matches!(require_shim_possible(&script), Err(ProgramError::Static(path)) if path == fixed));
    }
}
