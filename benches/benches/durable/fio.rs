//! What fio makes of the same disk: the limit.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::table::Figure;

/// As Strata writes: chunks of 4 MiB, sixteen in flight at most, room allocated before, one fsync at the end.
const SAME: [&str; 8] = [
    "--name=limit",
    "--bs=4M",
    "--iodepth=16",
    "--ioengine=io_uring",
    "--direct=1",
    "--fallocate=posix",
    "--end_fsync=1",
    "--output-format=terse",
];
/// Fields of terse output, version 3 (fio(1), TERSE OUTPUT): run times in ms of reads and writes, CPU in percent.
const READ_MS: usize = 8;
const WRITE_MS: usize = 49;
const CPU: [usize; 2] = [87, 88];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Write,
    /// Of the file that is written first, outside of the time.
    Read,
}

pub fn is_there() -> bool {
    Command::new("fio").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// On a new file of `bytes`, removed afterwards.
pub fn run(way: Way, folder: &Path, bytes: usize) -> Figure {
    let (rw, field) = match way {
        Way::Write => ("--rw=write", WRITE_MS),
        Way::Read => ("--rw=read", READ_MS),
    };
    let output = Command::new("fio")
        .args(SAME)
        .args([rw, "--unlink=1", &format!("--size={bytes}"), &format!("--directory={}", folder.display())])
        .output()
        .expect("fio was there when the bench began");
    assert!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("fio writes text");
    let line = text.lines().find(|line| line.starts_with("3;")).expect("terse output of version 3");
    let fields: Vec<&str> = line.split(';').collect();
    let number = |at: usize| fields[at].trim_end_matches('%').parse::<f64>().expect("a number");
    let took = Duration::from_secs_f64(number(field) / 1e3);
    let percent: f64 = CPU.iter().map(|at| number(*at)).sum();
    Figure { took, cpu: took.mul_f64(percent / 100.0), checking: Duration::ZERO }
}
