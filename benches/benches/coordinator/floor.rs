//! What a barrier over this machine's loopback costs at least: sockets, and nothing on them.

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// About what an arrival takes on the wire.
const MESSAGE: usize = 48;

/// Connections whose other ends answer once each of them has been written to.
pub struct Sockets(Vec<Mutex<TcpStream>>);

impl Sockets {
    /// `count` of them, to where [`serve`] listens.
    pub async fn connect(address: &str, count: usize) -> Sockets {
        let connect =
            || async { Mutex::new(nodelay(TcpStream::connect(address).await.expect("it listens"))) };
        Sockets(join_all((0..count).map(|_| connect())).await)
    }

    pub async fn barrier(&self) {
        join_all(self.0.iter().map(async |socket| {
            let mut socket = socket.lock().await;
            let mut message = [1; MESSAGE];
            socket.write_all(&message).await.expect("it is open");
            socket.read_exact(&mut message).await.expect("it is answered");
        }))
        .await;
    }
}

/// The other ends of `count` connections, all of one task; returns their address.
pub async fn serve(count: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(async move {
        let mut accepted = Vec::new();
        while accepted.len() < count {
            accepted.push(nodelay(listener.accept().await.expect("somebody connects").0));
        }
        answer(accepted).await;
    });
    address
}

/// Until one of them is closed.
async fn answer(mut sockets: Vec<TcpStream>) {
    let mut message = [0; MESSAGE];
    loop {
        for socket in &mut sockets {
            if socket.read_exact(&mut message).await.is_err() {
                return;
            }
        }
        for socket in &mut sockets {
            if socket.write_all(&message).await.is_err() {
                return;
            }
        }
    }
}

fn nodelay(socket: TcpStream) -> TcpStream {
    socket.set_nodelay(true).expect("it is a TCP socket");
    socket
}
