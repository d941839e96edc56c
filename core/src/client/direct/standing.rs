//! What a direct worker knows of its membership: fed by the beats, waited on by the calls.

use tokio::sync::watch;

use crate::error::Error;
use crate::ids::{Generation, JobName};
use crate::proto::lost_names;
use crate::proto::v1::worker_command::Command;
use crate::proto::v1::{GenerationEnded, HeartbeatReply};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    /// Registered; the generation has not opened, as far as is known.
    Joining,
    Member(Generation),
    /// No call can succeed any more, and why.
    Ended(Error),
}

impl Standing {
    pub fn generation(&self) -> Generation {
        match self {
            Standing::Member(generation) => *generation,
            Standing::Joining | Standing::Ended(_) => Generation(0),
        }
    }

    /// Takes note of what a beat's answer says.
    pub fn apply(&mut self, job: &JobName, reply: &HeartbeatReply) {
        if reply.generation > 0 {
            self.opened(Generation(reply.generation));
        }
        for command in reply.commands.iter().filter_map(|command| command.command.as_ref()) {
            match command {
                Command::GenerationOpened(opened) => self.opened(Generation(opened.generation)),
                // A generation before ours may end while we are registered for the next one.
                Command::GenerationEnded(ended) if self.generation() == Generation(ended.generation) => {
                    *self = Standing::Ended(fenced(job, ended));
                }
                Command::GenerationEnded(_) => {}
                Command::CheckpointNow(_) | Command::PreemptAt(_) | Command::Config(_) => {
                    tracing::debug!(%job, ?command, "a direct worker takes no such command");
                }
            }
        }
    }

    pub fn opened(&mut self, generation: Generation) {
        if *self == Standing::Joining {
            *self = Standing::Member(generation);
        }
    }

    pub fn end(&mut self, error: Error) {
        if !matches!(self, Standing::Ended(_)) {
            *self = Standing::Ended(error);
        }
    }
}

/// Returns once no call can succeed any more: why.
pub(super) async fn ended(standing: &watch::Sender<Standing>) -> Error {
    let mut changes = standing.subscribe();
    loop {
        if let Standing::Ended(error) = &*changes.borrow_and_update() {
            return error.clone();
        }
        changes.changed().await.expect("the caller holds the sender");
    }
}

fn fenced(job: &JobName, ended: &GenerationEnded) -> Error {
    let lost = lost_names(&ended.lost, ended.lost_count);
    Error::fenced(format!(
        "working in generation {} of job {job}: it has ended, lost: {lost} ({})",
        ended.generation, ended.reason
    ))
    .hint("register again to join the next generation, or end this process for its launcher to restart")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::proto::v1::{Member, WorkerCommand};

    fn reply(generation: u64, command: Option<Command>) -> HeartbeatReply {
        let commands = command.into_iter().map(|command| WorkerCommand { command: Some(command) }).collect();
        HeartbeatReply { commands, lease_ms: 0, generation }
    }

    fn ended(generation: u64) -> Command {
        let lost = vec![Member { rank: 3, node: "direct".into(), host: "h3".into() }];
        let (job, reason, lost_count) = ("j".into(), "why".into(), lost.len() as u32);
        Command::GenerationEnded(GenerationEnded { job, generation, lost, reason, lost_count })
    }

    #[test]
    fn end_of_an_earlier_generation_is_not_ours() {
        let job: JobName = "j".parse().unwrap();
        let mut standing = Standing::Joining;
        standing.apply(&job, &reply(0, Some(ended(4))));
        assert_eq!(standing, Standing::Joining);
        standing.apply(&job, &reply(5, None));
        assert_eq!(standing, Standing::Member(Generation(5)));
        standing.apply(&job, &reply(5, Some(ended(4))));
        assert_eq!(standing.generation(), Generation(5));
    }

    #[test]
    fn end_of_our_generation_names_who_was_lost_and_stands() {
        let job: JobName = "j".parse().unwrap();
        let mut standing = Standing::Member(Generation(5));
        standing.apply(&job, &reply(5, Some(ended(5))));
        let Standing::Ended(error) = &standing else { panic!("{standing:?}") };
        assert_eq!(error.kind, Kind::Fenced);
        assert!(error.message.contains("rank 3 on h3") && error.message.contains("why"), "{error}");
        let before = standing.clone();
        standing.opened(Generation(6));
        standing.end(Error::internal("later"));
        assert_eq!(standing, before);
    }
}
