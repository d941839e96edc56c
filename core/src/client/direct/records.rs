//! Records that a launcher's agents agree over, in the coordinator. Calls are made again while the connection breaks.

use std::time::Duration;

use tonic::transport::Channel;

use super::super::interrupt::Interrupt;
use super::super::steps::MAX_REPLY;
use super::line::Line;
use crate::error::{Error, Result};
use crate::proto::v1;
use crate::proto::v1::rendezvous_client::RendezvousClient;
use crate::proto::v1::write_record_request::Change;

/// One record as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub value: Vec<u8>,
    pub version: u64,
}

/// The records of one rendezvous. Every call blocks up to its time-out, which bounds the retries too: Unavailable when the
/// coordinator could not be reached for so long, Timeout when it does not answer, Denied for another token.
pub struct Records {
    line: Line,
    rendezvous: String,
    token: String,
}

impl Records {
    pub fn new(line: Line, rendezvous: String, token: Option<String>) -> Records {
        Records { line, rendezvous, token: token.unwrap_or_default() }
    }

    pub fn url(&self) -> &str {
        self.line.url()
    }

    /// Those of `keys` that are there; with `wait` as soon as all of them are, or when the time has passed.
    pub fn get(
        &self,
        keys: &[String],
        wait: bool,
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<Vec<Record>> {
        let doing = format!("reading rendezvous {:?}", self.rendezvous);
        let reply = self.line.block(&doing, timeout, interrupt, |channel, left| {
            let request = v1::GetRecordsRequest {
                rendezvous: self.rendezvous.clone(),
                keys: keys.to_vec(),
                wait_ms: if wait { left.as_millis() as u64 } else { 0 },
                token: self.token.clone(),
            };
            async move { client(channel).get_records(request).await }
        })?;
        Ok(reply.records.into_iter().map(Record::from).collect())
    }

    /// Sets a record, with a version only over that one (0: only where there is none, or an empty one). Durable and atomic.
    /// Whether it was set, and the record as it is now.
    pub fn set(
        &self,
        key: &str,
        value: &[u8],
        version: Option<u64>,
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<(bool, Option<Record>)> {
        let change = Change::Set(v1::SetValue { value: value.to_vec(), version });
        let reply = self.write(key, change, timeout, interrupt)?;
        Ok((reply.written, reply.record.map(Record::from)))
    }

    /// Adds to a decimal number; absent is 0. The sum; after a retry with what others have added since.
    pub fn add(&self, key: &str, amount: i64, timeout: Duration, interrupt: &dyn Interrupt) -> Result<i64> {
        let reply = self.write(key, Change::Add(amount), timeout, interrupt)?;
        let sum = reply.record.and_then(|record| String::from_utf8(record.value).ok()?.parse().ok());
        sum.ok_or_else(|| {
            Error::internal(format!("adding to record {key:?}: what the coordinator told is no number"))
        })
    }

    fn write(
        &self,
        key: &str,
        change: Change,
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<v1::WriteRecordReply> {
        let request = v1::WriteRecordRequest {
            rendezvous: self.rendezvous.clone(),
            key: key.to_owned(),
            change: Some(change),
            write: uuid::Uuid::new_v4().as_u64_pair().0,
            token: self.token.clone(),
        };
        let doing = format!("writing to rendezvous {:?}", self.rendezvous);
        self.line.block(&doing, timeout, interrupt, |channel, _| {
            let request = request.clone();
            async move { client(channel).write_record(request).await }
        })
    }
}

impl From<v1::Record> for Record {
    fn from(record: v1::Record) -> Record {
        Record { key: record.key, value: record.value, version: record.version }
    }
}

fn client(channel: Channel) -> RendezvousClient<Channel> {
    RendezvousClient::new(channel).max_decoding_message_size(MAX_REPLY)
}
