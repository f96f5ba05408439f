//! The system calls of the shim, and nothing else: no error of theirs panics, none allocates, none is a point at which a
//! thread can be cancelled. With that the library needs nothing but the C library, and loads in a moment.
//!
//! Imports allowed: `libc`.

#![expect(unsafe_code, reason = "system calls take addresses and numbers")]

use std::arch::asm;
use std::ffi::{CStr, c_int};
use std::mem::{ManuallyDrop, zeroed};

use libc::{c_long, sa_family_t, sockaddr_un};

/// An errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(c_int);

macro_rules! errnos {
    ($($name:ident = $number:ident),* $(,)?) => { $(
        pub(crate) const $name: Self = Self(libc::$number);
    )* };
}

impl Errno {
    errnos! {
        ACCESS = EACCES, ADDRINUSE = EADDRINUSE, BADF = EBADF, CONNREFUSED = ECONNREFUSED,
        CONNRESET = ECONNRESET, FAULT = EFAULT, INTR = EINTR, INVAL = EINVAL, MFILE = EMFILE,
        NAMETOOLONG = ENAMETOOLONG, NFILE = ENFILE, NODEV = ENODEV, NOENT = ENOENT, NOMEM = ENOMEM,
        NOSYS = ENOSYS, NOTCONN = ENOTCONN, NOTSOCK = ENOTSOCK, NOTTY = ENOTTY, OPNOTSUPP = EOPNOTSUPP, PERM = EPERM, PIPE = EPIPE,
        TOOBIG = E2BIG,
    }

    /// The errno with this number.
    pub(crate) const fn from_raw_os_error(number: c_int) -> Self {
        Self(number)
    }

    /// Its number.
    pub(crate) const fn raw_os_error(self) -> c_int {
        self.0
    }
}

/// A descriptor of ours; closed when dropped.
#[derive(Debug)]
pub(crate) struct Fd(c_int);

impl Fd {
    /// Takes over `number`, which nobody else closes.
    pub(crate) const fn owning(number: c_int) -> Self {
        Self(number)
    }

    /// Its number.
    pub(crate) const fn number(&self) -> c_int {
        self.0
    }

    /// Its number, which is not closed any more.
    pub(crate) fn into_number(self) -> c_int {
        ManuallyDrop::new(self).0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let closed = call(libc::SYS_close, [word(self.0), 0, 0, 0]);
        debug_assert!(closed.is_ok(), "a descriptor was closed twice");
    }
}

/// What the kernel says of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Device and inode.
    pub(crate) file: (u64, u64),
    mode: u32,
}

impl Stat {
    /// Whether it is a socket.
    pub(crate) const fn is_socket(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFSOCK
    }
}

/// An abstract socket name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name {
    address: sockaddr_un,
    len: usize,
}

/// Bytes of an address before its path.
const FAMILY: usize = size_of::<sa_family_t>();

const fn word(number: c_int) -> usize {
    number.cast_unsigned() as usize
}

fn address<T: ?Sized>(value: &T) -> usize {
    (&raw const *value).cast::<u8>().expose_provenance()
}

fn address_mut<T: ?Sized>(value: &mut T) -> usize {
    (&raw mut *value).cast::<u8>().expose_provenance()
}

/// The result of a system call that libc made.
pub(crate) fn result(returned: c_long) -> Result<usize, Errno> {
    // SAFETY: libc gives the address of this thread's errno.
    usize::try_from(returned).map_err(|_| Errno(unsafe { *libc::__errno_location() }))
}

/// A system call with up to four arguments, again if a signal interrupts it. Addresses must be of memory that is ours for
/// what the call does with it, or of the program's, which the kernel checks.
pub(crate) fn call(number: c_long, [first, second, third, fourth]: [usize; 4]) -> Result<usize, Errno> {
    call_long(number, [first, second, third, fourth, 0, 0])
}

/// The same with up to six.
pub(crate) fn call_long(number: c_long, arguments: [usize; 6]) -> Result<usize, Errno> {
    loop {
        match enter(number, arguments) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Not by way of the C library, whose errno is that of a thread it knows.
fn enter(number: c_long, [first, second, third, fourth, fifth, sixth]: [usize; 6]) -> Result<usize, Errno> {
    let returned: isize;
    // SAFETY: as the caller's of `call`; the kernel changes no other register.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => returned,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    outcome(returned)
}

/// What a system call returned: a number, or minus an errno.
pub(crate) fn outcome(returned: isize) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| Errno(c_int::try_from(-returned).unwrap_or(libc::EIO)))
}

/// The errno of this thread.
pub(crate) fn errno() -> c_int {
    // SAFETY: libc gives the address of this thread's errno.
    unsafe { *libc::__errno_location() }
}

/// Sets the errno of this thread.
pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: libc gives the address of this thread's errno.
    unsafe { *libc::__errno_location() = errno };
}

/// A new `SOCK_SEQPACKET` socket with these flags.
pub(crate) fn socket(flags: c_int) -> Result<Fd, Errno> {
    let kind = libc::SOCK_SEQPACKET | flags;
    call(libc::SYS_socket, [word(libc::AF_UNIX), word(kind), 0, 0]).map(new_fd)
}

/// A descriptor that the kernel has just made.
pub(crate) fn new_fd(number: usize) -> Fd {
    Fd(c_int::try_from(number).unwrap_or(-1))
}

/// An address of `parts`, one behind the other; `None` if that is too long for one.
fn socket_address(parts: [&[u8]; 2]) -> Option<Name> {
    // SAFETY: an address of zeros is one without family and path.
    let mut name = Name { address: unsafe { zeroed() }, len: FAMILY };
    name.address.sun_family = sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
    let mut room = name.address.sun_path.iter_mut();
    for byte in parts.into_iter().flatten() {
        *room.next()? = byte.cast_signed();
        name.len += 1;
    }
    Some(name)
}

/// Gives a socket an abstract name.
pub(crate) fn bind_abstract(socket: &Fd, name: &[u8]) -> Result<(), Errno> {
    let name = socket_address([b"\0", name]).ok_or(Errno::NAMETOOLONG)?;
    call(libc::SYS_bind, [word(socket.0), address(&name.address), name.len, 0]).map(|_| ())
}

/// Connects a socket to whoever listens at `path`.
pub(crate) fn connect(socket: &Fd, path: &[u8]) -> Result<(), Errno> {
    let place = socket_address([path, b"\0"]).ok_or(Errno::NAMETOOLONG)?;
    call(libc::SYS_connect, [word(socket.0), address(&place.address), place.len, 0]).map(|_| ())
}

/// The abstract name of a socket; `None` of anything else.
pub(crate) fn abstract_name(number: c_int) -> Option<Name> {
    // SAFETY: an address of zeros is one without family and path.
    let mut name = Name { address: unsafe { zeroed() }, len: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<sockaddr_un>()).ok()?;
    let places = [word(number), address_mut(&mut name.address), address_mut(&mut len), 0];
    call(libc::SYS_getsockname, places).ok()?;
    name.len = (len as usize).min(size_of::<sockaddr_un>());
    let unix = c_int::from(name.address.sun_family) == libc::AF_UNIX && name.len > FAMILY;
    (unix && name.address.sun_path.first() == Some(&0)).then_some(name)
}

impl Name {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.address
            .sun_path
            .iter()
            .take(self.len.saturating_sub(FAMILY))
            .skip(1)
            .map(|byte| byte.cast_unsigned())
    }

    /// The `N` bytes behind `prefix`; `None` if it begins otherwise, or ends before.
    pub(crate) fn behind<const N: usize>(&self, prefix: &[u8]) -> Option<[u8; N]> {
        let mut bytes = self.bytes();
        for wanted in prefix {
            if bytes.next()? != *wanted {
                return None;
            }
        }
        let mut found = [0; N];
        for place in &mut found {
            *place = bytes.next()?;
        }
        Some(found)
    }
}

/// `fstat`.
pub(crate) fn stat(number: c_int) -> Result<Stat, Errno> {
    // SAFETY: a record of zeros is one.
    let mut stat: libc::stat = unsafe { zeroed() };
    call(libc::SYS_fstat, [word(number), address_mut(&mut stat), 0, 0])?;
    Ok(Stat { file: (stat.st_dev, stat.st_ino), mode: stat.st_mode })
}

/// A copy of a descriptor with a number from `floor` on, closed on exec.
pub(crate) fn duplicate_from(fd: &Fd, floor: c_int) -> Result<Fd, Errno> {
    call(libc::SYS_fcntl, [word(fd.0), word(libc::F_DUPFD_CLOEXEC), word(floor), 0]).map(new_fd)
}

/// Lets a descriptor survive exec.
pub(crate) fn keep_on_exec(number: c_int) -> Result<(), Errno> {
    call(libc::SYS_fcntl, [word(number), word(libc::F_SETFD), 0, 0]).map(|_| ())
}

/// How a descriptor is open.
pub(crate) fn open_flags(number: c_int) -> Result<c_int, Errno> {
    let flags = call(libc::SYS_fcntl, [word(number), word(libc::F_GETFL), 0, 0])?;
    Ok(c_int::try_from(flags).unwrap_or_default())
}

/// The numbers that descriptors of this process may have: those below.
pub(crate) fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let what = libc::RLIMIT_NOFILE as usize;
    match call(libc::SYS_prlimit64, [0, what, 0, address_mut(&mut limit)]) {
        Ok(_) => limit.rlim_cur,
        Err(_) => 0,
    }
}

/// Opens a file, closed on exec.
pub(crate) fn open(path: &CStr, flags: c_int) -> Result<Fd, Errno> {
    let place = path.as_ptr().expose_provenance();
    call(libc::SYS_openat, [word(libc::AT_FDCWD), place, word(flags | libc::O_CLOEXEC), 0]).map(new_fd)
}

/// Reads from a file.
pub(crate) fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    call(libc::SYS_read, [word(fd.0), address_mut(buffer), buffer.len(), 0])
}

/// Receives from a socket, not interrupted.
pub(crate) fn receive(number: c_int, buffer: &mut [u8]) -> Result<usize, Errno> {
    call_long(libc::SYS_recvfrom, [word(number), address_mut(buffer), buffer.len(), 0, 0, 0])
}

/// Sends a message.
pub(crate) fn send(number: c_int, message: &[u8]) -> Result<(), Errno> {
    let flags = word(libc::MSG_NOSIGNAL);
    call_long(libc::SYS_sendto, [word(number), address(message), message.len(), flags, 0, 0]).map(|_| ())
}

/// Closes a number, whatever it means.
pub(crate) fn close(number: c_int) {
    // It may have been closed by the program.
    call(libc::SYS_close, [word(number), 0, 0, 0]).ok();
}

/// Waits so many nanoseconds.
pub(crate) fn sleep(nanoseconds: i64) {
    let time = [0, nanoseconds];
    call(libc::SYS_nanosleep, [address(&time), 0, 0, 0]).ok();
}

/// Runs with every signal blocked.
pub(crate) fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    let set = libc::SIG_SETMASK.cast_unsigned() as usize;
    let (all, mut before) = (u64::MAX, 0_u64);
    let blocked =
        call(libc::SYS_rt_sigprocmask, [set, address(&all), address_mut(&mut before), size_of::<u64>()]);
    let done = run();
    if blocked.is_ok() {
        call(libc::SYS_rt_sigprocmask, [set, address(&before), 0, size_of::<u64>()]).ok();
    }
    done
}

/// Lets the process that a socket is connected to look into this one, where the host asks for that (Yama).
pub(crate) fn let_trace(socket: c_int) {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or_default();
    let what = [word(socket), word(libc::SOL_SOCKET), word(libc::SO_PEERCRED)];
    let [socket, level, option] = what;
    let places = [socket, level, option, address_mut(&mut peer), address_mut(&mut len), 0];
    if call_long(libc::SYS_getsockopt, places).is_ok() && peer.pid > 0 {
        // Hosts without Yama know no such thing.
        call(libc::SYS_prctl, [word(libc::PR_SET_PTRACER), word(peer.pid), 0, 0]).ok();
    }
}

/// Two connected sockets.
pub(crate) fn socket_pair() -> Result<(Fd, Fd), Errno> {
    let mut ends: [c_int; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    call(libc::SYS_socketpair, [word(libc::AF_UNIX), word(kind), 0, address_mut(&mut ends)])?;
    let [one, other] = ends;
    Ok((Fd(one), Fd(other)))
}

/// A pipe: where to read, where to write.
pub(crate) fn pipe() -> Result<(Fd, Fd), Errno> {
    let mut ends: [c_int; 2] = [-1; 2];
    call(libc::SYS_pipe2, [address_mut(&mut ends), word(libc::O_CLOEXEC), 0, 0])?;
    let [reader, writer] = ends;
    Ok((Fd(reader), Fd(writer)))
}

/// This process.
pub(crate) fn process() -> c_int {
    call(libc::SYS_getpid, [0; 4]).ok().and_then(|pid| c_int::try_from(pid).ok()).unwrap_or_default()
}

/// Whether the program has the rights of root.
pub(crate) fn is_root() -> bool {
    call(libc::SYS_geteuid, [0; 4]) == Ok(0)
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    call(libc::SYS_getrandom, [address_mut(&mut bytes), N, 0, 0])?;
    Ok(bytes)
}

/// Writes parts to standard error, one behind the other; nothing happens if it is closed.
pub(crate) fn say(parts: &[&[u8]]) {
    for part in parts {
        let said = call(libc::SYS_write, [word(libc::STDERR_FILENO), address(*part), part.len(), 0]);
        if said.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_again_and_only_whole() {
        let own = socket(libc::SOCK_CLOEXEC).unwrap();
        assert!(abstract_name(own.number()).is_none(), "it has none yet");
        let name = [b"ioasd/test/".as_slice(), &random::<8>().unwrap()].concat();
        bind_abstract(&own, &name).unwrap();
        let found = abstract_name(own.number()).unwrap();
        assert_eq!(found.bytes().collect::<Vec<_>>(), name);
        assert_eq!(found.behind::<8>(b"ioasd/test/").unwrap(), name[11..]);
        assert_eq!(found.behind::<9>(b"ioasd/test/"), None);
        assert_eq!(found.behind::<1>(b"ioasd/other"), None);
        let (reader, _writer) = pipe().unwrap();
        assert!(abstract_name(reader.number()).is_none() && abstract_name(-1).is_none());
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let own = socket(libc::SOCK_CLOEXEC).unwrap();
        assert_eq!(connect(&own, &[b'a'; 108]), Err(Errno::NAMETOOLONG));
        assert_eq!(connect(&own, b"/nowhere/at/all"), Err(Errno::NOENT));
    }

    #[test]
    fn a_descriptor_is_what_it_is_and_gets_a_high_number() {
        let own = socket(libc::SOCK_CLOEXEC).unwrap();
        let high = duplicate_from(&own, 500).unwrap();
        assert!(high.number() >= 500);
        assert_eq!(stat(high.number()), stat(own.number()));
        assert!(stat(own.number()).unwrap().is_socket());
        let number = own.into_number();
        drop(Fd::owning(number));
        assert_eq!(stat(number).map(Stat::is_socket).ok().filter(|socket| *socket), None);
        assert!(descriptor_limit() > 2);
        assert_eq!(process().cast_unsigned(), std::process::id());
    }
}
