//! Making a rank's arena: one at a time on a node, so that no memory is promised twice. It follows in the background.

use std::sync::Arc;

use super::node::Node;
use super::state::Grant;
use crate::error::{Error, Kind, Result};
use crate::handoff::{Arena, ArenaIdentity};
use crate::ids::SessionId;

/// Damaged files that one rank can have lying about.
const NAMES: u64 = 100;

/// Makes the file, unless the session has one by now whose slots hold `slot_bytes`. Overloaded, with the numbers, when
/// memory is short.
pub(super) async fn make(node: &Arc<Node>, session: SessionId, slot_bytes: u64, slots: u32) -> Result<()> {
    let making = node.clone();
    // To its end: a file that nobody knows of would hold its memory for ever.
    node.finish(async move { make_one(&making, session, slot_bytes, slots).await }).await
}

async fn make_one(node: &Arc<Node>, session: SessionId, slot_bytes: u64, slots: u32) -> Result<()> {
    let _one = node.making.lock().await;
    let wanted = node.read(|state| {
        let known = state.sessions.get(&session)?;
        Some((known.record.uid, state.grant(session, slot_bytes)))
    });
    let (uid, identity) = match wanted {
        Some((uid, Grant::NeedArena(identity))) => (uid, identity),
        Some(_) => return Ok(()),
        None => return Err(Error::fenced("making an arena: the session has ended")),
    };
    let directory = node.directories.of(uid)?;
    let budget = node.settings.budget.clone();
    let made = tokio::task::spawn_blocking(move || {
        let create =
            |identity: &ArenaIdentity| directory.create(identity, slots, slot_bytes, budget.as_ref());
        first_free(identity, create)
    });
    let arena = made.await.map_err(|error| Error::internal(format!("making an arena: {error}")))??;
    node.change(|state| match state.sessions.contains_key(&session) {
        true => {
            state.replace_arena(session, arena);
            Ok(())
        }
        false => {
            arena.remove()?;
            Err(Error::fenced("making an arena: the session has ended"))
        }
    })
}

/// A damaged file, or one of another version, keeps its name, and its number with it: nobody here knows of it.
fn first_free(
    mut identity: ArenaIdentity,
    create: impl Fn(&ArenaIdentity) -> Result<Arena>,
) -> Result<Arena> {
    let last = identity.file + NAMES;
    loop {
        match create(&identity) {
            Err(error) if error.kind == Kind::Conflict && identity.file < last => identity.file += 1,
            outcome => return outcome,
        }
    }
}
