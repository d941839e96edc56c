//! What a user sees when something of ours broke: one line and a hint, never a bare panic or a page of our own frames.

use std::panic::PanicHookInfo;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The exit code of a broken invariant (INTERNAL in the table of errors).
pub const INTERNAL: i32 = 70;
/// The exit code of Ctrl-C (Cancelled in the same table).
pub const INTERRUPTED: i32 = 130;

const SHOW: &str = "STRATA_TRACEBACK";

/// Replaces Rust's report of a panic.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(report_panic));
}

fn report_panic(info: &PanicHookInfo<'_>) {
    let what = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
    eprintln!("error: internal: {what}{place}");
    if wanted() {
        eprintln!("{}", std::backtrace::Backtrace::force_capture());
    } else {
        eprintln!("hint: this is a defect of strata; {SHOW}=1 shows the stack, which a report should hold");
    }
}

fn wanted() -> bool {
    std::env::var_os(SHOW).is_some_and(|value| !value.is_empty() && value != "0")
}

/// `sys.excepthook` of the command line, for what no command expected.
#[pyfunction]
pub fn command_failed(
    kind: &Bound<'_, PyType>,
    value: &Bound<'_, PyAny>,
    traceback: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = kind.py();
    if kind.is_subclass_of::<PyKeyboardInterrupt>()? {
        return Ok(());
    }
    if kind.is_subclass_of::<PanicException>()? {
        // The hook has reported it; the process's state can't be trusted to be taken down in order.
        std::process::exit(INTERNAL);
    }
    if wanted() {
        return script_failed(kind, value, traceback);
    }
    let text = value.str().map(|text| text.to_string()).unwrap_or_default();
    eprintln!("error: unexpected {}: {text}", kind.name()?);
    eprintln!("hint: {SHOW}=1 shows where; please report it");
    py.import("sys")?.getattr("stdout")?.call_method0("flush")?;
    Ok(())
}

/// `sys.excepthook` of `strata python`: CPython's own would look for the carried modules' lines on disk.
#[pyfunction]
pub fn script_failed(
    kind: &Bound<'_, PyType>,
    value: &Bound<'_, PyAny>,
    traceback: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = kind.py();
    if kind.is_subclass_of::<PyKeyboardInterrupt>()? {
        // Importing `traceback` evaluates code, after which CPython no longer knows that it should end by SIGINT.
        py.import("sys")?.call_method1("__excepthook__", (kind, value, traceback))?;
    } else {
        py.import("traceback")?.call_method1("print_exception", (kind, value, traceback))?;
    }
    Ok(())
}
