//! Serves the carried modules to Python: a finder and loader for `sys.meta_path`, with source for tracebacks and data files
//! for `importlib.resources`. `importlib.metadata` finds nothing here: our own version is the core's.
//!
//! A module's `__file__` is the executable's path with the module's below it, as zipimport has it: no file, but unique,
//! and `get_data` takes it back.

use pyo3::exceptions::{PyImportError, PyOSError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::resources::{self, Module};

/// The built-in modules with dotted names, which CPython's own importer of built-in modules refuses to look for.
pub const BUILTIN: [&str; 2] = ["strata._core", "strata._embedded"];

#[pyclass(frozen, module = "strata._embedded")]
pub struct Finder {
    /// The executable's path.
    root: String,
}

/// Puts the finder behind the one for built-in modules.
pub fn install(py: Python<'_>, root: String) -> PyResult<()> {
    let meta_path = py.import("sys")?.getattr("meta_path")?;
    meta_path.call_method1("insert", (1, Bound::new(py, Finder { root })?))?;
    Ok(())
}

#[pymethods]
impl Finder {
    #[pyo3(signature = (name, path=None, target=None))]
    fn find_spec<'py>(
        slf: &Bound<'py, Self>,
        name: &str,
        path: Option<&Bound<'py, PyAny>>,
        target: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let _ = (path, target); // the protocol's; names alone decide here
        let py = slf.py();
        let bootstrap = py.import(intern!(py, "_frozen_importlib"))?;
        if BUILTIN.contains(&name) {
            let loader = bootstrap.getattr(intern!(py, "BuiltinImporter"))?;
            return Ok(Some(bootstrap.call_method1(intern!(py, "spec_from_loader"), (name, loader))?));
        }
        let Some(module) = resources::module(name) else { return Ok(None) };
        let this = slf.get();
        let options = PyDict::new(py);
        options.set_item("origin", this.path(module))?;
        options.set_item("is_package", module.package)?;
        let spec = bootstrap.getattr(intern!(py, "ModuleSpec"))?.call((name, slf), Some(&options))?;
        spec.setattr("has_location", true)?;
        if module.package {
            spec.getattr("submodule_search_locations")?.call_method1("append", (this.folder(name),))?;
        }
        Ok(Some(spec))
    }

    fn create_module(&self, spec: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
        let _ = spec;
        None // importlib makes an ordinary one
    }

    fn exec_module(&self, py: Python<'_>, module: &Bound<'_, PyAny>) -> PyResult<()> {
        let name: String = module.getattr("__name__")?.extract()?;
        let code = self.get_code(py, &name)?;
        // By this function's name CPython knows which of importlib's frames to leave out of a traceback.
        let run = py.import(intern!(py, "_frozen_importlib"))?.getattr("_call_with_frames_removed")?;
        let exec = py.import(intern!(py, "builtins"))?.getattr("exec")?;
        run.call1((exec, code, module.getattr("__dict__")?))?;
        Ok(())
    }

    fn get_code<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let module = self.known(name)?;
        let bytecode =
            module.bytecode().ok_or_else(|| PyImportError::new_err(format!("no bytecode of {name}")))?;
        let length = isize::try_from(bytecode.len()).expect("it is part of a mapped file");
        // SAFETY: reads that many bytes, and returns a new reference or null with an exception set.
        let code = unsafe {
            let made = ffi::PyMarshal_ReadObjectFromString(bytecode.as_ptr().cast(), length);
            Bound::from_owned_ptr_or_err(py, made)?
        };
        // PyOxidizer compiles under the module's name.
        py.import(intern!(py, "_imp"))?.call_method1("_fix_co_filename", (&code, self.path(module)))?;
        Ok(code)
    }

    fn get_source<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(source) = source(py, self.known(name)?)? else { return Ok(None) };
        py.import("_frozen_importlib_external")?.call_method1("decode_source", (source,)).map(Some)
    }

    fn is_package(&self, name: &str) -> PyResult<bool> {
        Ok(self.known(name)?.package)
    }

    fn get_filename(&self, name: &str) -> PyResult<String> {
        Ok(self.path(self.known(name)?))
    }

    /// A module's source or a package's data file, by its path below the executable's.
    fn get_data<'py>(&self, py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyAny>> {
        let absent = || PyOSError::new_err(format!("reading {path}: the executable carries no such file"));
        let inside =
            path.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/')).ok_or_else(absent)?;
        let found = match inside.strip_suffix(".py") {
            Some(stem) => {
                let name = stem.strip_suffix("/__init__").unwrap_or(stem).replace('/', ".");
                resources::module(&name).map(|module| source(py, module)).transpose()?.flatten()
            }
            None => data_file(inside).map(|bytes| PyBytes::new(py, bytes).into_any()),
        };
        found.ok_or_else(absent)
    }

    fn get_resource_reader(&self, name: &str) -> Option<ResourceReader> {
        let module = resources::module(name).filter(|module| module.package)?;
        Some(ResourceReader { package: module.name })
    }

    fn __repr__(&self) -> String {
        format!("<modules in {}>", self.root)
    }
}

impl Finder {
    fn known(&self, name: &str) -> PyResult<&'static Module> {
        resources::module(name)
            .ok_or_else(|| PyImportError::new_err(format!("the executable carries no {name}")))
    }

    fn folder(&self, name: &str) -> String {
        format!("{}/{}", self.root, name.replace('.', "/"))
    }

    fn path(&self, module: &Module) -> String {
        let end = if module.package { "/__init__.py" } else { ".py" };
        self.folder(module.name) + end
    }
}

/// A module's text, as bytes.
fn source<'py>(py: Python<'py>, module: &Module) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(compressed) = module.compressed_source() else { return Ok(None) };
    py.import("zlib")?.call_method1("decompress", (PyBytes::new(py, compressed),)).map(Some)
}

/// The longest prefix of the path that is a package has the file.
fn data_file(inside: &str) -> Option<&'static [u8]> {
    let mut cuts: Vec<usize> = inside.match_indices('/').map(|(at, _)| at).collect();
    cuts.reverse();
    cuts.into_iter().find_map(|cut| {
        let package = inside[..cut].replace('/', ".");
        resources::file(&package, &inside[cut + 1..]).map(resources::File::bytes)
    })
}

/// `importlib.resources`' reader of one package.
#[pyclass(frozen, module = "strata._embedded")]
pub struct ResourceReader {
    package: &'static str,
}

#[pymethods]
impl ResourceReader {
    fn open_resource<'py>(&self, py: Python<'py>, resource: &str) -> PyResult<Bound<'py, PyAny>> {
        let file = resources::file(self.package, resource).ok_or_else(|| self.absent(resource))?;
        py.import("io")?.call_method1("BytesIO", (PyBytes::new(py, file.bytes()),))
    }

    /// Nothing here is a file; importlib then writes a temporary one.
    fn resource_path(&self, resource: &str) -> PyResult<String> {
        Err(self.absent(resource))
    }

    fn is_resource(&self, path: &str) -> bool {
        resources::file(self.package, path).is_some()
    }

    fn contents(&self) -> Vec<&'static str> {
        resources::files(self.package).iter().map(|file| file.name).collect()
    }
}

impl ResourceReader {
    fn absent(&self, resource: &str) -> PyErr {
        pyo3::exceptions::PyFileNotFoundError::new_err(format!(
            "{resource} of {} is no file on disk",
            self.package
        ))
    }
}
