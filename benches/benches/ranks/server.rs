//! The coordinator's process: the role as `strata coordinator` starts it, on free ports.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use strata_core::config::{Environment, Flag};
use strata_core::roles::{self, RoleOptions};

use crate::SERVER;
use crate::process::{self, Process};

pub struct Server {
    process: Process,
    pub grpc: String,
    http: String,
    _home: tempfile::TempDir,
}

/// In the child.
pub fn serve(home: &Path) {
    let place = home.display().to_string();
    let options = RoleOptions {
        env: Environment::of([
            ("STRATA_HOME", place.as_str()),
            ("XDG_CONFIG_HOME", place.as_str()),
            // A line for each of the sidecars is nothing that anybody reads here.
            ("STRATA_LOG", "error"),
        ]),
        config: None,
        flags: vec![
            Flag::new("--port", "coordinator.listen", ":0"),
            Flag::new("--http-port", "coordinator.http", ":0"),
        ],
        hooks_runner: vec![],
    };
    roles::coordinator(&options).expect("a coordinator on a new home serves until it is told to end");
}

impl Server {
    pub fn start() -> Server {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let mut process = Process::start(&[SERVER.to_owned(), home.path().display().to_string()]);
        let grpc = process.hear("gRPC");
        let http = process.hear("HTTP");
        let http = http.trim_start_matches("http://").to_owned();
        Server { process, grpc, http, _home: home }
    }

    /// Resident, in KiB.
    pub fn memory(&self) -> f64 {
        process::memory(self.process.pid())
    }

    /// Seconds of processor time, of user and system.
    pub fn cpu(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.process.pid());
        let stat = std::fs::read_to_string(path).expect("the server lives");
        let after = stat.rsplit(')').next().expect("the name is in brackets");
        let ticks = after.split_whitespace().skip(11).take(2).map(|text| text.parse::<f64>().expect("ticks"));
        ticks.sum::<f64>() / rustix::param::clock_ticks_per_second() as f64
    }

    /// Until the last byte of the page is here.
    pub fn get(&self, path: &str) -> Duration {
        let begun = Instant::now();
        let page = self.page(path);
        let took = begun.elapsed();
        assert!(page.starts_with("HTTP/1.1 200"), "{path} answers {}", &page[..page.len().min(200)]);
        took
    }

    /// That it has taken.
    pub fn frames(&self) -> f64 {
        let page = self.page("/metrics");
        let line = page.lines().find(|line| line.starts_with("strata_heartbeats_total "));
        let line = line.expect("the coordinator counts them");
        line.split(' ').nth(1).expect("it has a value").parse().expect("a number")
    }

    fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).expect("the server listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut page = Vec::new();
        stream.read_to_end(&mut page).expect("it answers");
        String::from_utf8_lossy(&page).into_owned()
    }

    pub fn end(self) {
        let pid = Pid::from_raw(self.process.pid() as i32).expect("a child has a pid");
        kill_process(pid, Signal::TERM).expect("it is our child");
        self.process.end();
    }
}
