//! Callers that call again as soon as they are answered, and what they saw.

use std::time::{Duration, Instant};

/// One turn of one operation.
pub struct Load {
    pub latencies: Vec<Duration>,
    /// Of barriers: from the first release to the last.
    pub skews: Vec<Duration>,
    pub operations: u64,
    pub elapsed: Duration,
}

impl Load {
    /// Operations a second over all callers.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs `callers` of them for `time`, and to the end of the calls made by then. A call tells as so many operations.
pub async fn run<F>(
    callers: usize,
    time: Duration,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Load
where
    F: Future<Output = u64> + Send,
{
    let began = Instant::now();
    let running: Vec<_> = (0..callers)
        .map(|caller| {
            let call = call.clone();
            tokio::spawn(async move {
                let (mut latencies, mut operations) = (Vec::new(), 0);
                while began.elapsed() < time {
                    let started = Instant::now();
                    operations += call(caller).await;
                    latencies.push(started.elapsed());
                }
                (latencies, operations)
            })
        })
        .collect();
    let (mut latencies, mut operations) = (Vec::new(), 0);
    for caller in running {
        let (seen, made) = caller.await.expect("a call that fails ends the bench");
        latencies.extend(seen);
        operations += made;
    }
    Load { latencies, skews: Vec::new(), operations, elapsed: began.elapsed() }
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
