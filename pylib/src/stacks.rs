//! What this process's Python threads are doing, for whoever asks from outside.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use strata_core::client::{self, OwnStacks};
use strata_core::error::Result;

/// The signal that faulthandler is registered for and its file, or why it is not.
#[derive(FromPyObject)]
pub enum Outside {
    Signal(i32, RawFd),
    Missing(String),
}

pub fn own_stacks(outside: Outside) -> Result<OwnStacks> {
    client::own_stacks(
        inside,
        match outside {
            Outside::Signal(signal, file) => Ok((signal, file)),
            Outside::Missing(why) => Err(why),
        },
    )
}

fn inside(has_lock: &AtomicBool) -> std::result::Result<String, String> {
    let told = Python::try_attach(|py| {
        has_lock.store(true, Ordering::Release);
        py.import("strata._stacks")?.call_method0("all_threads")?.extract::<String>()
    });
    match told {
        Some(told) => told.map_err(|error| format!("looking at the threads: {error}")),
        None => Err("its interpreter is shutting down".to_owned()),
    }
}

/// A real-time signal that nobody in this process handles.
#[pyfunction]
pub fn free_signal() -> Option<i32> {
    client::free_signal()
}
