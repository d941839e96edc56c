//! P5's ground: a full disk is told with its numbers, harms nothing, and the same save succeeds once there is room.

use std::path::Path;
use std::process::Command;

use super::fixture::*;
use crate::error::Kind;
use crate::ids::JobUuid;

/// A file system of a fixed size, unmounted when dropped.
struct SmallDisk {
    mounted: tempfile::TempDir,
    _image: Option<tempfile::NamedTempFile>,
}

impl SmallDisk {
    /// In memory. None, with a line that says so, where mounting is not allowed.
    fn new(size: &str) -> Option<SmallDisk> {
        let options = format!("size={size}");
        SmallDisk::mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], None)
    }

    /// A real ext4, with extents and a journal, in a file.
    fn ext4(megabytes: u64) -> Option<SmallDisk> {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(megabytes << 20).unwrap();
        let made = Command::new("mkfs.ext4").arg("-q").arg(image.path()).output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: there is no mkfs.ext4 here");
            return None;
        }
        let path = image.path().to_str().unwrap().to_owned();
        SmallDisk::mount(&["-o", "loop", &path], Some(image))
    }

    fn mount(arguments: &[&str], image: Option<tempfile::NamedTempFile>) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(arguments).arg(folder.path()).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: a small disk can't be mounted here (that needs root)");
            return None;
        }
        Some(SmallDisk { mounted: folder, _image: image })
    }

    fn path(&self) -> &Path {
        self.mounted.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        assert!(unmounted.unwrap().success());
    }
}

fn a_full_disk_is_told_and_harms_nothing(disk: &SmallDisk) {
    let free = || {
        let room = rustix::fs::statvfs(disk.path()).unwrap();
        room.f_bavail * room.f_frsize
    };
    let (store, uuid) = (open(disk.path()), JobUuid::new());
    let small = vec![spec("a", 8 << 20)];
    save(&store, uuid, 1, 1, one_node(1, 1, &small));
    let before = free();
    let big = vec![spec("a", 40 << 20).version(2)];
    for _ in 0..3 {
        let error = persist(&store, attempt(uuid, 2, 1), 1, one_node(1, 2, &big)).unwrap_err();
        assert_eq!(error.kind, Kind::Overloaded, "{error}");
        assert!(error.message.contains("MiB free of"), "{error}");
        assert!(error.message.contains(&disk.path().display().to_string()), "{error}");
        assert!(error.hint.is_some());
        assert!(before - free() < 1 << 20, "what could not be finished is gone");
    }
    check(&store, 1, 0, 1, 0, &small);
    let other = vec![spec("a", 8 << 20).version(3)];
    save(&store, uuid, 3, 1, one_node(1, 3, &other));
    check(&store, 3, 0, 1, 0, &other);
}

#[test]
fn a_full_tmpfs_is_overloaded_with_its_numbers_and_harms_nothing() {
    let Some(disk) = SmallDisk::new("24m") else { return };
    a_full_disk_is_told_and_harms_nothing(&disk);
}

#[test]
fn a_full_ext4_is_overloaded_with_its_numbers_and_harms_nothing() {
    let Some(disk) = SmallDisk::ext4(40) else { return };
    a_full_disk_is_told_and_harms_nothing(&disk);
}

/// Room for the pack and none for the manifest: tries after tries must not fill the disk with packs.
#[test]
fn a_save_that_fails_at_its_end_takes_back_what_it_wrote() {
    let Some(disk) = SmallDisk::new("24m,nr_inodes=6") else { return };
    let (store, uuid) = (open(disk.path()), JobUuid::new());
    let free = || {
        let room = rustix::fs::statvfs(disk.path()).unwrap();
        room.f_bavail * room.f_frsize
    };
    let before = free();
    for _ in 0..4 {
        let slots = one_node(3, 1, &[spec("a", 5 << 20)]);
        let error = persist(&store, attempt(uuid, 1, 1), 3, slots).unwrap_err();
        assert_eq!(error.kind, Kind::Overloaded, "{error}");
        assert!(before - free() < 1 << 20, "{} of {before} are left", free());
    }
}

#[test]
fn a_disk_without_inodes_is_overloaded() {
    let Some(disk) = SmallDisk::new("8m,nr_inodes=4") else { return };
    let error =
        persist(&open(disk.path()), attempt(JobUuid::new(), 2, 1), 1, one_node(1, 2, &[spec("a", 5)]));
    assert_eq!(error.unwrap_err().kind, Kind::Overloaded);
}

#[test]
fn a_read_only_disk_is_denied() {
    let Some(disk) = SmallDisk::new("8m") else { return };
    let store = open(disk.path());
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status();
    assert!(remounted.unwrap().success());
    let error = persist(&store, attempt(JobUuid::new(), 2, 1), 1, one_node(1, 2, &[spec("a", 5)]));
    assert_eq!(error.unwrap_err().kind, Kind::Denied);
}
