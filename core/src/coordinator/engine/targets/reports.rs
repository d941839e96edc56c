//! What became of the orders.

use super::backoff::Backoff;
use super::{Listing, Order};
use crate::coordinator::engine::{Engine, convert};
use crate::error::Kind;
use crate::ids::{Generation, JobName, Step};
use crate::proto::v1;

impl Engine {
    pub(in super::super) fn target_reported(&mut self, node: &str, told: v1::TargetReport) {
        let Ok(job) = told.job.parse::<JobName>() else { return };
        let what = told.copied.map_or(Order::List, |step| Order::Copy(Step(step)));
        if !self.is_order(node, &job, &told.target, |busy| busy == what) {
            return;
        }
        if !told.kind.is_empty() {
            return self.target_failed(&job, &told.target, what, &told.kind, &told.reason);
        }
        self.metrics.copied_bytes.inc_by(told.copied_bytes);
        match what {
            Order::List if told.more => return self.page_listed(&job, told),
            Order::List if !self.is_next_page(&job, &told) => return self.page_lost(&job, &told.target),
            _ => {}
        }
        let Some(target) = self.target_mut(&job, &told.target) else { return };
        let mut last = Listing::of(told.steps, &told.leftovers);
        match (what, &mut target.steps) {
            (Order::List, known) => {
                let mut all =
                    target.busy.as_mut().map(|busy| std::mem::take(&mut busy.listed)).unwrap_or_default();
                all.extend(last);
                (*known, target.leftovers) = (Some(all.steps), all.leftovers);
            }
            (_, Some(known)) => known.append(&mut last.steps),
            (_, None) => {}
        }
        match what {
            Order::Copy(_) => {
                self.metrics.steps_copied.inc();
            }
            _ => self.note_taken(&job, &told.target),
        }
        self.target_served(&job, &told.target);
    }

    /// Kept until the last page: a part of a listing says nothing about what is not there.
    fn page_listed(&mut self, job: &JobName, told: v1::TargetReport) {
        if !self.is_next_page(job, &told) {
            return self.page_lost(job, &told.target);
        }
        let target = self.target_mut(job, &told.target);
        let Some(busy) = target.and_then(|target| target.busy.as_mut()) else { return };
        busy.pages += 1;
        busy.listed.extend(Listing::of(told.steps, &told.leftovers));
    }

    fn is_next_page(&self, job: &JobName, told: &v1::TargetReport) -> bool {
        let target = self.targets.by_job.get(job).and_then(|targets| targets.get(&told.target));
        let busy = target.and_then(|target| target.busy.as_ref());
        busy.is_some_and(|busy| busy.pages == told.page)
    }

    /// Pages that an order over an earlier line began may end here.
    fn page_lost(&mut self, job: &JobName, name: &str) {
        let reason = "pages of its listing were lost";
        self.target_failed(job, name, Order::List, Kind::Unavailable.name(), reason);
    }

    /// The same for a removal that was ordered for a target.
    pub(in super::super) fn target_removal_reported(&mut self, node: &str, done: v1::RemovalDone) {
        let Ok(job) = done.job.parse::<JobName>() else { return };
        let (step, generation) = (Step(done.step), Generation(done.generation));
        let ordered = Order::Remove { step, generation, committed: done.committed };
        if !self.is_order(node, &job, &done.target, |busy| busy == ordered) {
            return;
        }
        let Some(target) = self.target_mut(&job, &done.target) else { return };
        let committed = done.committed;
        // What can't be removed must not hold up what comes behind it: it is listed again with the next attach.
        if !committed {
            target.leftovers.retain(|of| *of != (step, generation));
        }
        if !done.kind.is_empty() && (committed || is_away(&done.kind)) {
            return self.target_failed(&job, &done.target, ordered, &done.kind, &done.reason);
        }
        if committed && let Some(steps) = &mut target.steps {
            steps.remove(&step);
        }
        self.metrics.freed_bytes.inc_by(done.freed_bytes);
        self.target_served(&job, &done.target);
    }

    fn is_order(&self, node: &str, job: &JobName, name: &str, is: impl Fn(Order) -> bool) -> bool {
        let target = self.targets.by_job.get(job).and_then(|targets| targets.get(name));
        let busy = target.and_then(|target| target.busy.as_ref());
        busy.is_some_and(|busy| busy.node == node && is(busy.what))
    }

    fn target_served(&mut self, job: &JobName, name: &str) {
        let target = self.targets.by_job.get_mut(job).and_then(|targets| targets.get_mut(name));
        if let Some(target) = target {
            let busy = target.busy.take();
            if busy.is_some_and(|busy| busy.what.is_removal()) {
                target.removing = Backoff::default();
                target.stuck = None;
            } else {
                target.filling.served();
                if target.refused.is_empty() {
                    target.filling.problem = None;
                }
            }
        }
        self.settle_dooms(job);
        self.target_changed(job);
    }

    fn target_changed(&mut self, job: &JobName) {
        self.answer_target_waiters(job);
        self.restores_changed(job);
        self.drive_targets(job);
        if self.targets.held_back.remove(job) {
            self.plan_retention(job);
        }
    }

    /// One bad step does not hold up the others; a target that can't be reached is tried again, ever less often.
    fn target_failed(&mut self, job: &JobName, name: &str, what: Order, kind: &str, reason: &str) {
        let now = self.now();
        // Removed from the first store meanwhile: there is nothing to copy any more.
        let gone = match what {
            Order::Copy(step) => {
                let known = self.state.job(job).is_ok_and(|known| known.steps.contains_key(&step));
                !known || self.is_being_removed(job, step)
            }
            _ => false,
        };
        let Some(target) = self.target_mut(job, name) else { return };
        target.busy = None;
        let mut message = None;
        match what {
            Order::Copy(_) if gone => {}
            Order::Copy(step) if !is_away(kind) => {
                target.refused.insert(step);
                message = Some(format!("step {step} is not copied to target {name}: {reason}"));
            }
            _ => {
                target.stuck = what.is_removal().then_some(what).or(target.stuck);
                target.backoff(what).failed(now);
                message = Some(format!("target {name}: {reason}"));
            }
        }
        let problem = &mut target.backoff(what).problem;
        let news = message.filter(|message| problem.as_ref() != Some(message));
        if let Some(news) = news {
            *problem = Some(news.clone());
            self.warn(job, news);
        }
        self.target_changed(job);
    }
}

impl Listing {
    fn of(steps: Vec<v1::StepInfo>, leftovers: &[v1::Attempt]) -> Listing {
        Listing {
            steps: steps.into_iter().filter_map(|info| convert::record(info).ok()).collect(),
            leftovers: leftovers.iter().map(|of| (Step(of.step), Generation(of.generation))).collect(),
        }
    }

    fn extend(&mut self, mut more: Listing) {
        self.steps.append(&mut more.steps);
        self.leftovers.append(&mut more.leftovers);
    }
}

/// Another try may well succeed.
fn is_away(kind: &str) -> bool {
    !matches!(Kind::from_name(kind), Some(Kind::Corrupt | Kind::Conflict | Kind::NotFound | Kind::Invalid))
}
