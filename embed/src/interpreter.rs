//! Starts CPython inside the process: isolated, UTF-8, nothing read from the environment or the disk, modules from memory.

use std::ffi::{CStr, CString, OsString, c_char};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::{embedded, finder, frozen, report};

/// What the process was started for.
pub enum Program {
    /// One of our commands: `strata.cli` reads the arguments.
    Command,
    /// `strata python`: the interpreter reads them, as `python3` would.
    Interpreter,
}

/// Runs the program to its end; the process's exit code.
///
/// `arguments` begin with the program's name. Called once, from the main thread.
pub fn run(program: Program, arguments: Vec<OsString>) -> i32 {
    let executable = std::env::current_exe().unwrap_or_else(|_| "strata".into());
    if let Err(code) = initialise(&program, arguments, &executable) {
        return code;
    }
    // SAFETY: initialised just now by this thread, which holds the interpreter lock since then.
    let ready = unsafe { Python::assume_attached() };
    if let Err(error) = prepare(ready, &program, &executable) {
        error.print(ready);
        return report::INTERNAL;
    }
    // SAFETY: initialised, called once. It runs what the configuration says, flushes, finalises, and turns SystemExit and
    // KeyboardInterrupt into exit codes and signals as python3 does.
    unsafe { ffi::Py_RunMain() }
}

/// Err has the exit code: after a failure, or after `--version` and the like.
fn initialise(program: &Program, arguments: Vec<OsString>, executable: &Path) -> Result<(), i32> {
    frozen::install();
    // SAFETY: before initialisation; the names are static.
    unsafe {
        ffi::PyImport_AppendInittab(c"strata._core".as_ptr(), Some(strata_py::_core::__pyo3_init));
        ffi::PyImport_AppendInittab(c"strata._embedded".as_ptr(), Some(embedded::_embedded::__pyo3_init));
    }
    // SAFETY: the C interface's own protocol: both structures are initialised by its functions before anything reads them,
    // strings are copied by it, and the configuration is cleared at the end.
    unsafe {
        let mut early = std::mem::zeroed::<ffi::PyPreConfig>();
        ffi::PyPreConfig_InitIsolatedConfig(&raw mut early);
        early.utf8_mode = 1;
        check(ffi::Py_PreInitialize(&raw const early))?;

        let mut config = std::mem::zeroed::<ffi::PyConfig>();
        ffi::PyConfig_InitIsolatedConfig(&raw mut config);
        let outcome = configure(&mut config, program, arguments, executable)
            .and_then(|()| check(ffi::Py_InitializeFromConfig(&raw const config)));
        ffi::PyConfig_Clear(&raw mut config);
        outcome
    }
}

/// SAFETY: `config` has been initialised, and the interpreter pre-initialised.
unsafe fn configure(
    config: &mut ffi::PyConfig,
    program: &Program,
    arguments: Vec<OsString>,
    executable: &Path,
) -> Result<(), i32> {
    let holder: *mut ffi::PyConfig = config;
    let text = |field: *mut *mut _, value: &CStr| {
        // SAFETY: the caller's; `field` is one of this configuration's strings.
        check(unsafe { ffi::PyConfig_SetBytesString(holder, field, value.as_ptr()) })
    };
    let path = bytes(executable.as_os_str().to_owned());
    let folder = bytes(executable.parent().unwrap_or(Path::new("/")).as_os_str().to_owned());
    text(&raw mut config.program_name, &path)?;
    text(&raw mut config.executable, &path)?;
    text(&raw mut config.base_executable, &path)?;
    for field in [
        &raw mut config.prefix,
        &raw mut config.exec_prefix,
        &raw mut config.base_prefix,
        &raw mut config.base_exec_prefix,
    ] {
        text(field, &folder)?;
    }
    // Set and empty: nothing is looked for on the disk.
    config.module_search_paths_set = 1;
    config.site_import = 0;
    config.install_signal_handlers = 1;
    match program {
        Program::Command => {
            config.parse_argv = 0;
            text(
                &raw mut config.run_command,
                c"import gc; gc.disable(); from strata.cli import main; gc.enable(); main()",
            )?;
        }
        Program::Interpreter => {
            config.parse_argv = 1;
            // Isolated all the same (no variable, no user folder), but the script's own folder is searched, as everywhere.
            config.isolated = 0;
            config.use_environment = 0;
            config.user_site_directory = 0;
            config.safe_path = 0;
        }
    }
    let owned: Vec<CString> = arguments.into_iter().map(bytes).collect();
    let mut pointers: Vec<*const c_char> = owned.iter().map(|argument| argument.as_ptr()).collect();
    let count = isize::try_from(pointers.len()).expect("the kernel limits arguments to megabytes");
    // SAFETY: the caller's; the strings outlive the call, which copies them.
    check(unsafe { ffi::PyConfig_SetBytesArgv(holder, count, pointers.as_mut_ptr()) })
}

/// An argument or a path from the system, which can't hold a NUL.
fn bytes(value: OsString) -> CString {
    CString::new(value.into_vec()).expect("the kernel ends arguments and paths at a NUL")
}

fn check(status: ffi::PyStatus) -> Result<(), i32> {
    // SAFETY: plain reads of a structure that the interpreter returned by value.
    unsafe {
        if ffi::PyStatus_Exception(status) == 0 {
            return Ok(());
        }
        if ffi::PyStatus_IsExit(status) != 0 {
            return Err(status.exitcode);
        }
        let message = if status.err_msg.is_null() {
            "no reason given".into()
        } else {
            CStr::from_ptr(status.err_msg).to_string_lossy()
        };
        eprintln!("error: starting the Python interpreter: {message}");
        Err(report::INTERNAL)
    }
}

/// Between initialisation and the program: where modules come from, and how errors are shown.
fn prepare(py: Python<'_>, program: &Program, executable: &Path) -> PyResult<()> {
    finder::install(py, executable.to_string_lossy().into_owned())?;
    // Made here, as importing `strata._embedded` would import `strata`, which a script may never ask for.
    let hook = match program {
        Program::Command => wrap_pyfunction!(report::command_failed, py)?,
        Program::Interpreter => wrap_pyfunction!(report::script_failed, py)?,
    };
    py.import("sys")?.setattr("excepthook", hook)?;
    if let Program::Interpreter = program {
        // What `site` gives every python3; the rest of it is about folders on disk.
        let site = py.import("site")?;
        for part in ["setquit", "sethelper"] {
            site.call_method0(part)?;
        }
    }
    Ok(())
}
