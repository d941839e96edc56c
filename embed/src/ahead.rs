//! Asks the disk for the parts of this file that are about to be read: one request for each in place of one for each page
//! fault, of which a start with nothing in memory had 170 at the usual read-ahead of 128 KiB.

use rustix::mm::{Advice, madvise};

/// What one call may ask for: the kernel cuts off what goes beyond the device's read-ahead or its largest request.
const PIECE: usize = 128 << 10;

unsafe extern "C" {
    // The section that scripts/resources.py makes of the interpreter's code; the linker defines both.
    static __start_python_text: u8;
    static __stop_python_text: u8;
}

/// The interpreter's machine code.
pub fn interpreter() -> &'static [u8] {
    let (start, stop) = (&raw const __start_python_text, &raw const __stop_python_text);
    // SAFETY: the linker puts both around one section, which stays mapped and unchanged.
    unsafe { core::slice::from_raw_parts(start, stop.addr() - start.addr()) }
}

/// Begins to read a part of this file, and doesn't wait for it.
pub fn want(part: &'static [u8]) {
    let page = rustix::param::page_size();
    let first = part.as_ptr().map_addr(|address| address & !(page - 1));
    let length = part.as_ptr().addr() + part.len() - first.addr();
    for at in (0..length).step_by(PIECE) {
        let piece = first.wrapping_add(at).cast_mut().cast();
        // SAFETY: it lies in a mapping of this file, and the advice changes no memory. Where it fails, faults do the same.
        let _ = unsafe { madvise(piece, PIECE.min(length - at), Advice::WillNeed) };
    }
}
