//! `strata`, the executable: CPython and the Rust core in one process, the standard library and our packages in memory.
//!
//! Here: which program runs (a command, or the interpreter), and how the interpreter starts. May call `strata-py` alone; holds no
//! logic of the product, and reads nothing from the disk.

mod ahead;
mod certificates;
mod embedded;
mod finder;
mod frozen;
mod interpreter;
mod interrupt;
mod memory;
mod report;
mod resources;

use std::ffi::{OsStr, OsString};

use interpreter::Program;

fn main() {
    // First thing, so that the disk works while the interpreter initialises.
    ahead::want(ahead::interpreter());
    ahead::want(resources::startup());
    report::install_panic_hook();
    let outcome = std::panic::catch_unwind(|| {
        let (program, arguments) = choose(std::env::args_os().collect());
        if arguments.get(1).is_some_and(|word| word == "coordinator") {
            memory::keep_nothing_free();
        }
        match program {
            Program::Interpreter => certificates::locate(),
            Program::Command => interrupt::end_quietly(),
        }
        interpreter::run(program, arguments)
    });
    std::process::exit(outcome.unwrap_or(report::INTERNAL));
}

/// `strata python …` is the interpreter, and so is `strata -c …`: `sys.executable` is this file, and code that starts it again
/// (subprocess, multiprocessing) expects an interpreter. Our own commands have words first, and long options.
fn choose(mut arguments: Vec<OsString>) -> (Program, Vec<OsString>) {
    let first = arguments.get(1).map(OsString::as_os_str).unwrap_or_default();
    let asks_help = arguments.get(2).is_some_and(|word| word == "--help");
    if first == "python" && !asks_help {
        arguments.remove(1);
        return (Program::Interpreter, arguments);
    }
    if interpreter_option(first) {
        return (Program::Interpreter, arguments);
    }
    (Program::Command, arguments)
}

fn interpreter_option(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    bytes.len() >= 2 && bytes[0] == b'-' && b"bBcdEiImOPqsSuvWxX".contains(&bytes[1])
}
