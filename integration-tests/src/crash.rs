//! What a process says of itself when it crashes in native code: the signal, the thread and where it stood.
//!
//! A worker holds two C libraries. A crash in one of them is rare, often without a second one, and leaves nothing behind but
//! its signal where nobody keeps core files.
#![allow(unsafe_code, reason = "a signal's handler cannot be set otherwise")]

use std::backtrace::Backtrace;
use std::ffi::c_int;
use std::fs;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::unistd::alarm;

/// How many seconds the telling may take: it allocates, which a thread that crashed inside the allocator cannot.
const TELLING_SECONDS_MAX: u32 = 10;

/// From now on, a crash of this process is told on standard error, before it dies of it as it would have.
///
/// # Panics
/// If the kernel refuses a handler.
pub fn tell_of_crashes() {
    // The handler is for the first signal only: the next one is the process's end. It uses the stack of the thread, because
    // the one that Rust sets aside is too small; so a stack that overflows is not told of.
    let action = SigAction::new(SigHandler::Handler(tell), SaFlags::SA_RESETHAND, SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE] {
        // SAFETY: the handler does not come back: it ends the process, so nothing that it breaks is used any more. It may
        // get stuck, for which there is an alarm.
        unsafe { sigaction(signal, &action) }.expect("the signal is one that can be handled");
    }
}

extern "C" fn tell(signal: c_int) {
    alarm::set(TELLING_SECONDS_MAX);
    let signal = Signal::try_from(signal).unwrap_or(Signal::SIGKILL);
    let thread = fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    eprintln!("crashed: {signal} in thread '{}'\n{}", thread.trim_end(), Backtrace::force_capture());
    // Held back until the handler returns, and deadly then, whether or not the fault would happen again.
    let _ = raise(signal);
}
