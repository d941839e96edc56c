//! Operator hooks: a child process that runs the user's Python file, one JSON object a line in both directions.
//!
//! First line from the child: `{"hooks": ["on_commit", "on_worker_lost", "retain"]}` (those that the file defines), or
//! `{"error": "traceback"}`. Then calls, `{"id": 1, "call": "retain", "job": "j", "steps": [StepInfo…]}`,
//! `{"id": 2, "call": "on_commit", "job": "j", "step": StepInfo}`,
//! `{"id": 3, "call": "on_worker_lost", "job": "j", "generation": 4, "ranks": [0], "hosts": ["a"], "reason": "…"}`, each
//! answered by `{"id": 1, "ok": [20, 40]}` (for `retain` the kept steps, else null) or
//! `{"id": 1, "error": "traceback"}`. The child's stderr is the coordinator's. Any failure keeps everything.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::engine::{Handle, Retained};
use crate::error::{Doing, Error, Result};
use crate::ids::{JobName, Step};
use crate::proto::v1;

pub(super) enum HookCall {
    Commit { job: String, step: Box<v1::StepInfo> },
    WorkerLost { job: String, generation: u64, ranks: Vec<u32>, hosts: Vec<String>, reason: String },
    Retain { job: JobName, steps: Vec<v1::StepInfo> },
}

impl HookCall {
    /// Of the function in the user's file.
    fn name(&self) -> &'static str {
        match self {
            HookCall::Commit { .. } => "on_commit",
            HookCall::WorkerLost { .. } => "on_worker_lost",
            HookCall::Retain { .. } => "retain",
        }
    }
}

/// Keeps one child and hands it calls, one after the other.
pub(super) struct Hooks {
    pub command: Vec<String>,
    pub limit: Duration,
    pub handle: Handle,
}

struct Running {
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    defined: BTreeSet<String>,
    next: u64,
}

impl Hooks {
    pub async fn run(self, mut calls: mpsc::UnboundedReceiver<HookCall>, stop: CancellationToken) {
        let mut running: Option<Running> = None;
        loop {
            let call = tokio::select! {
                () = stop.cancelled() => return,
                call = calls.recv() => match call { Some(call) => call, None => return },
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.handle_call(&mut running, call) => {}
            }
        }
    }

    async fn handle_call(&self, running: &mut Option<Running>, call: HookCall) {
        let job = match &call {
            HookCall::Retain { job, .. } => Some(job.clone()),
            HookCall::Commit { job, .. } | HookCall::WorkerLost { job, .. } => job.parse().ok(),
        };
        let done = tokio::time::timeout(self.limit, self.try_call(running, &call)).await;
        let error = match done {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::timeout(format!("a hook did not answer within {:?}", self.limit)),
        };
        // Dropped means killed: the next call starts a fresh child.
        *running = None;
        // What a hook that is only told something does changes no step.
        let kept = if matches!(call, HookCall::Retain { .. }) { ", everything is kept" } else { "" };
        let message = format!("running the hook {} failed{kept}: {}", call.name(), error.message);
        self.handle.post(move |engine| engine.hook_failed(job, message));
    }

    async fn try_call(&self, running: &mut Option<Running>, call: &HookCall) -> Result<()> {
        if running.is_none() {
            *running = Some(self.start().await?);
        }
        let child = running.as_mut().expect("started above");
        let name = call.name();
        let mut request = match call {
            HookCall::Commit { job, step } => json!({ "job": job, "step": step.to_json() }),
            HookCall::WorkerLost { job, generation, ranks, hosts, reason } => {
                json!({ "job": job, "generation": generation, "ranks": ranks, "hosts": hosts, "reason": reason })
            }
            HookCall::Retain { job, steps } => {
                json!({ "job": job, "steps": steps.iter().map(v1::StepInfo::to_json).collect::<Vec<_>>() })
            }
        };
        if !child.defined.contains(name) {
            if let HookCall::Retain { job, .. } = call {
                let job = job.clone();
                self.handle.post(move |engine| engine.no_retain_hook(&job));
            }
            return Ok(());
        }
        child.next += 1;
        (request["id"], request["call"]) = (child.next.into(), name.into());
        let answer = child.ask(&request).await?;
        if let HookCall::Retain { job, steps } = call {
            let asked: BTreeSet<Step> = steps.iter().map(|step| Step(step.step)).collect();
            let kept = serde_json::from_value(answer.clone()).map_err(|_| {
                Error::invalid(format!("retain returned {answer}, not a set of step numbers"))
            })?;
            let (job, answer) = (job.clone(), Retained { asked, kept });
            self.handle.post(move |engine| engine.retained(&job, &answer));
        }
        Ok(())
    }

    async fn start(&self) -> Result<Running> {
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| Error::invalid("starting the hooks: the command is empty"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .doing(|| format!("starting the hooks ({program})"))?;
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut running = Running { _child: child, stdin, stdout, defined: BTreeSet::new(), next: 0 };
        let hello = running.line().await?;
        if let Some(traceback) = hello["error"].as_str() {
            return Err(Error::invalid(format!("loading the hooks: {traceback}")));
        }
        let names = hello["hooks"].as_array().into_iter().flatten();
        running.defined = names.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(running)
    }
}

impl Running {
    async fn ask(&mut self, request: &Value) -> Result<Value> {
        let mut line = request.to_string();
        line.push('\n');
        self.stdin.write_all(line.as_bytes()).await.doing(|| "writing to the hooks")?;
        let mut answer = self.line().await?;
        if answer["id"] != request["id"] {
            return Err(Error::invalid(format!("the hooks answered {answer} to call {}", request["id"])));
        }
        match answer["error"].as_str() {
            Some(traceback) => Err(Error::invalid(traceback)),
            None => Ok(answer["ok"].take()),
        }
    }

    async fn line(&mut self) -> Result<Value> {
        let line = self.stdout.next_line().await.doing(|| "reading from the hooks")?;
        let line = line.ok_or_else(|| Error::unavailable("the hooks process has ended"))?;
        serde_json::from_str(&line)
            .map_err(|error| Error::invalid(format!("the hooks answered {line:?}: {error}")))
    }
}
