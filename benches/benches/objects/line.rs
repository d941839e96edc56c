//! A long line to a server: what goes through it arrives later, and no connection has more than its share of it, as it is
//! between a machine and the buckets of its region.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

const PIECE: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Of each direction.
    pub way: Duration,
    /// Bytes a second of one connection in one direction.
    pub rate: f64,
}

/// Ends with the value.
pub struct Line {
    pub address: SocketAddr,
    _runtime: Runtime,
}

impl Line {
    pub fn to(server: SocketAddr, length: Length) -> Line {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // A server that takes no connection is the client's to find out: this end is closed.
                let Ok(far) = TcpStream::connect(server).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                connect(near_in, far_out, length);
                connect(far_in, near_out, length);
            }
        });
        Line { address, _runtime: runtime }
    }
}

fn connect(from: OwnedReadHalf, to: OwnedWriteHalf, length: Length) {
    let (sent, coming) = unbounded_channel();
    tokio::spawn(take(from, sent, length));
    tokio::spawn(deliver(coming, to));
}

/// As fast as the line takes it; the end of either side ends the other.
async fn take(mut from: OwnedReadHalf, sent: UnboundedSender<(Instant, BytesMut)>, length: Length) {
    let mut free = Instant::now();
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        match from.read_buf(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => {
                free = free.max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / length.rate);
                if sent.send((free + length.way, piece)).is_err() {
                    return;
                }
                sleep_until(free).await;
            }
        }
    }
}

async fn deliver(mut coming: UnboundedReceiver<(Instant, BytesMut)>, mut to: OwnedWriteHalf) {
    while let Some((arrives, piece)) = coming.recv().await {
        sleep_until(arrives).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
