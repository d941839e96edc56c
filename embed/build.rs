//! Lays out what the executable carries: PyOxidizer's packed resources (STRATA_RESOURCES) and the wheels that `strata
//! wheel` hands out (STRATA_WHEELS, a folder), as one file of bytes and a sorted table over it.
//! First comes the bytecode that every start reads (startup.txt), so that it can be read at once, then other bytecode.
//!
//! Without these variables the tables are empty: that is enough for clippy and an editor, and `make build` sets them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use miniz_oxide::deflate::compress_to_vec_zlib;
use python_packed_resources::load_resources;

/// The modules that `strata version` imports: what the other commands start with too. A test compares.
const STARTUP: &str = include_str!("startup.txt");

/// zlib's usual level: 13 MB of source become 3.5.
const COMPRESSION: u8 = 6;

fn main() {
    println!("cargo:rerun-if-env-changed=STRATA_RESOURCES");
    println!("cargo:rerun-if-env-changed=STRATA_WHEELS");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=startup.txt");
    // Extension modules on disk (a user's own, under `strata python`) find the interpreter's symbols here, and not the
    // OpenSSL and SQLite inside in place of their own.
    for symbols in ["Py*", "_Py*"] {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbols}");
    }
    // 100 000 pointers to relocate: 2.4 MB that every start reads become 38 kB. glibc has it since 2.36.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut layout = Layout::default();
    if let Some(file) = env::var_os("STRATA_RESOURCES") {
        layout.add_resources(Path::new(&file));
    }
    if let Some(folder) = env::var_os("STRATA_WHEELS") {
        layout.add_wheels(Path::new(&folder));
    }
    layout.write(&out);
}

/// Where something lies in the blob.
type Span = (usize, usize);

#[derive(Default)]
struct Layout {
    blob: Vec<u8>,
    /// How many of its first bytes every start reads.
    startup: usize,
    modules: BTreeMap<String, Module>,
    files: BTreeMap<(String, String), Span>,
    wheels: BTreeMap<String, Span>,
}

struct Module {
    package: bool,
    source: Option<Span>,
    bytecode: Option<Span>,
}

impl Layout {
    fn add_resources(&mut self, file: &Path) {
        println!("cargo:rerun-if-changed={}", file.display());
        let data = fs::read(file).unwrap_or_else(|e| panic!("reading {}: {e}", file.display()));
        let entries = load_resources(&data).unwrap_or_else(|e| panic!("parsing {}: {e}", file.display()));
        let mut entries: Vec<_> = entries
            .map(|entry| entry.unwrap_or_else(|e| panic!("parsing {}: {e}", file.display())))
            .collect();
        let at_startup = |name: &str| STARTUP.lines().any(|line| line == name);
        entries.sort_by_key(|entry| (!at_startup(&entry.name), entry.name.to_string()));
        let mut bytecodes = Vec::new();
        for entry in &entries {
            bytecodes.push(entry.in_memory_bytecode.as_deref().map(|bytes| self.push(bytes)));
            if at_startup(&entry.name) {
                self.startup = self.blob.len();
            }
        }
        for (entry, bytecode) in entries.into_iter().zip(bytecodes) {
            let name = entry.name.to_string();
            if entry.is_python_module && bytecode.is_some() {
                // Source is read for a traceback now and then, and would be a third of what is carried.
                let source = entry.in_memory_source.as_deref();
                let source = source.map(|bytes| self.push(&compress_to_vec_zlib(bytes, COMPRESSION)));
                self.modules
                    .insert(name.clone(), Module { package: entry.is_python_package, source, bytecode });
            }
            // A hash map, hence sorted: the same input gives the same executable.
            let files: BTreeMap<_, _> = entry.in_memory_package_resources.into_iter().flatten().collect();
            for (file, bytes) in files {
                let span = self.push(&bytes);
                self.files.insert((name.clone(), file.to_string()), span);
            }
        }
    }

    fn add_wheels(&mut self, folder: &Path) {
        println!("cargo:rerun-if-changed={}", folder.display());
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("listing {}: {e}", folder.display()));
        let mut files: Vec<PathBuf> =
            entries.map(|entry| entry.expect("a folder that was just opened can be read").path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "whl")) {
            println!("cargo:rerun-if-changed={}", file.display());
            let bytes = fs::read(file).unwrap_or_else(|e| panic!("reading {}: {e}", file.display()));
            let name =
                file.file_name().expect("a file of a listing has a name").to_string_lossy().into_owned();
            let span = self.push(&bytes);
            self.wheels.insert(name, span);
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.blob.len();
        self.blob.extend_from_slice(bytes);
        (start, bytes.len())
    }

    fn write(&self, out: &Path) {
        let blob = out.join("resources.bin");
        fs::write(&blob, &self.blob).expect("OUT_DIR can be written");
        let mut code = String::new();
        // A section of its own: small constants, which a start reads too, lie before it and not around it.
        // rustc's incremental state doesn't see the file's content: the hash makes a changed file a changed line.
        let hash = blake3::hash(&self.blob).to_hex();
        let _ = writeln!(
            code,
            "core::arch::global_asm!(\n    \"# {hash}\",\n    \".section strata_resources, \\\"a\\\"\",\n    \
             \".balign 64\",\n    \".global STRATA_RESOURCES\",\n    \"STRATA_RESOURCES:\",\n    \".incbin {:?}\",\n    \
             \".byte 0\",\n    \".previous\",\n);",
            Quoted(&blob)
        );
        let _ = writeln!(code, "const BYTES: usize = {};", self.blob.len());
        let _ = writeln!(code, "const STARTUP: usize = {};", self.startup);
        let _ = writeln!(code, "static MODULES: &[Module] = &[");
        for (name, module) in &self.modules {
            let Module { package, source, bytecode } = module;
            let _ = writeln!(
                code,
                "    Module {{ name: {name:?}, package: {package}, source: {source:?}, bytecode: {bytecode:?} }},"
            );
        }
        let _ = writeln!(code, "];\nstatic FILES: &[File] = &[");
        for ((package, name), span) in &self.files {
            let _ = writeln!(code, "    File {{ package: {package:?}, name: {name:?}, span: {span:?} }},");
        }
        let _ = writeln!(
            code,
            "];\nstatic WHEELS: &[(&str, Span)] = &{:?};",
            self.wheels.iter().collect::<Vec<_>>()
        );
        fs::write(out.join("table.rs"), code).expect("OUT_DIR can be written");
    }
}

/// A path inside an assembler string inside a Rust string.
struct Quoted<'a>(&'a Path);

impl std::fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\\\"{}\\\"", self.0.display())
    }
}
