//! Shortfalls of memory are errors with numbers.

use super::super::cgroup::{Room, memory_room};
use super::*;
use crate::error::Kind;

#[test]
fn arena_larger_than_its_volume_is_overloaded_with_numbers_and_remedy() {
    let directory = tmpfs();
    let error =
        open(&directory).unwrap().create(&identity(0), 3, 1 << 44, &MachineMemory::default()).err().unwrap();
    assert_eq!(error.kind, Kind::Overloaded);
    for part in ["rank 1", "3 slots of 16.0 TiB", "needs 48.0 TiB", "free in"] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    assert!(error.hint.unwrap().contains("--shm-size"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "lock and node-id alone");
}

const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:   1000000 kB\n");

#[test]
fn version_2_limit_of_an_ancestor_counts() {
    let (_root, root) = root_with(&[
        MEMINFO,
        ("proc/self/cgroup", "0::/pod/container\n"),
        ("proc/self/mountinfo", "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"),
        ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
        ("sys/fs/cgroup/pod/container/memory.current", "5000\n"),
        ("sys/fs/cgroup/pod/memory.max", "1048576\n"),
        ("sys/fs/cgroup/pod/memory.current", "600000\n"),
        ("sys/fs/cgroup/pod/memory.stat", "anon 1\nfile 9\ninactive_file 100000\n"),
    ]);
    let pod = Room { path: root.join("sys/fs/cgroup/pod"), limit: 1 << 20, used: 500_000 };
    assert_eq!(memory_room(&root).unwrap(), [pod]);
    let budget = MachineMemory::below(&root);
    budget.promise(std::path::Path::new("/dev/shm"), 548_576).unwrap();
    let error = budget.promise(std::path::Path::new("/dev/shm"), 548_577).unwrap_err();
    assert_eq!(error.kind, Kind::Overloaded);
    assert!(error.message.contains("548577 bytes") && error.message.contains("548576 bytes"), "{error}");
    assert!(error.message.contains("limit 1.0 MiB"), "{error}");
}

#[test]
fn version_1_limit_is_read_through_a_containers_own_mount() {
    let (_root, root) = root_with(&[
        MEMINFO,
        ("proc/self/cgroup", "9:name=systemd:/docker/abc\n4:cpu,memory:/docker/abc/inner\n0::/\n"),
        (
            "proc/self/mountinfo",
            "31 24 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
             32 24 0:28 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n",
        ),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192000\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "8000000\n"),
        ("sys/fs/cgroup/memory/memory.stat", "inactive_file 5\ntotal_inactive_file 1000000\n"),
        ("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/inner/memory.usage_in_bytes", "10\n"),
    ]);
    let memory = Room { path: root.join("sys/fs/cgroup/memory"), limit: 8_192_000, used: 7_000_000 };
    assert_eq!(memory_room(&root).unwrap(), [memory]);
}

#[test]
fn machines_own_cgroups_are_readable() {
    for room in memory_room(std::path::Path::new("/")).unwrap() {
        assert!(room.used <= room.limit, "{room:?}");
    }
}

#[test]
fn machine_without_available_memory_is_overloaded() {
    let (_root, root) = root_with(&[
        ("proc/meminfo", "MemAvailable: 1 kB\n"),
        ("proc/self/cgroup", ""),
        ("proc/self/mountinfo", ""),
    ]);
    let error = MachineMemory::below(root).promise(std::path::Path::new("/dev/shm"), 2000).unwrap_err();
    assert_eq!(error.kind, Kind::Overloaded);
}

#[test]
fn memory_that_is_promised_is_promised_once() {
    let (_root, root) = root_with(&[
        ("proc/meminfo", "MemAvailable: 1000 kB\n"),
        ("proc/self/cgroup", ""),
        ("proc/self/mountinfo", ""),
    ]);
    let (budget, shm) = (MachineMemory::below(root), std::path::Path::new("/dev/shm"));
    let mut first = budget.promise(shm, 600 << 10).unwrap();
    let error = budget.promise(shm, 600 << 10).unwrap_err();
    assert!(error.message.contains("409600 bytes"), "{error}");
    // What was taken is seen by the machine's own count, which stands still here.
    first.kept(500 << 10);
    drop(budget.promise(shm, 600 << 10).unwrap());
    drop(first);
    budget.promise(shm, 1000 << 10).unwrap();
}
