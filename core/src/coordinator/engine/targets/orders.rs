//! Driving the targets: each gets one order at a time, through the sidecar that does the job's copies.

use super::{Busy, Order, plan};
use crate::coordinator::engine::Engine;
use crate::coordinator::state::Command;
use crate::ids::{JobName, Step};
use crate::proto::v1::{self, node_command::Command as Push};

impl Engine {
    /// Gives every idle target of a job what comes next.
    pub(in super::super) fn drive_targets(&mut self, job: &JobName) {
        let Some(node) = self.take_targets(job) else { return };
        let now = self.now();
        let Ok(known) = self.state.job(job) else { return };
        let (Some(store), Some(uuid)) = (known.store.clone(), known.uuid) else { return };
        let mut orders = Vec::new();
        for (name, target) in self.targets.by_job.get(job).into_iter().flatten() {
            if target.busy.is_none() {
                let next = plan::next(known, target, now, |step| self.is_restoring(job, step));
                orders.extend(next.map(|what| (name.clone(), what)));
            }
        }
        for (name, what) in orders {
            let push = self.order(job, &name, what, &store, &uuid.to_string());
            let target = self.target_mut(job, &name).expect("listed above");
            target.busy = Some(Busy::new(&node, what, now));
            self.push_node(&node, push);
        }
        self.count_behind(job);
    }

    fn order(&self, job: &JobName, name: &str, what: Order, store: &str, uuid: &str) -> Push {
        let (job_name, target) = (job.to_string(), name.to_owned());
        let (store, job_uuid) = (store.to_owned(), uuid.to_owned());
        let known = self.state.job(job).ok();
        match what {
            Order::List => {
                let commit_blake3 = String::new();
                Push::Target(v1::TargetOrder {
                    job: job_name,
                    target,
                    copy: None,
                    commit_blake3,
                    store,
                    job_uuid,
                    taken: self.was_taken(job, name),
                })
            }
            Order::Copy(step) => {
                let record = known.and_then(|known| known.steps.get(&step));
                let commit_blake3 = record.map(|record| record.commit_blake3.clone()).unwrap_or_default();
                let copy = Some(step.0);
                Push::Target(v1::TargetOrder {
                    job: job_name,
                    target,
                    copy,
                    commit_blake3,
                    store,
                    job_uuid,
                    taken: true,
                })
            }
            Order::Remove { step, generation, committed } => {
                let held = self.targets.by_job.get(job).and_then(|targets| targets.get(name)?.steps.as_ref());
                Push::RemoveStep(v1::RemoveStep {
                    job: job_name,
                    step: step.0,
                    generation: generation.0,
                    committed,
                    remaining: held.into_iter().flat_map(|steps| steps.keys()).map(|step| step.0).collect(),
                    store,
                    job_uuid,
                    target,
                })
            }
        }
    }

    /// Whether the target was listed before, by this coordinator or the one before it.
    fn was_taken(&self, job: &JobName, name: &str) -> bool {
        let target = self.targets.by_job.get(job).and_then(|targets| targets.get(name));
        let known = self.state.job(job).ok();
        known.zip(target).is_some_and(|(known, target)| known.has_taken(name, &target.url))
    }

    pub(super) fn note_taken(&mut self, job: &JobName, name: &str) {
        let Some(target) = self.targets.by_job.get(job).and_then(|targets| targets.get(name)) else { return };
        if self.was_taken(job, name) {
            return;
        }
        let taken =
            Command::TakeTarget { job: job.clone(), target: name.to_owned(), url: target.url.clone() };
        if let Err(error) = self.submit(taken) {
            self.warn(job, error.message);
        }
    }

    pub(super) fn target_mut(&mut self, job: &JobName, name: &str) -> Option<&mut super::Target> {
        self.targets.by_job.get_mut(job)?.get_mut(name)
    }

    /// Those whose time has come again.
    pub(in super::super) fn check_targets(&mut self) {
        let now = self.now();
        let mut due = Vec::new();
        for (job, targets) in &mut self.targets.by_job {
            for target in targets.values_mut() {
                let (fills, removes) = (target.filling.is_due(now), target.removing.is_due(now));
                if fills || removes {
                    due.push(job.clone());
                }
            }
        }
        due.dedup();
        due.into_iter().for_each(|job| self.drive_targets(&job));
    }

    /// A node attached: what was refused may be mended, what failed may be there again.
    pub(in super::super) fn targets_attached(&mut self, jobs: &[JobName]) {
        for job in jobs {
            for target in
                self.targets.by_job.get_mut(job).into_iter().flat_map(|targets| targets.values_mut())
            {
                target.refused.clear();
                target.try_again_now();
            }
            self.drive_targets(job);
        }
    }

    /// What it was at goes to another node, or to this one again.
    pub(in super::super) fn targets_lost_line(&mut self, node: &str) {
        let mut jobs = Vec::new();
        for (job, targets) in &mut self.targets.by_job {
            for target in targets.values_mut() {
                if target.busy.as_ref().is_some_and(|busy| busy.node == node) {
                    target.busy = None;
                    jobs.push(job.clone());
                }
            }
        }
        jobs.into_iter().for_each(|job| self.drive_targets(&job));
    }

    /// Steps that the rules of the first store give up and that stay all the same, until targets have them.
    pub(in super::super) fn kept_for_targets(&mut self, job: &JobName, surplus: &[Step]) -> Vec<Step> {
        self.take_targets(job);
        let Ok(known) = self.state.job(job) else { return Vec::new() };
        let (mut held, mut lost) = (Vec::new(), Vec::new());
        for (name, target) in self.targets_of(job) {
            let (stay, go) = plan::held_back(known, target, surplus);
            held.extend(stay);
            lost.push((name.clone(), target.hold, go));
        }
        self.targets.told.retain(|(of, _, step)| of != job || known.steps.contains_key(step));
        let mut warnings = Vec::new();
        for (name, hold, mut steps) in lost {
            steps.retain(|step| known.removable(job, *step, false).is_ok() && !held.contains(step));
            steps.retain(|step| self.targets.told.insert((job.clone(), name.clone(), *step)));
            warnings.extend(lost_warning(&name, hold, &steps));
        }
        if !held.is_empty() {
            self.targets.held_back.insert(job.clone());
        }
        warnings.into_iter().for_each(|warning| self.warn(job, warning));
        held
    }

    /// Whether any removal of the first store is under way for this step.
    pub(super) fn is_being_removed(&self, job: &JobName, step: Step) -> bool {
        self.state.job(job).is_ok_and(|known| plan::is_being_removed(known, step))
    }
}

/// Steps of one target together: after a long absence they are many.
fn lost_warning(name: &str, hold: u32, steps: &[Step]) -> Option<String> {
    let why = format!("more than {hold} wait to be copied (its hold)");
    match steps {
        [] => None,
        [step] => Some(format!("step {step} is removed before target {name} has it: {why}")),
        [first, .., last] => {
            let count = steps.len();
            Some(format!(
                "{count} steps from {first} to {last} are removed before target {name} has them: {why}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_a_target_will_never_get_are_told_together() {
        assert_eq!(lost_warning("far", 2, &[]), None);
        let one = lost_warning("far", 2, &[Step(10)]).unwrap();
        assert!(one.starts_with("step 10 is removed before target far has it"), "{one}");
        let many = lost_warning("far", 2, &[Step(10), Step(20), Step(30)]).unwrap();
        assert!(many.starts_with("3 steps from 10 to 30 are removed before target far has them"), "{many}");
    }
}
