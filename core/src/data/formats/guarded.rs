//! Decoding by a crate that panics over some of what a damaged file may hold, where its user must see an error that names the file.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

use crate::error::{Error, Result};

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// The work's own answer; Corrupt where it panics, of which nothing is printed. It must leave nothing half done behind.
pub fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !DECODING.get() {
                usual(panic);
            }
        }));
    });
    DECODING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    DECODING.set(false);
    outcome.unwrap_or_else(|panic| {
        Err(Error::corrupt(format!("reading {}: {}", path.display(), text(&*panic)))
            .hint("the file is damaged, or uses what this build can't decode"))
    })
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it can't be decoded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_panic_is_corrupt_and_named_and_later_ones_are_told_as_ever() {
        let path = Path::new("a.parquet");
        let error = guarded::<()>(path, || panic!("page {} of nothing", 7)).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::Corrupt, "reading a.parquet: page 7 of nothing")
        );
        assert!(!DECODING.get());
        assert_eq!(guarded(path, || Ok(3)).unwrap(), 3);
    }
}
