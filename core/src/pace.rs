//! How much background work takes of a machine that trains: nothing that anybody else wants while it has time, its full
//! share once it is in a hurry.
//!
//! A thread that has lowered itself comes back only by a privilege (an ordinary user may not leave SCHED_IDLE, sched(7)).
//! So it ends its piece of work and another thread, started by one that never lowered itself, goes on; and where there is
//! the privilege it is raised at once, since it may hold what that other one needs.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Shared by whoever works and whoever knows of the deadline. Once hurried it stays so.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hurried: Mutex<bool>,
    changed: Condvar,
    /// Kernel's numbers of the threads that have lowered themselves for it.
    lowered: Mutex<Vec<libc::pid_t>>,
}

/// For as long as this lives its thread is raised when the pace is hurried.
pub struct Lowered<'a> {
    pace: &'a Pace,
    thread: libc::pid_t,
}

impl Pace {
    /// Yields to everybody else until it is hurried.
    pub fn yielding() -> Pace {
        let (hurried, lowered) = (Mutex::new(false), Mutex::default());
        Pace(Arc::new(Shared { hurried, changed: Condvar::new(), lowered }))
    }

    pub fn hurried() -> Pace {
        let pace = Pace::yielding();
        pace.hurry();
        pace
    }

    pub fn hurry(&self) {
        *self.0.hurried.lock() = true;
        self.0.changed.notify_all();
        self.0.lowered.lock().iter().for_each(|&thread| raise(thread));
    }

    /// Lowers the calling thread, until it ends or this is hurried.
    pub fn lower_thread(&self) -> Lowered<'_> {
        // SAFETY: asks for a number.
        let thread = unsafe { libc::gettid() };
        self.0.lowered.lock().push(thread);
        yield_to_all();
        if self.is_hurried() {
            raise(thread);
        }
        Lowered { pace: self, thread }
    }

    pub fn is_hurried(&self) -> bool {
        *self.0.hurried.lock()
    }

    /// Returns when it is hurried, or `done`, which is asked now and after every [`Pace::tell`].
    pub fn wait_until(&self, done: impl Fn() -> bool) {
        let mut hurried = self.0.hurried.lock();
        while !*hurried && !done() {
            self.0.changed.wait(&mut hurried);
        }
    }

    /// Something that a `wait_until` asks for has changed.
    pub fn tell(&self) {
        let _hurried = self.0.hurried.lock();
        self.0.changed.notify_all();
    }
}

impl Drop for Lowered<'_> {
    fn drop(&mut self) {
        self.pace.0.lowered.lock().retain(|&thread| thread != self.thread);
    }
}

/// Gives a thread of this process its ordinary weight back, where that is allowed.
fn raise(thread: libc::pid_t) {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    const IOPRIO_OF_NICE: libc::c_long = 0;
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the calls read their arguments, and change nothing but how that thread is scheduled.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, thread, IOPRIO_OF_NICE);
        libc::sched_setscheduler(thread, libc::SCHED_OTHER, &raw const none);
    }
}

/// For the rest of its life the calling thread runs when nobody else wants the processor, and its reads and writes come
/// last among those of their class. Where a sandbox refuses that it has the lowest weight (nice 19), or goes on as it is.
fn yield_to_all() {
    const WHOLE_THREAD: libc::id_t = 0;
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    // Of SCHED_IDLE the kernel makes the IO class idle, which some schedulers serve only when nobody else reads or
    // writes at all: the lowest of best effort instead (ioprio_set(2)).
    const IOPRIO_BEST_EFFORT_LOWEST: libc::c_long = 2 << 13 | 7;
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the calls read their arguments, and change nothing but how this thread is scheduled.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_BEST_EFFORT_LOWEST);
        if libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, WHOLE_THREAD, 19);
        }
    }
}
