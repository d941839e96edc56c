//! The cluster's coordinator: one deterministic state machine, its redb log, leases, barriers, and the gRPC services.
//! Called by start-up alone; sidecars and workers reach it over gRPC.
//! The state machine never reads a clock, does IO or draws randomness; effects leave only after their record is durable.
