//! A trainer's life line: a word in a small file beside the arenas, which the kernel marks when the trainer's process ends,
//! before it frees the process's memory. To free 2 GiB takes 140 ms, in which neither a pidfd nor a socket says a word.
//!
//! The word is a robust futex (Linux, Documentation/locking/robust-futexes.rst): a thread of the trainer tells the kernel
//! that it holds it, and sleeps. The sidecar waits for the word to change. Both know the word by its address, and read and
//! write it in the file: a mapping of one that was cut short must not be touched.
//!
//! A mark says that no line of the trainer's program will run again: it has ended, or become another one by exec. It is no
//! proof that nothing writes to its arena any more: a system call of another thread may still be at it. That is the
//! pidfd's to say.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;

pub use super::progress::Spent;
use super::progress::{self, Progress};
use crate::error::{Doing, Result};
use crate::ids::Step;
use crate::proto::v1::RankPhase;

const BYTES: usize = 4096;
/// Where the rank's progress line lies: a cache line apart from the word.
const PROGRESS: u64 = 64;
/// Where the times lie that it has spent: another line, which other threads of the rank write.
const SPENT: u64 = 128;
/// A watcher that was told to stop just before it fell asleep sees it by then.
const LOOK: Duration = Duration::from_secs(1);
/// The stack of a thread that does nothing but wait.
const STACK: usize = 64 << 10;

/// Makes the file of a life line that nobody holds yet, for trainers of `uid`. Follows no link.
pub fn create(path: &Path, uid: u32) -> Result<()> {
    let doing = || format!("making the life line {}", path.display());
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).doing(doing)?;
    if rustix::process::geteuid().as_raw() != uid {
        std::os::unix::fs::fchown(&file, Some(uid), None).doing(doing)?;
    }
    file.set_len(BYTES as u64).doing(doing)
}

/// The file, whose first word it is. Whoever maps it where, the kernel knows a futex by file and place.
struct Line {
    file: File,
    page: NonNull<u8>,
}

// SAFETY: nothing is read or written through the address, which is the kernel's to use.
unsafe impl Send for Line {}
// SAFETY: as above.
unsafe impl Sync for Line {}

impl Line {
    fn map(file: File, rights: ProtFlags) -> std::io::Result<Line> {
        // SAFETY: a mapping of its own at an address that the kernel picks.
        let page = unsafe { mmap(std::ptr::null_mut(), BYTES, rights, MapFlags::SHARED, &file, 0) }?;
        Ok(Line { file, page: NonNull::new(page.cast()).expect("the kernel maps nothing at 0") })
    }

    /// For system calls alone.
    fn futex(&self) -> &AtomicU32 {
        // SAFETY: aligned, inside the mapping, which lives as long as `self`.
        unsafe { self.page.cast::<AtomicU32>().as_ref() }
    }

    fn word(&self) -> std::io::Result<u32> {
        let mut word = [0; 4];
        self.file.read_exact_at(&mut word, 0)?;
        Ok(u32::from_ne_bytes(word))
    }

    fn set(&self, word: u32) -> std::io::Result<()> {
        self.file.write_all_at(&word.to_ne_bytes(), 0)
    }

    fn wake(&self) {
        // Fails where the file was cut short: then nobody can be waiting there.
        let _ = futex::wake(self.futex(), futex::Flags::empty(), i32::MAX as u32);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; nobody has a pointer into it any more.
        if let Err(errno) = unsafe { munmap(self.page.as_ptr().cast(), BYTES) } {
            tracing::error!(%errno, "unmapping a life line");
        }
    }
}

/// The trainer's end: held until it is dropped, or the process ends. A forked child does not hold it.
pub struct LifeLine {
    line: Arc<Line>,
    step: AtomicU64,
    spent: Mutex<Spent>,
    phase: AtomicI32,
    _held: Sender<()>,
}

impl LifeLine {
    /// Fails where the file, or the thread that holds it, can't be had; a kernel that refuses robust futexes is logged.
    pub fn hold(path: &Path) -> Result<LifeLine> {
        let doing = || format!("holding the life line {}", path.display());
        let file = File::options().read(true).write(true).open(path).doing(doing)?;
        let line = Arc::new(Line::map(file, ProtFlags::READ | ProtFlags::WRITE).doing(doing)?);
        let (held, until) = channel();
        let holding = line.clone();
        let work = move || {
            if let Err(error) = robust::hold(&holding, &until) {
                tracing::warn!("holding a life line, so that this process's end is noticed later: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("strata-alive".into()).stack_size(STACK);
        thread.spawn(work).doing(doing)?;
        let (step, phase) = (AtomicU64::new(0), AtomicI32::new(0));
        Ok(LifeLine { line, step, phase, spent: Mutex::default(), _held: held })
    }

    /// Adds to what this rank has spent.
    pub fn spend(&self, more: Spent) {
        let mut spent = self.spent.lock();
        *spent = *spent + more;
        // To memory, like its progress.
        let _ = self.line.file.write_all_at(&progress::encode_spent(*spent), SPENT);
    }

    /// Says where this rank is: one small write, about a microsecond. None: at the step that it named last.
    pub fn set_progress(&self, step: Option<Step>, phase: RankPhase) {
        if let Some(step) = step {
            self.step.store(step.0, Ordering::Relaxed);
        }
        let step = Step(self.step.load(Ordering::Relaxed));
        self.phase.store(phase.into(), Ordering::Relaxed);
        // To memory: it fails where somebody has cut the file short, and then there is nobody to tell.
        let _ = self.line.file.write_all_at(&progress::encode(step, phase), PROGRESS);
    }
}

impl LifeLine {
    /// That it named last.
    pub fn phase(&self) -> RankPhase {
        self.phase.load(Ordering::Relaxed).try_into().unwrap_or_default()
    }
}

/// What the kernel knows of the locks that a thread holds (`linux/futex.h`).
mod robust {
    use super::*;

    #[repr(C)]
    struct Entry {
        next: *const Entry,
    }

    #[repr(C)]
    struct Head {
        list: Entry,
        /// From an entry to its futex. There is one entry, so it may lie anywhere: here, where no other process writes.
        futex_offset: libc::c_long,
        pending: *const Entry,
    }

    /// Returns when the other end of `until` is gone; the calling thread uses no other robust lock.
    pub fn hold(line: &Line, until: &Receiver<()>) -> std::io::Result<()> {
        let mut entry = Entry { next: std::ptr::null() };
        let futex_offset = line.page.as_ptr() as libc::c_long - (&raw const entry) as libc::c_long;
        let mut head =
            Head { list: Entry { next: &raw const entry }, futex_offset, pending: std::ptr::null() };
        entry.next = &raw const head.list;
        head.list.next = &raw const entry;
        tell(&raw const head)?;
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        // Whoever waits, now or later, is woken: the watcher never writes to the word.
        let held = line.set(thread | libc::FUTEX_WAITERS);
        if held.is_ok() {
            line.wake();
            // Nobody sends: it fails when the holder is dropped.
            let _ = until.recv();
        }
        tell(std::ptr::null())?;
        held.and_then(|()| line.set(0))
    }

    fn tell(head: *const Head) -> std::io::Result<()> {
        // SAFETY: the head and its entry lie on the stack of this thread, which lives until the kernel has gone through
        // the list at its end, or null has taken their place.
        match unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

/// The sidecar's end: watches until it is dropped.
pub struct LifeWatch(Arc<Watched>);

struct Watched {
    line: Line,
    stopped: AtomicBool,
}

impl LifeWatch {
    /// Calls `ended` on a thread of its own when the process that holds the life line, now or later, has ended.
    pub fn begin(path: &Path, ended: impl FnOnce() + Send + 'static) -> Result<LifeWatch> {
        let doing = || format!("watching the life line {}", path.display());
        // In a folder of the trainer's user, who may put anything in its place: a pipe would be waited for.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(flags).open(path).doing(doing)?;
        let line = Line::map(file, ProtFlags::READ).doing(doing)?;
        let watched = Arc::new(Watched { line, stopped: AtomicBool::new(false) });
        let watching = watched.clone();
        let work = move || {
            if watching.until_ended() {
                ended();
            }
        };
        std::thread::Builder::new().name("strata-life".into()).stack_size(STACK).spawn(work).doing(doing)?;
        Ok(LifeWatch(watched))
    }
}

impl LifeWatch {
    /// Where the rank says it is; None before it has said anything.
    pub fn progress(&self) -> Option<Progress> {
        let mut bytes = [0; progress::BYTES];
        self.0.line.file.read_exact_at(&mut bytes, PROGRESS).ok()?;
        progress::decode(&bytes)
    }

    /// What the rank has spent; nothing before it has said anything.
    pub fn spent(&self) -> Spent {
        let mut bytes = [0; progress::SPENT_BYTES];
        // Cut short it says nothing.
        let _ = self.0.line.file.read_exact_at(&mut bytes, SPENT);
        progress::decode_spent(&bytes)
    }
}

impl Watched {
    /// False: it was told to stop, or the trainer has made the file unusable.
    fn until_ended(&self) -> bool {
        while !self.stopped.load(Ordering::Acquire) {
            let Ok(word) = self.line.word() else { return false };
            if word & libc::FUTEX_OWNER_DIED != 0 {
                return true;
            }
            let look = futex::Timespec { tv_sec: LOOK.as_secs() as i64, tv_nsec: 0 };
            match futex::wait(self.line.futex(), futex::Flags::empty(), word, Some(&look)) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

impl Drop for LifeWatch {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.line.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(path: &Path) -> (LifeWatch, Receiver<()>) {
        let (tell, told) = channel();
        (LifeWatch::begin(path, move || tell.send(()).unwrap()).unwrap(), told)
    }

    fn line() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.life");
        create(&path, rustix::process::geteuid().as_raw()).unwrap();
        (folder, path)
    }

    /// A child of this process holds it, and dies as one that is killed does.
    fn held_by_a_child(path: &Path) -> libc::pid_t {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let line = Line::map(file, ProtFlags::READ | ProtFlags::WRITE).unwrap();
        let (_held, until) = channel();
        // SAFETY: the child maps nothing, allocates nothing and never returns from here.
        match unsafe { libc::fork() } {
            0 => {
                let _ = robust::hold(&line, &until);
                // SAFETY: the one way out of the child.
                unsafe { libc::_exit(1) }
            }
            child => child,
        }
    }

    fn kill(child: libc::pid_t) {
        // SAFETY: our own child, which is waited for once.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }

    #[test]
    fn end_of_the_process_that_holds_it_is_noticed_whenever_one_looks() {
        let (_folder, path) = line();
        let (watch, told) = watched(&path);
        let child = held_by_a_child(&path);
        while std::fs::read(&path).unwrap()[..4] == [0; 4] {
            std::thread::yield_now();
        }
        assert!(told.try_recv().is_err(), "it lives");
        kill(child);
        told.recv().unwrap();
        drop(watch);
        // By a sidecar that comes later, too.
        watched(&path).1.recv().unwrap();
    }

    #[test]
    fn progress_is_read_by_the_sidecar_and_keeps_its_step_over_phases() {
        let (_folder, path) = line();
        let (watch, _told) = watched(&path);
        assert_eq!(watch.progress(), None);
        let held = LifeLine::hold(&path).unwrap();
        for (step, phase) in [(Some(Step(7)), RankPhase::Training), (None, RankPhase::Restoring)] {
            held.set_progress(step, phase);
            let progress = watch.progress().unwrap();
            assert_eq!((progress.step, progress.phase), (Step(7), phase));
            assert_eq!(held.phase(), phase);
        }
        assert_eq!(watch.spent(), Spent::default());
        for _ in 0..2 {
            held.spend(Spent { saving: Duration::from_millis(3), restoring: Duration::from_secs(1) });
        }
        let spent = Spent { saving: Duration::from_millis(6), restoring: Duration::from_secs(2) };
        assert_eq!(watch.spent(), spent);
    }

    #[test]
    fn one_that_lets_go_has_not_died_and_a_watcher_that_stops_says_nothing() {
        let (_folder, path) = line();
        let (watch, told) = watched(&path);
        let is_held = || std::fs::read(&path).unwrap()[..4] != [0; 4];
        let held = LifeLine::hold(&path).unwrap();
        while !is_held() {
            std::thread::yield_now();
        }
        drop(held);
        while is_held() {
            std::thread::yield_now();
        }
        // Cut short it is no use, and harms nobody.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        let (cut, silent) = watched(&path);
        assert!(silent.recv().is_err(), "its thread has ended without a word");
        drop((watch, cut));
        assert!(told.recv().is_err());
    }
}
