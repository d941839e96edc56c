//! Records of launchers' agents: read, waited for, changed. Who waits is not logged: a caller asks again after a restart.

use super::super::state::{Change, Command, Record, RecordWrite};
use super::{Engine, Reply};
use crate::error::{Error, Kind, Result};
use crate::proto::v1;

/// Callers that wait for keys, by rendezvous; few, and looked through at each change.
#[derive(Default)]
pub struct Awaited {
    waiting: Vec<(v1::GetRecordsRequest, Reply<v1::GetRecordsReply>)>,
}

impl Engine {
    /// What there is of the keys that are asked for.
    pub fn records(&self, asked: &v1::GetRecordsRequest) -> Result<v1::GetRecordsReply> {
        let mut records = Vec::new();
        for key in &asked.keys {
            if let Some(record) = self.state.rendezvous.get(&asked.rendezvous, &asked.token, key)? {
                records.push(told(key, record));
            }
        }
        Ok(v1::GetRecordsReply { records })
    }

    /// Answers once all keys are there.
    pub fn wait_records(&mut self, asked: v1::GetRecordsRequest, reply: Reply<v1::GetRecordsReply>) {
        match self.records(&asked) {
            Ok(found) if found.records.len() < asked.keys.len() => {
                self.awaited.waiting.retain(|(_, reply)| !reply.0.is_closed());
                self.awaited.waiting.push((asked, reply));
            }
            answer => self.answer(reply, answer),
        }
    }

    pub fn write_record(&mut self, request: v1::WriteRecordRequest) -> Result<v1::WriteRecordReply> {
        let change = match request.change {
            Some(v1::write_record_request::Change::Set(set)) => {
                Change::Set { value: set.value, version: set.version }
            }
            Some(v1::write_record_request::Change::Add(amount)) => Change::Add(amount),
            None => return Err(Error::invalid("writing a record: the request says no change")),
        };
        let v1::WriteRecordRequest { rendezvous, key, write, token, .. } = request;
        let write = RecordWrite { rendezvous, token, key, change, write };
        let written = match self.state.rendezvous.is_repeated(&write)? {
            true => true,
            false => match self.submit(Command::WriteRecord(Box::new(write.clone()))) {
                Ok(()) => true,
                Err(error) if error.kind == Kind::Conflict => false,
                Err(error) => return Err(error),
            },
        };
        if written {
            self.tell_awaited(&write.rendezvous);
        }
        let record = self.state.rendezvous.get(&write.rendezvous, &write.token, &write.key)?;
        Ok(v1::WriteRecordReply { written, record: record.map(|record| told(&write.key, record)) })
    }

    fn tell_awaited(&mut self, rendezvous: &str) {
        let (of_this, others) = std::mem::take(&mut self.awaited.waiting)
            .into_iter()
            .partition(|(asked, _)| asked.rendezvous == rendezvous);
        self.awaited.waiting = others;
        for (asked, reply) in of_this {
            self.wait_records(asked, reply);
        }
    }
}

fn told(key: &str, record: &Record) -> v1::Record {
    v1::Record { key: key.to_owned(), version: record.version, value: record.value.clone() }
}
