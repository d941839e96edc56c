//! Another user's rights for a thread of root: what it opens and makes is what that user may, and is theirs. The kernel
//! decides, so no link that is changed between a look and a write leads further than its owner could go.

use std::ffi::CStr;
use std::io;

use crate::error::{Doing, Result};

/// Of who is in no list of users.
const NO_GROUP: libc::gid_t = 65534;
/// More than any system's limit for one user (NGROUPS_MAX).
const MOST_GROUPS: usize = 65536;
/// Of a line of the list of users.
const LINE: usize = 64 << 10;

/// A user as file systems know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
}

impl User {
    /// With the groups that the system's lists give them. Reads files, or asks a directory service: blocks.
    pub fn look_up(uid: u32) -> User {
        // SAFETY: a passwd of zeros is valid: numbers and null pointers.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let (mut line, mut found) = (vec![0; LINE], std::ptr::null_mut());
        // SAFETY: entry, the buffer with its length, and found live until the call returns.
        unsafe { libc::getpwuid_r(uid, &mut entry, line.as_mut_ptr(), line.len(), &mut found) };
        if found.is_null() {
            return User { uid, gid: NO_GROUP, groups: Vec::new() };
        }
        // SAFETY: a found entry's name is a C string inside of `line`, which is still there.
        let name = unsafe { CStr::from_ptr(entry.pw_name) };
        let (mut groups, mut count) = (vec![0; MOST_GROUPS], MOST_GROUPS as libc::c_int);
        // SAFETY: `groups` holds `count` numbers.
        let told =
            unsafe { libc::getgrouplist(name.as_ptr(), entry.pw_gid, groups.as_mut_ptr(), &mut count) };
        groups.truncate(if told < 0 { 0 } else { count as usize });
        User { uid, gid: entry.pw_gid, groups }
    }

    /// Gives the calling thread, and those it starts from now on, this user's rights to files, for good. The C library's
    /// own calls would change the whole process; these are the kernel's, which change one thread (setfsuid(2), credentials(7)).
    pub fn assume(&self) -> Result<()> {
        let doing = || format!("taking the rights of uid {}", self.uid);
        // SAFETY: the pointer and the count are of one live vector.
        let set = unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) };
        if set != 0 {
            return Err(io::Error::last_os_error()).doing(doing);
        }
        for (call, id) in [(libc::SYS_setfsgid, self.gid), (libc::SYS_setfsuid, self.uid)] {
            // SAFETY: takes a number; the second call changes nothing, and its answer is what the first one set.
            let now = unsafe {
                libc::syscall(call, libc::c_long::from(id));
                libc::syscall(call, -1 as libc::c_long)
            };
            if now != libc::c_long::from(id) {
                return Err(io::Error::from_raw_os_error(libc::EPERM)).doing(doing);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_thread_with_a_users_rights_makes_what_is_theirs_and_nothing_elsewhere() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (open, closed) = (folder.path().join("open"), folder.path().join("closed"));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (path, mode) in [(&open, 0o777), (&closed, 0o755)] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let user = User::look_up(12341);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                user.assume().unwrap();
                let denied = fs::create_dir(closed.join("x")).unwrap_err();
                assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
                // Threads take their maker's rights with them.
                std::thread::scope(|inner| {
                    inner.spawn(|| fs::create_dir(open.join("x")).unwrap());
                });
            });
        });
        assert_eq!(fs::metadata(open.join("x")).unwrap().uid(), 12341);
        fs::create_dir(closed.join("root")).expect("other threads are who they were");
    }
}
