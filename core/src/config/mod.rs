//! Configuration: every key declared once (default, environment name, text), and where things are found.
//! Called by start-up, the command line and the client: [`Environment::process`], then [`Loaded::load`].
//! Reads files and the environment, nothing else; the one file it writes is `endpoint.json`.

mod endpoint;
mod environment;
mod example;
mod file;
mod keys;
mod limits;
mod load;
pub mod locate;
mod resolve;
mod targets;
mod value;

pub use endpoint::Endpoint;
pub use environment::Environment;
pub use example::example;
pub use keys::{
    CheckpointConfig, Config, CoordinatorConfig, DataConfig, JobConfig, KeySpec, LogConfig, SECTIONS,
    SectionSpec, SidecarConfig, StoreConfig, find,
};
pub use load::{Loaded, check, find_file};
pub use resolve::{Flag, Origin};
pub use targets::TargetConfig;
pub use value::{ByteSize, Extreme, Form, Listen, SaveEvery, Secret, Setting};
