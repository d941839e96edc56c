//! The S3 server of the bench: a given one, or a versitygw of its own over a temporary directory.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use strata_core::storage::{Scheme, StoreOptions, StoreUrl};

const BUCKET: &str = "checkpoints";
const ACCESS: &str = "strata-bench";
const SECRET: &str = "strata-secret";
const REGION: &str = "us-east-1";
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    pub url: StoreUrl,
    pub bucket: String,
    pub prefix: String,
    pub options: StoreOptions,
    child: Option<Child>,
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    /// None when neither STRATA_BENCH_S3 is set nor a versitygw is to be found. `parent`: where that one keeps its objects.
    pub fn find(parent: &Path) -> Option<Server> {
        if let Ok(url) = std::env::var("STRATA_BENCH_S3") {
            let options = StoreOptions::from_environment(|name| std::env::var(name).ok());
            return Some(Server::new(
                &url,
                options.expect("the AWS_* variables are well formed"),
                None,
                None,
            ));
        }
        let binary = std::env::var("STRATA_VERSITYGW").unwrap_or_else(|_| "versitygw".into());
        let folder = tempfile::tempdir_in(parent).expect("a temporary directory can be made");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("the directory is ours");
        let port = free_port();
        let child = Command::new(binary)
            .args(["--access", ACCESS, "--secret", SECRET, "--region", REGION])
            .args(["--port", &format!("127.0.0.1:{port}"), "posix", "--concurrency", "1"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "waiting for versitygw on port {port}");
            sleep(Duration::from_millis(20));
        }
        let options = StoreOptions {
            endpoint: Some(format!("http://127.0.0.1:{port}")),
            region: Some(REGION.into()),
            access_key_id: Some(ACCESS.into()),
            secret_access_key: Some(SECRET.into()),
            allow_http: true,
            ..StoreOptions::default()
        };
        Some(Server::new(&format!("s3://{BUCKET}/bench"), options, Some(child), Some(folder)))
    }

    /// A prefix of its own below that of before.
    #[allow(dead_code, reason = "not every bench that includes this file asks for it")]
    pub fn move_to(&mut self, folder: &str) {
        self.prefix = format!("{}/{folder}", self.prefix);
        self.url = format!("s3://{}/{}", self.bucket, self.prefix).parse().expect("a prefix may be longer");
    }

    fn new(
        url: &str,
        options: StoreOptions,
        child: Option<Child>,
        folder: Option<tempfile::TempDir>,
    ) -> Server {
        let url: StoreUrl = url.parse().expect("STRATA_BENCH_S3 is s3://bucket/prefix");
        let Scheme::S3 { bucket, prefix } = url.scheme().clone() else {
            panic!("STRATA_BENCH_S3 is s3://bucket/prefix, not {url}");
        };
        Server { url, bucket, prefix, options, child, _folder: folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
    }
}

fn free_port() -> u16 {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    probe.local_addr().expect("it is bound").port()
}
