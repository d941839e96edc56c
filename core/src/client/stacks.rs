//! What the threads of this process are doing, told by a thread that is none of the interpreter's.
//!
//! Mostly the interpreter is asked, which takes its lock: then no thread runs that is looked at. Where a thread keeps that
//! lock, in C code that hangs or is long, Python's faulthandler reads the stacks without it. That is safe enough there and
//! only there: who has the lock is not in Python code, and everybody else waits for it. It is asked by a signal that this
//! thread sends to itself alone, so that no system call of another one is interrupted.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::options::OwnStacks;
use crate::error::{Doing, Result};

/// The interpreter passes its lock on every 5 ms, and after every call that waits: 14 threads that all want it, on two busy
/// cores, kept this one waiting for 0.8 s at most of 300 times. Too short it would be taken for kept.
const LOCK: Duration = Duration::from_secs(2);
/// Who has the lock needs milliseconds.
const WALK: Duration = Duration::from_secs(1);
/// The sidecar takes no more.
const LONGEST: usize = 64 << 10;
const OUTSIDE: &str = "(a thread holds the interpreter's lock: read from outside)\n";

/// Asks the interpreter; notes as soon as it has the lock.
pub type Inside = fn(has_lock: &AtomicBool) -> Answer;
type Answer = std::result::Result<String, String>;

/// Faulthandler, registered for a signal.
struct Outside {
    signal: i32,
    /// What it writes to.
    file: File,
}

/// One at a time in a process: they share the file.
static TURN: Mutex<()> = Mutex::new(());

/// `outside`: the signal that faulthandler is registered for and the file that it writes to, or why there is none.
pub fn own_stacks(inside: Inside, outside: std::result::Result<(i32, RawFd), String>) -> Result<OwnStacks> {
    let outside = match outside {
        Err(why) => Err(why),
        Ok((signal, fd)) => {
            // SAFETY: the caller has it open, and holds it open for the life of the process.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let file = fd.try_clone_to_owned().doing(|| "taking the file for stacks")?;
            Ok(Outside { signal, file: File::from(file) })
        }
    };
    let is_waiting = Arc::new(AtomicBool::new(false));
    Ok(OwnStacks(Arc::new(move || take(inside, &outside, &is_waiting))))
}

fn take(
    inside: Inside,
    outside: &std::result::Result<Outside, String>,
    is_waiting: &Arc<AtomicBool>,
) -> Answer {
    let _turn = TURN.try_lock_for(LOCK).ok_or("it is telling somebody else")?;
    // One that was asked before still waits for the lock.
    if !is_waiting.swap(true, Ordering::AcqRel)
        && let Some(answer) = ask(inside, is_waiting.clone())
    {
        return answer;
    }
    let outside = outside.as_ref().map_err(|why| {
        format!("a thread holds the interpreter's lock, in C code, and nothing else can tell ({why})")
    })?;
    outside.read()
}

/// None: the lock could not be had.
fn ask(inside: Inside, is_waiting: Arc<AtomicBool>) -> Option<Answer> {
    let (tell, told) = channel();
    let has_lock = Arc::new(AtomicBool::new(false));
    let noted = has_lock.clone();
    let work = move || {
        let answer = inside(&noted);
        is_waiting.store(false, Ordering::Release);
        // Nobody listens any more when the lock came too late.
        let _ = tell.send(answer);
    };
    if let Err(error) = std::thread::Builder::new().name("strata-stacks".into()).spawn(work) {
        return Some(Err(format!("no thread for it: {error}")));
    }
    let broke = || Some(Err("looking at the threads failed".to_owned()));
    match told.recv_timeout(LOCK) {
        Ok(answer) => return Some(answer),
        Err(RecvTimeoutError::Disconnected) => return broke(),
        Err(RecvTimeoutError::Timeout) if !has_lock.load(Ordering::Acquire) => return None,
        Err(RecvTimeoutError::Timeout) => {}
    }
    match told.recv_timeout(WALK) {
        Ok(answer) => Some(answer),
        Err(_) => broke(),
    }
}

impl Outside {
    fn read(&self) -> Answer {
        let failed = |error: std::io::Error| format!("reading what faulthandler wrote: {error}");
        if !is_handled(self.signal) {
            return Err(format!("somebody has taken signal {} from faulthandler", self.signal));
        }
        // Its descriptor is a copy of this one: they have one position.
        self.file.set_len(0).map_err(failed)?;
        (&self.file).seek(SeekFrom::Start(0)).map_err(failed)?;
        raise_here(self.signal).map_err(failed)?;
        let written = self.file.metadata().map_err(failed)?.len();
        let mut bytes = vec![0; (written as usize).min(LONGEST)];
        self.file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        match bytes.is_empty() {
            true => Err("faulthandler wrote nothing".to_owned()),
            false => Ok(format!("{OUTSIDE}{}", String::from_utf8_lossy(&bytes))),
        }
    }
}

/// A real-time signal that nobody in this process handles; the last ones are the least used.
pub fn free_signal() -> Option<i32> {
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(|signal| handler(*signal) == Some(libc::SIG_DFL))
}

fn is_handled(signal: i32) -> bool {
    handler(signal).is_some_and(|handler| handler != libc::SIG_DFL && handler != libc::SIG_IGN)
}

fn handler(signal: i32) -> Option<libc::sighandler_t> {
    // SAFETY: all zero is a valid value of this C struct.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is set; what is found is written to a struct of our own.
    let outcome = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut found) };
    (outcome == 0).then_some(found.sa_sigaction)
}

/// Has the signal handled by this thread, before it returns.
fn raise_here(signal: i32) -> std::io::Result<()> {
    let check = |code: i32| if code == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(code)) };
    // SAFETY: all zero is a valid value of this C struct.
    let (mut this, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    // SAFETY: the sets are our own; the mask is this thread's, and is put back.
    unsafe {
        libc::sigemptyset(&raw mut this);
        libc::sigaddset(&raw mut this, signal);
        check(libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const this, &raw mut before))?;
        let raised = check(libc::pthread_kill(libc::pthread_self(), signal));
        check(libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()))?;
        raised
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::AtomicI32;

    use super::*;

    static FD: AtomicI32 = AtomicI32::new(-1);
    /// Each keeps the turn for longer than the other would wait.
    static ALONE: Mutex<()> = Mutex::new(());

    extern "C" fn writes(_: i32) {
        // SAFETY: a write from a constant; what faulthandler's handler does, too.
        unsafe { libc::write(FD.load(Ordering::Relaxed), c"Thread 1".as_ptr().cast(), 8) };
    }

    fn never(_: &AtomicBool) -> Answer {
        std::thread::park();
        Err("woken".to_owned())
    }

    fn at_once(has_lock: &AtomicBool) -> Answer {
        has_lock.store(true, Ordering::Release);
        Ok("main".to_owned())
    }

    #[test]
    fn interpreter_is_asked_first_and_a_reason_told_where_nothing_else_can_tell() {
        let _alone = ALONE.lock();
        let told = own_stacks(at_once, Err("opted out".to_owned())).unwrap();
        assert_eq!((told.0)(), Ok("main".to_owned()));
        let stuck = own_stacks(never, Err("opted out".to_owned())).unwrap();
        for _ in 0..2 {
            assert!((stuck.0)().unwrap_err().contains("opted out"));
        }
    }

    #[test]
    fn a_lock_that_is_not_given_up_is_looked_past_as_often_as_asked() {
        let _alone = ALONE.lock();
        let memory: OwnedFd = rustix::fs::memfd_create("stacks", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        FD.store(memory.as_raw_fd(), Ordering::Relaxed);
        let signal = free_signal().unwrap();
        let stuck = own_stacks(never, Ok((signal, memory.as_raw_fd()))).unwrap();
        assert!((stuck.0)().unwrap_err().contains("taken signal"), "before anybody handles it");
        // SAFETY: the handler only writes.
        unsafe { libc::signal(signal, writes as *const () as libc::sighandler_t) };
        assert_ne!(free_signal(), Some(signal));
        for _ in 0..2 {
            assert_eq!((stuck.0)(), Ok(format!("{OUTSIDE}Thread 1")));
        }
    }
}
