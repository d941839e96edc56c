//! A real Azure Blob server for a test: azurite, where STRATA_AZURITE names its `azurite-blob` script, in memory.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::storage::{StoreOptions, StoreUrl};

/// Azurite's own account, in its documentation for everybody to use.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const CONTAINER: &str = "container";
const PATIENCE: Duration = Duration::from_secs(60);
/// A container is nothing that object_store makes: one signed request (Shared Key, version 2021-08-06).
const MAKE_CONTAINER: &str = r#"
const [port, account, key, name] = process.argv.slice(1);
const date = new Date().toUTCString();
const path = `/${account}/${name}`;
const text = `PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:${date}\nx-ms-version:2021-08-06\n/${account}${path}\nrestype:container`;
const sign = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text, 'utf8').digest('base64');
const headers = {'x-ms-date': date, 'x-ms-version': '2021-08-06', 'Content-Length': 0, Authorization: `SharedKey ${account}:${sign}`};
const options = {host: '127.0.0.1', port, method: 'PUT', path: `${path}?restype=container`, headers};
require('http').request(options, (r) => { r.resume(); process.exitCode = r.statusCode === 201 ? 0 : 1; console.error(r.statusCode); }).end();
"#;

/// Killed when dropped.
pub struct Azurite {
    pub url: StoreUrl,
    pub options: StoreOptions,
    child: Child,
}

impl Azurite {
    /// None, with a line that says so, when STRATA_AZURITE is not set.
    pub fn start() -> Option<Azurite> {
        let Ok(script) = std::env::var("STRATA_AZURITE") else {
            eprintln!("SKIPPED: STRATA_AZURITE names no Azure server to start");
            return None;
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new("node")
            .arg(&script)
            .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence"])
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {script} with node: {error}"));
        let options = StoreOptions {
            azure_account: Some(ACCOUNT.into()),
            azure_key: Some(KEY.into()),
            azure_endpoint: Some(format!("http://127.0.0.1:{port}/{ACCOUNT}")),
            allow_http: true,
            part_bytes: Some(5 << 20),
            ..StoreOptions::default()
        };
        let url = format!("az://{CONTAINER}/some/prefix").parse().unwrap();
        let server = Azurite { url, options, child };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "waiting for {script} on port {port}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let made = Command::new("node")
            .args(["-e", MAKE_CONTAINER, &port.to_string(), ACCOUNT, KEY, CONTAINER])
            .output()
            .unwrap();
        assert!(made.status.success(), "making a container: {}", String::from_utf8_lossy(&made.stderr));
        Some(server)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
