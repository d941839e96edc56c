//! What was measured, as a table: medians, spread, rate, the share of the limit's rate, and CPU time a GB, with that of
//! checking (CRC32C) apart.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use strata_core::checksum;

/// 10^9 bytes.
const GB: f64 = 1e9;

#[derive(Clone, Copy)]
pub struct Figure {
    pub took: Duration,
    pub cpu: Duration,
    /// Of it, for sums.
    pub checking: Duration,
}

impl Figure {
    /// What `work` says it took, and the CPU time of this process meanwhile.
    pub fn of(work: impl FnOnce() -> Duration) -> Figure {
        let (before, summed) = (process_cpu(), checksum::spent().cpu);
        let took = work();
        Figure { took, cpu: process_cpu() - before, checking: checksum::spent().cpu - summed }
    }
}

pub fn process_cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

pub struct Table {
    bytes: usize,
    rows: Vec<(&'static str, Vec<Figure>)>,
}

impl Table {
    pub fn new(bytes: usize) -> Table {
        Table { bytes, rows: Vec::new() }
    }

    pub fn add(&mut self, name: &'static str, figure: Figure) {
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, figures)) => figures.push(figure),
            None => self.rows.push((name, vec![figure])),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gb = self.bytes as f64 / GB;
        let rounds = self.rows.first().map_or(0, |(_, figures)| figures.len());
        writeln!(f, "{gb:.2} GB, medians of {rounds} rounds that took turns\n")?;
        writeln!(
            f,
            "| | ms (spread) | GB/s | of the limit | CPU s a GB | of it sums | sums, of the time |\n|---|---|---|---|---|---|---|"
        )?;
        let mut limit = None;
        for (name, figures) in &self.rows {
            let times: Vec<f64> = figures.iter().map(|figure| figure.took.as_secs_f64()).collect();
            let (least, most) =
                times.iter().fold((f64::MAX, 0f64), |(least, most), &t| (least.min(t), most.max(t)));
            let of = |part: fn(&Figure) -> f64| median(figures.iter().map(part).collect());
            let (cpu, checking) =
                (of(|figure| figure.cpu.as_secs_f64()), of(|figure| figure.checking.as_secs_f64()));
            // What checking would add if no read, write or copy went on beside it, on any core.
            let at_most = of(|figure| figure.checking.as_secs_f64() / figure.took.as_secs_f64());
            let took = median(times);
            // Each limit stands above what is measured against it.
            if name.starts_with("fio") || name.starts_with("limit") {
                limit = Some(took);
            }
            let share = limit.map_or(0.0, |limit| limit / took);
            writeln!(
                f,
                "| {name} | {:.0} ({:.0}–{:.0}) | {:.2} | {share:.2} | {:.3} | {:.3} | {:.1} % |",
                took * 1e3,
                least * 1e3,
                most * 1e3,
                gb / took,
                cpu / gb,
                checking / gb,
                100.0 * at_most
            )?;
        }
        Ok(())
    }
}
