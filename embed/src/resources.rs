//! What the executable carries: modules, their data files, and wheels, in a table that build.rs wrote over one run of bytes.

use crate::ahead;

/// Offset and length in the run of bytes.
type Span = (usize, usize);

/// A Python module of the standard library, of ours, or of what ours needs.
pub struct Module {
    pub name: &'static str,
    pub package: bool,
    source: Option<Span>,
    bytecode: Option<Span>,
}

/// A data file of a package.
pub struct File {
    pub package: &'static str,
    pub name: &'static str,
    span: Span,
}

include!(concat!(env!("OUT_DIR"), "/table.rs"));

unsafe extern "C" {
    static STRATA_RESOURCES: u8;
}

fn all() -> &'static [u8] {
    // SAFETY: build.rs puts exactly BYTES bytes, and one more, at this symbol, in read-only memory that lives as long as
    // the process.
    unsafe { core::slice::from_raw_parts(&raw const STRATA_RESOURCES, BYTES) }
}

/// The bytecode that every start reads.
pub fn startup() -> &'static [u8] {
    &all()[..STARTUP]
}

/// Asks the disk for them, unless `main` has done so.
fn bytes((offset, length): Span) -> &'static [u8] {
    let found = &all()[offset..offset + length];
    if offset >= STARTUP {
        ahead::want(found);
    }
    found
}

impl Module {
    /// The text as it was written, compressed with zlib; tracebacks and `inspect` show it.
    pub fn compressed_source(&self) -> Option<&'static [u8]> {
        self.source.map(bytes)
    }

    /// The marshalled code object, without the head of a .pyc file.
    pub fn bytecode(&self) -> Option<&'static [u8]> {
        self.bytecode.map(bytes)
    }
}

impl File {
    pub fn bytes(&self) -> &'static [u8] {
        bytes(self.span)
    }
}

/// The module of that dotted name.
pub fn module(name: &str) -> Option<&'static Module> {
    MODULES.binary_search_by(|module| module.name.cmp(name)).ok().map(|found| &MODULES[found])
}

/// All modules, sorted by name.
pub fn modules() -> &'static [Module] {
    MODULES
}

/// The data file `name` (with slashes) of a package.
pub fn file(package: &str, name: &str) -> Option<&'static File> {
    FILES
        .binary_search_by(|file| (file.package, file.name).cmp(&(package, name)))
        .ok()
        .map(|found| &FILES[found])
}

/// All data files of a package.
pub fn files(package: &str) -> &'static [File] {
    let start = FILES.partition_point(|file| file.package < package);
    let end = FILES.partition_point(|file| file.package <= package);
    &FILES[start..end]
}

/// The wheels that `strata wheel` writes: file name and content.
pub fn wheels() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    WHEELS.iter().map(|(name, span)| (*name, bytes(*span)))
}
