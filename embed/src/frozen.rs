//! The modules that the interpreter imports before a finder can exist: the codecs of its standard streams.

use std::ffi::CString;

use pyo3::ffi;

use crate::resources;

const NEEDED: [&str; 5] =
    ["encodings", "encodings.aliases", "encodings.ascii", "encodings.latin_1", "encodings.utf_8"];

/// Hands them to the interpreter as frozen modules; before it is initialised, once.
pub fn install() {
    let mut table: Vec<ffi::_frozen> = Vec::new();
    for name in NEEDED {
        let Some((module, code)) =
            resources::module(name).and_then(|module| Some((module, module.bytecode()?)))
        else {
            continue; // an executable built without resources; the interpreter will say that it lacks `encodings`
        };
        table.push(ffi::_frozen {
            name: CString::new(name).expect("a module's name has no NUL").into_raw(),
            code: code.as_ptr(),
            size: i32::try_from(code.len()).expect("a codec's bytecode is a few kilobytes"),
            is_package: i32::from(module.package),
            get_code: None,
        });
    }
    table.push(ffi::_frozen {
        name: std::ptr::null(),
        code: std::ptr::null(),
        size: 0,
        is_package: 0,
        get_code: None,
    });
    // SAFETY: the interpreter is not yet initialised, so nothing reads the variable; the table is never freed.
    unsafe { ffi::PyImport_FrozenModules = Box::leak(table.into_boxed_slice()).as_ptr() };
}
