//! A real S3 server for a test: versitygw, where STRATA_VERSITYGW names it, over a temporary directory.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::storage::{StoreOptions, StoreUrl};

const BUCKET: &str = "bucket";
const PATIENCE: Duration = Duration::from_secs(20);

/// Killed when dropped.
pub struct TestServer {
    pub url: StoreUrl,
    pub options: StoreOptions,
    child: Child,
    _folder: tempfile::TempDir,
}

impl TestServer {
    /// None, with a line that says so, when STRATA_VERSITYGW is not set.
    pub fn start() -> Option<TestServer> {
        let Ok(binary) = std::env::var("STRATA_VERSITYGW") else {
            eprintln!("SKIPPED: STRATA_VERSITYGW names no S3 server to start");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new(&binary)
            .args(["--access", "test", "--secret", "test-secret", "--region", "us-east-1"])
            // Only one at a time makes its conditional writes atomic.
            .args(["--port", &format!("127.0.0.1:{port}"), "posix", "--concurrency", "1"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {binary}: {error}"));
        let options = StoreOptions {
            endpoint: Some(format!("http://127.0.0.1:{port}")),
            region: Some("us-east-1".into()),
            access_key_id: Some("test".into()),
            secret_access_key: Some("test-secret".into()),
            allow_http: true,
            part_bytes: Some(5 << 20),
            ..StoreOptions::default()
        };
        let url = format!("s3://{BUCKET}/some/prefix").parse().unwrap();
        let server = TestServer { url, options, child, _folder: folder };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "waiting for {binary} on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
