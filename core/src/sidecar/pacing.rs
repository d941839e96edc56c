//! How long a save's background work may yield to training: until somebody waits for it, or half of the time between two
//! saves is over, so that the other half is left for it to end before the next one begins.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::node::Node;
use super::state::{Save, SaveId, State};

/// Where no two saves have been seen yet.
const UNKNOWN: Duration = Duration::from_secs(1);
/// However rare saves are: what is not durable is lost with the machine.
const LONGEST: Duration = Duration::from_secs(10);

/// Runs `work`, which goes at the pace of the save `id`, and hurries that when it is time.
pub(super) async fn paced<T>(node: &Arc<Node>, id: &SaveId, work: impl Future<Output = T>) -> T {
    // Kept: a sum may outlast its save.
    let pace = node.read(|state| state.saves.get(id).map(|save| save.pace.clone()));
    let hurry = async {
        let slack = node.read(|state| {
            let save = state.saves.get(id)?;
            let interval = state.jobs.get(&id.job).and_then(|job| job.interval);
            Some(slack(interval).saturating_sub(state.now().saturating_sub(save.since)))
        });
        tokio::select! {
            () = node.wait(|state| is_urgent(state, id).then_some(())) => {}
            () = sleep(slack.unwrap_or_default()) => {}
        }
        if let Some(pace) = pace {
            pace.hurry();
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = hurry => unreachable!("it is pending once it has hurried the work"),
    }
}

fn slack(interval: Option<Duration>) -> Duration {
    interval.map_or(UNKNOWN, |interval| interval / 2).min(LONGEST)
}

/// Whether somebody waits for the save, or will need its slot soon.
fn is_urgent(state: &State, id: &SaveId) -> bool {
    let Some(save) = state.saves.get(id) else { return true };
    let orphaned = save.parts.values().any(|part| !state.sessions.contains_key(&part.session));
    let later = |(other, known): (&SaveId, &Save)| other.job == id.job && known.since > save.since;
    state.draining || save.is_awaited || save.failures > 0 || orphaned || state.saves.iter().any(later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_an_interval_is_left_to_end_in_and_rare_saves_are_durable_soon() {
        assert_eq!(slack(Some(Duration::from_secs(6))), Duration::from_secs(3));
        assert_eq!(slack(Some(Duration::from_secs(3600))), LONGEST);
        assert_eq!(slack(None), UNKNOWN);
    }
}
