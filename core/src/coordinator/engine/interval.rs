//! How often a job saves where the configuration says "auto": by what a save costs and how often ranks are lost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::state::Use;
use super::Engine;
use crate::ids::JobName;

/// Also of a job whose saves cost next to nothing, and of the first save, which shows what they cost.
const SHORTEST: Duration = Duration::from_secs(5);
/// However seldom ranks are lost: nobody wants to lose more than this to the first loss.
const LONGEST: Duration = Duration::from_secs(3600);

/// From the beginning of each job's newest committed save to its commit: a job saves no more often than that.
#[derive(Default)]
pub struct Observed(BTreeMap<JobName, Duration>);

impl Engine {
    /// From the beginning of one save to the next one's, as the job's ledger says: its saves have held training for so
    /// long, and it has lost ranks so often. None: nothing of the job is known.
    pub(super) fn save_interval(&self, job: &JobName) -> Option<Duration> {
        let ledger = self.ledger_of(job)?;
        if ledger.saves == 0 {
            return Some(SHORTEST);
        }
        let held = ledger.spent.get(&Use::Save).copied().unwrap_or_default();
        let cost = held / u32::try_from(ledger.saves).unwrap_or(u32::MAX);
        // A job that has run for so long without a loss is expected to run for as long again.
        let lives = u32::try_from(ledger.losses + 1).unwrap_or(u32::MAX);
        let mtbf = ledger.spent.values().sum::<Duration>() / lives;
        let took = self.observed.0.get(job).copied().unwrap_or_default();
        Some(young_daly(cost, mtbf).clamp(SHORTEST, LONGEST).max(took))
    }

    pub(super) fn observe_commit(&mut self, job: &JobName, took: Duration) {
        self.observed.0.insert(job.clone(), took);
    }
}

/// The time from the beginning of one save to that of the next that loses least to saving and to work done again, where a
/// save costs `cost` and `mtbf` is the mean time between failures.
///
/// J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", FGCS 22 (2006), equation 37,
/// to which the save itself is added: his interval ends where the save begins. Where the cost is small against the mtbf
/// that is Young's sqrt(2 · cost · mtbf) (J. W. Young, CACM 17 (1974)); where it is more than twice the mtbf, the mtbf.
fn young_daly(cost: Duration, mtbf: Duration) -> Duration {
    let (c, m) = (cost.as_secs_f64(), mtbf.as_secs_f64());
    if c >= 2.0 * m {
        return mtbf + cost;
    }
    let ratio = c / (2.0 * m);
    Duration::from_secs_f64((2.0 * c * m).sqrt() * (1.0 + ratio.sqrt() / 3.0 + ratio / 9.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(cost: f64, mtbf: f64) -> f64 {
        young_daly(Duration::from_secs_f64(cost), Duration::from_secs_f64(mtbf)).as_secs_f64()
    }

    #[test]
    fn cheap_saves_follow_young() {
        for (cost, mtbf) in [(0.1, 86_400.0), (5.0, 1e6), (60.0, 1e8)] {
            let young = f64::sqrt(2.0 * cost * mtbf);
            assert!((seconds(cost, mtbf) / young - 1.0).abs() < 0.002, "{cost} {mtbf}");
        }
    }

    /// The expected run time of a job in Daly's model, by his equation 13, per unit of work and without restarts: what
    /// the interval is to make least.
    fn wasted(work: f64, cost: f64, mtbf: f64) -> f64 {
        mtbf * (((work + cost) / mtbf).exp() - 1.0) / work
    }

    #[test]
    fn no_other_interval_wastes_noticeably_less_also_where_saves_are_dear() {
        for (cost, mtbf) in [(1.0, 86_400.0), (60.0, 3600.0), (300.0, 1800.0), (600.0, 900.0)] {
            let chosen = wasted(seconds(cost, mtbf) - cost, cost, mtbf);
            let best =
                (1..20_000).map(|work| wasted(f64::from(work), cost, mtbf)).fold(f64::INFINITY, f64::min);
            assert!(chosen <= best * 1.001, "{cost} {mtbf}: {chosen} against {best}");
        }
    }

    #[test]
    fn saves_that_cost_more_than_the_time_to_fail_are_made_all_the_same() {
        assert_eq!(seconds(100.0, 50.0), 150.0);
        assert_eq!(seconds(100.0, 0.0), 100.0);
        assert_eq!(seconds(0.0, 0.0), 0.0);
        let (below, above) = (seconds(199.999, 100.0), seconds(200.0, 100.0));
        assert!((above / below - 1.0).abs() < 0.05, "the two forms meet: {below} {above}");
    }
}
