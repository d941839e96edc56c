//! A trainer that speaks the service and the arenas itself, to stop in the middle of a save.

use std::path::Path;

use hyper_util::rt::TokioIo;
use strata_core::handoff::ArenaView;
use strata_core::proto::format::SlotIndex;
use strata_core::proto::v1::sidecar_client::SidecarClient;
use strata_core::proto::v1::{BeginSaveReply, BeginSaveRequest, SealSaveRequest};
use tonic::transport::{Channel, Endpoint};

use super::{Cluster, files};

const DATA: u64 = 8192;

/// A slot that is being copied into.
pub struct Copying {
    session: u64,
    step: u64,
    rank: u32,
    world: u32,
    granted: BeginSaveReply,
}

/// The number of a rank's session, as the sidecar notes it beside its arenas.
fn session(cluster: &Cluster, rank: u32) -> u64 {
    let records = files(&cluster.arenas(), "session");
    let found = records.iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let record: serde_json::Value = serde_json::from_str(text.split("blake3:").next()?).ok()?;
        let record = &record["record"];
        (record["rank"] == rank).then(|| record["id"].as_u64())?
    });
    found.expect("the rank has a session")
}

fn client(socket: &Path) -> SidecarClient<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    SidecarClient::new(Endpoint::from_static("http://sidecar.invalid").connect_with_connector_lazy(connector))
}

pub fn begin(cluster: &Cluster, rank: u32, world: u32, step: u64, ranks: &[u32]) -> Copying {
    let session = session(cluster, rank);
    let request = BeginSaveRequest {
        session,
        step,
        slot_bytes: DATA + 65536,
        slot_bytes_private: DATA + 65536,
        ranks: ranks.to_vec(),
        ..Default::default()
    };
    let granted = cluster.block(async { client(&cluster.socket()).begin_save(request).await });
    Copying { session, step, rank, world, granted: granted.unwrap().into_inner() }
}

impl Copying {
    /// In the slot's header; nobody is told.
    pub fn seal(&self) {
        let view = ArenaView::open(Path::new(&self.granted.arena)).unwrap();
        let index = SlotIndex {
            step: self.step,
            rank: self.rank,
            world_size: self.world,
            tree: b"{}".to_vec(),
            begun: self.granted.begun.clone(),
            ..Default::default()
        };
        view.writer(self.granted.slot, self.granted.fill).unwrap().seal(&index, DATA).unwrap();
    }

    pub fn tell(&self, cluster: &Cluster) {
        let Copying { session, step, .. } = *self;
        let (slot, fill) = (self.granted.slot, self.granted.fill);
        let told = async {
            client(&cluster.socket()).seal_save(SealSaveRequest { session, step, slot, fill }).await
        };
        cluster.block(told).unwrap();
    }
}
