//! Ctrl-C while a command starts: ends the process with the command line's exit code and line, where CPython's handler
//! would raise in whatever module is being imported. `strata.cli.main.run` puts CPython's in once it can catch that.

use crate::report::INTERRUPTED;

/// For the commands; `strata python` does what every python3 does. A SIGINT that is ignored (a background job) stays so.
pub fn end_quietly() {
    // SAFETY: before any thread is started; the handler makes async-signal-safe calls alone.
    unsafe {
        if libc::signal(libc::SIGINT, end as *const () as libc::sighandler_t) == libc::SIG_IGN {
            libc::signal(libc::SIGINT, libc::SIG_IGN);
        }
    }
}

extern "C" fn end(_: libc::c_int) {
    // As `strata.cli` says it: the terminal has just shown ^C.
    const SAID: &[u8] = b"\nerror: interrupted\n";
    // SAFETY: write and _exit are async-signal-safe (signal-safety(7)), and the text is static.
    unsafe {
        libc::write(libc::STDERR_FILENO, SAID.as_ptr().cast(), SAID.len());
        libc::_exit(INTERRUPTED);
    }
}
