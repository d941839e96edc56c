//! Callers that call again as soon as they are answered, and what they saw.

use std::time::{Duration, Instant};

use crate::operations::Target;

/// One turn of one operation.
pub struct Load {
    pub latencies: Vec<Duration>,
    elapsed: Duration,
}

impl Load {
    /// Calls a second over all callers.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs `callers` of them for `time`; each has a connection of its own.
pub async fn run(callers: usize, time: Duration, target: Target) -> Load {
    let began = Instant::now();
    let running: Vec<_> = (0..callers)
        .map(|caller| {
            let target = target.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while began.elapsed() < time {
                    let started = Instant::now();
                    target.call(caller).await;
                    latencies.push(started.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for caller in running {
        latencies.extend(caller.await.expect("a call that fails ends the bench"));
    }
    Load { latencies, elapsed: began.elapsed() }
}

pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Nearest rank; `sorted` ascending and not empty.
pub fn quantile(sorted: &[f64], at: f64) -> f64 {
    sorted[(at * (sorted.len() - 1) as f64).round() as usize]
}
