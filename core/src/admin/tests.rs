//! The real server over real sockets; requests are written by hand so that Host and Origin are what we say.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

struct Fixed {
    problem: Option<String>,
}

impl AdminSource for Fixed {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        let check = Check { name: "coordinator reached", problem: self.problem.clone(), note: None };
        Box::pin(async { vec![check] })
    }

    fn status(&self) -> BoxFuture<'_, Result<v1::Status>> {
        Box::pin(async {
            let progress = v1::Progress { phase: v1::RankPhase::Training.into(), ..Default::default() };
            let rank = v1::RankStatus { progress: Some(progress), ..Default::default() };
            let job = v1::JobStatus { job: "j".into(), ranks: vec![rank], ..Default::default() };
            Ok(v1::Status { role: "coordinator".into(), jobs: vec![job], ..Default::default() })
        })
    }
}

async fn server(problem: Option<&str>) -> (SocketAddr, CancellationToken) {
    let settings = AdminSettings { listen: "127.0.0.1:0".parse().unwrap(), insecure: false };
    let stop = CancellationToken::new();
    let source = Arc::new(Fixed { problem: problem.map(str::to_owned) });
    (serve(&settings, source, Metrics::new(), stop.clone()).await.unwrap().addr, stop)
}

async fn ask(addr: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn pages_say_alive_ready_metrics_and_status() {
    let (addr, _stop) = server(None).await;
    let host = format!("Host: {addr}\r\n");
    assert!(ask(addr, "/livez", &host).await.starts_with("HTTP/1.1 200"));
    assert!(ask(addr, "/readyz", &host).await.starts_with("HTTP/1.1 200"));
    assert!(ask(addr, "/metrics", &host).await.contains("# EOF"));
    let status = ask(addr, "/api/v1/status", &host).await;
    assert!(status.contains(r#""schema":1"#) && status.contains(r#""phase":"training""#), "{status}");
    assert!(ask(addr, "/nothing", &host).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn unready_role_says_what_is_missing() {
    let (addr, _stop) = server(Some("connection refused")).await;
    let answer = ask(addr, "/readyz", "Host: localhost\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connection refused"), "{answer}");
}

#[tokio::test]
async fn foreign_pages_are_denied() {
    let (addr, _stop) = server(None).await;
    for headers in ["Host: evil.example\r\n", "Host: localhost\r\nOrigin: http://evil.example\r\n"] {
        let answer = ask(addr, "/api/v1/status", headers).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("Denied"), "{headers}: {answer}");
    }
    let own = format!("Host: localhost\r\nOrigin: http://localhost:{}\r\n", addr.port());
    assert!(ask(addr, "/api/v1/status", &own).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn taken_port_is_named_and_open_address_refused() {
    let (addr, _stop) = server(None).await;
    let source: Arc<dyn AdminSource> = Arc::new(Fixed { problem: None });
    let start = |listen, insecure| {
        let source = Arc::clone(&source);
        async move {
            serve(&AdminSettings { listen, insecure }, source, Metrics::new(), CancellationToken::new()).await
        }
    };
    let error = start(addr, false).await.err().unwrap();
    assert!(error.kind == Kind::Conflict && error.message.contains(&addr.port().to_string()), "{error}");
    let open = "0.0.0.0:0".parse().unwrap();
    assert_eq!(start(open, false).await.err().unwrap().kind, Kind::Denied);
    assert!(start(open, true).await.is_ok());
}
