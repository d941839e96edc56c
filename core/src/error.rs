//! The one error type of Strata: a small public [`Kind`] that tells the caller what to do, a message that says what
//! was being done and what went wrong, and a hint. Every face (Python class, gRPC code, HTTP status, exit code) is
//! derived from the kind, here and nowhere else.

use std::fmt;
use std::time::Duration;

use tonic::metadata::MetadataValue;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about it. The table in the docs (Errors) is this enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong and stays wrong.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// Somebody else holds it or changed it: read again first.
    Conflict,
    /// The caller belongs to a generation that has ended: never retry.
    Fenced,
    /// The other side can't be reached: retry with backoff.
    Unavailable,
    /// The time-out passed; the outcome may be unknown.
    Timeout,
    /// A quota or a resource is exhausted: retry after the hint.
    Overloaded,
    /// Stored bytes are not what was written: another copy or another step.
    Corrupt,
    /// Not allowed.
    Denied,
    /// The caller gave up.
    Cancelled,
    /// A defect of ours.
    Internal,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::Invalid,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Fenced,
        Kind::Unavailable,
        Kind::Timeout,
        Kind::Overloaded,
        Kind::Corrupt,
        Kind::Denied,
        Kind::Cancelled,
        Kind::Internal,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Invalid => "Invalid",
            Kind::NotFound => "NotFound",
            Kind::Conflict => "Conflict",
            Kind::Fenced => "Fenced",
            Kind::Unavailable => "Unavailable",
            Kind::Timeout => "Timeout",
            Kind::Overloaded => "Overloaded",
            Kind::Corrupt => "Corrupt",
            Kind::Denied => "Denied",
            Kind::Cancelled => "Cancelled",
            Kind::Internal => "Internal",
        }
    }

    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Process exit code of a command that ends with this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Invalid => 2,
            Kind::NotFound => 3,
            Kind::Conflict => 4,
            Kind::Fenced => 5,
            Kind::Unavailable | Kind::Timeout | Kind::Overloaded => 6,
            Kind::Corrupt => 7,
            Kind::Denied => 8,
            Kind::Internal => 70,
            Kind::Cancelled => 130,
        }
    }

    pub fn grpc_code(self) -> tonic::Code {
        match self {
            Kind::Invalid => tonic::Code::InvalidArgument,
            Kind::NotFound => tonic::Code::NotFound,
            Kind::Conflict => tonic::Code::Aborted,
            Kind::Fenced => tonic::Code::FailedPrecondition,
            Kind::Unavailable => tonic::Code::Unavailable,
            Kind::Timeout => tonic::Code::DeadlineExceeded,
            Kind::Overloaded => tonic::Code::ResourceExhausted,
            Kind::Corrupt => tonic::Code::DataLoss,
            Kind::Denied => tonic::Code::PermissionDenied,
            Kind::Cancelled => tonic::Code::Cancelled,
            Kind::Internal => tonic::Code::Internal,
        }
    }

    fn from_grpc(code: tonic::Code) -> Kind {
        match code {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange | tonic::Code::Unimplemented => {
                Kind::Invalid
            }
            tonic::Code::NotFound => Kind::NotFound,
            tonic::Code::AlreadyExists | tonic::Code::Aborted => Kind::Conflict,
            tonic::Code::FailedPrecondition => Kind::Fenced,
            tonic::Code::Unavailable => Kind::Unavailable,
            tonic::Code::DeadlineExceeded => Kind::Timeout,
            tonic::Code::ResourceExhausted => Kind::Overloaded,
            tonic::Code::DataLoss => Kind::Corrupt,
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Kind::Denied,
            tonic::Code::Cancelled => Kind::Cancelled,
            tonic::Code::Ok | tonic::Code::Unknown | tonic::Code::Internal => Kind::Internal,
        }
    }

    pub fn http_status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::NotFound => 404,
            Kind::Conflict | Kind::Fenced => 409,
            Kind::Unavailable => 503,
            Kind::Timeout => 504,
            Kind::Overloaded => 429,
            Kind::Corrupt | Kind::Internal => 500,
            Kind::Denied => 403,
            Kind::Cancelled => 499,
        }
    }

    /// Whether the same call may succeed when it is simply made again.
    pub fn is_retryable(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::Timeout | Kind::Overloaded)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error as a user reads it: `what was being done: what went wrong`, then `hint:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
    pub retry_after: Option<Duration>,
    /// Of a coordinator that does not lead its set: the address of the one that does, as far as it knows; empty: of none.
    pub leader: Option<String>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {$(
        pub fn $name(message: impl Into<String>) -> Error {
            Error::new(Kind::$kind, message)
        }
    )*};
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hint: None, retry_after: None, leader: None }
    }

    constructors! {
        invalid => Invalid, not_found => NotFound, conflict => Conflict, fenced => Fenced, unavailable => Unavailable,
        timeout => Timeout, overloaded => Overloaded, corrupt => Corrupt, denied => Denied, cancelled => Cancelled,
        internal => Internal,
    }

    /// Adds what the user should do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Says who leads instead; empty: nobody that is known.
    pub fn led_by(mut self, leader: impl Into<String>) -> Error {
        self.leader = Some(leader.into());
        self
    }

    pub fn retry_after(mut self, after: Duration) -> Error {
        self.retry_after = Some(after);
        self
    }

    /// Says what was being done: `doing: message`, unless the message says it already.
    pub fn while_doing(mut self, doing: impl fmt::Display) -> Error {
        let doing = format!("{doing}: ");
        if !self.message.starts_with(&doing) {
            self.message.insert_str(0, &doing);
        }
        self
    }

    /// Maps a system error by its errno; `doing` names the action and the path.
    pub fn io(doing: impl fmt::Display, error: &std::io::Error) -> Error {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => Kind::NotFound,
            Io::PermissionDenied => Kind::Denied,
            Io::AlreadyExists => Kind::Conflict,
            Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory => Kind::Overloaded,
            Io::TimedOut => Kind::Timeout,
            Io::InvalidInput | Io::IsADirectory | Io::NotADirectory | Io::InvalidFilename => Kind::Invalid,
            Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::BrokenPipe
            | Io::NotConnected
            | Io::HostUnreachable => Kind::Unavailable,
            _ => Kind::Unavailable,
        };
        Error::new(kind, format!("{doing}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// `result.doing(|| format!("reading {path}"))`: says what was being done, for our errors and for system errors.
pub trait Doing<T> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Doing<T> for Result<T> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.while_doing(doing()))
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::io(doing(), &error))
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing<D: fmt::Display>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|errno| Error::io(doing(), &errno.into()))
    }
}

/// Kind, hint and retry-after travel beside the gRPC status, so that an error reads the same on both sides.
pub(crate) const KIND_KEY: &str = "strata-kind";
const HINT_KEY: &str = "strata-hint-bin";
const RETRY_KEY: &str = "strata-retry-after-ms";
/// Of a coordinator that does not lead its set: who does.
pub(crate) const LEADER_KEY: &str = "strata-leader";

impl From<Error> for tonic::Status {
    fn from(error: Error) -> tonic::Status {
        let mut status = tonic::Status::new(error.kind.grpc_code(), error.message);
        let metadata = status.metadata_mut();
        metadata.insert(KIND_KEY, MetadataValue::from_static(error.kind.name()));
        if let Some(hint) = error.hint {
            metadata.insert_bin(HINT_KEY, MetadataValue::from_bytes(hint.as_bytes()));
        }
        if let Some(after) = error.retry_after {
            metadata.insert(RETRY_KEY, MetadataValue::from(after.as_millis() as u64));
        }
        // Addresses are ASCII: configuration lets no others through.
        if let Some(leader) = error.leader.and_then(|leader| leader.parse().ok()) {
            metadata.insert(LEADER_KEY, leader);
        }
        status
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        let metadata = status.metadata();
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        // A connection that broke before it stood has no code of its own: whoever ended it was on its way down.
        let broke = status.code() == tonic::Code::Unknown && std::error::Error::source(&status).is_some();
        let kind = match text(KIND_KEY).and_then(Kind::from_name) {
            Some(kind) => kind,
            None if broke => Kind::Unavailable,
            None => Kind::from_grpc(status.code()),
        };
        let hint = metadata.get_bin(HINT_KEY).and_then(|value| value.to_bytes().ok());
        let retry = text(RETRY_KEY).and_then(|value| value.parse().ok()).map(Duration::from_millis);
        Error {
            kind,
            message: status.message().to_owned(),
            hint: hint.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            retry_after: retry,
            leader: text(LEADER_KEY).map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_reads_the_same_on_both_sides_of_the_wire() {
        for kind in Kind::ALL {
            let error = Error::new(kind, "saving step 3: größer")
                .hint("do ä")
                .retry_after(Duration::from_millis(7))
                .led_by("http://a:1");
            let back = Error::from(tonic::Status::from(error.clone()));
            assert_eq!(back, error);
        }
    }

    #[test]
    fn connection_that_broke_while_it_was_made_is_unavailable() {
        let reset = std::io::Error::other("connection reset");
        let status = tonic::Status::from_error(Box::new(reset));
        assert_eq!(status.code(), tonic::Code::Unknown);
        assert_eq!(Error::from(status).kind, Kind::Unavailable);
        assert_eq!(Error::from(tonic::Status::unknown("said by a server")).kind, Kind::Internal);
    }

    #[test]
    fn full_disk_is_overloaded() {
        let error = Error::io("writing x", &std::io::Error::from_raw_os_error(28));
        assert_eq!(error.kind, Kind::Overloaded);
    }
}
