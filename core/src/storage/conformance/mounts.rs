//! Real file systems that are full or broken, for tests that run as root.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own; unmounted when dropped.
pub struct Mount {
    path: PathBuf,
    /// What it lies in, unmounted after it.
    _below: Option<Box<Mount>>,
    _folder: tempfile::TempDir,
}

impl Mount {
    /// In memory, of so many bytes. None, with a line that says so, where nothing may be mounted.
    pub fn tmpfs(bytes: u64) -> Option<Mount> {
        Mount::new(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"], None)
    }

    /// An ext4 whose disk has `has` of its `claims` bytes: writes beyond them fail with EIO.
    pub fn broken_disk(claims: u64, has: u64) -> Option<Mount> {
        let below = Mount::tmpfs(has)?;
        let image = below.path.join("disk");
        std::fs::File::create(&image).unwrap().set_len(claims).unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"])
            .arg(&image)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: mkfs.ext4 makes no file system here");
            return None;
        }
        let image = image.to_str().unwrap().to_owned();
        Mount::new(&["-t", "ext4", "-o", "loop,errors=continue", &image], Some(Box::new(below)))
    }

    fn new(what: &[&str], below: Option<Box<Mount>>) -> Option<Mount> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mounted");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(what).arg(&path).output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: mount {what:?} is not allowed here: {mounted:?}");
            return None;
        }
        Some(Mount { path, _below: below, _folder: folder })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the kernel lets go of a loop device some time after what was mounted from it.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // Nothing else can be done, and a panic while a test fails would hide why.
            eprintln!("umount {} failed", self.path.display());
        }
    }
}
