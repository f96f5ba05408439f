//! A thread that the C library does not know of.
//!
//! It shares everything with the program, and uses nothing of the C library, which would take it for the thread that
//! started it: no errno, no thread-local variable. It needs nobody to wait for it, and gives back its stack when it ends.
//!
//! Imports allowed: sys, `libc`.

#![expect(unsafe_code, reason = "a thread begins and ends in machine code")]

use std::arch::asm;

use crate::sys::{self, Errno};

/// Bytes of its stack, the lowest page of which is no memory.
const STACK: usize = 128 << 10;
/// Bytes of a page.
const PAGE: usize = 4096;

const FLAGS: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

/// What lies at the upper end of the stack.
#[repr(C, align(16))]
struct Start<T> {
    run: extern "C" fn(&T),
    argument: T,
    stack: usize,
}

/// Runs `run` in a thread of its own, with every signal blocked.
///
/// # Errors
/// If there is no memory for a stack, or the kernel makes no thread.
pub(crate) fn start<T: Copy + Send + 'static>(run: extern "C" fn(&T), argument: T) -> Result<(), Errno> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE).cast_unsigned() as usize;
    let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE).cast_unsigned() as usize;
    let stack = sys::call_long(libc::SYS_mmap, [0, STACK, protection, kind, usize::MAX, 0])?;
    let started = sys::call(libc::SYS_mprotect, [stack, PAGE, 0, 0]).and_then(|_| {
        let top = stack + STACK - size_of::<Start<T>>();
        let place = std::ptr::with_exposed_provenance_mut::<Start<T>>(top & !15);
        // SAFETY: 1. the place lies in the new mapping, aligned and with room; 2. nobody else knows the mapping.
        unsafe { place.write(Start { run, argument, stack }) };
        sys::without_signals(|| clone(top & !15, begin::<T>))
    });
    if started.is_err() {
        let given_back = sys::call(libc::SYS_munmap, [stack, STACK, 0, 0]);
        debug_assert!(given_back.is_ok(), "a stack is left");
    }
    started
}

extern "C" fn begin<T>(start: &Start<T>) -> ! {
    (start.run)(&start.argument);
    end(start.stack)
}

/// Makes the thread. It begins with `begin`, whose argument is what lies at `top`, and its stack grows down from there.
fn clone<T>(top: usize, begin: extern "C" fn(&Start<T>) -> !) -> Result<(), Errno> {
    let result: isize;
    // SAFETY: 1. the new thread has a stack of its own, and goes straight to `begin`, which does not return; 2. in this
    // thread the call changes only the registers that are named.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone => result,
            in("rdi") FLAGS as isize,
            in("rsi") top,
            in("rdx") 0,
            in("r10") 0,
            in("r8") 0,
            in("r12") top,
            in("r13") begin,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    sys::outcome(result).map(|_| ())
}

/// Ends the thread; its stack is gone before it is.
fn end(stack: usize) -> ! {
    // SAFETY: nothing is on the stack that is used again: between the two calls there is no memory access.
    unsafe {
        asm!(
            "syscall",
            "mov eax, {exit}",
            "xor edi, edi",
            "syscall",
            "ud2",
            exit = const libc::SYS_exit,
            in("rax") libc::SYS_munmap,
            in("rdi") stack,
            in("rsi") STACK,
            options(noreturn),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    static SUM: AtomicU64 = AtomicU64::new(0);

    extern "C" fn add(number: &u64) {
        SUM.fetch_add(*number, Ordering::Release);
    }

    #[test]
    fn threads_run_and_end() {
        for number in 1..=100 {
            start(add, number).unwrap();
        }
        while SUM.load(Ordering::Acquire) != 5050 {
            std::thread::yield_now();
        }
    }
}
