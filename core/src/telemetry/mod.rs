//! Logs and metrics: the registry behind /metrics, log set-up.
//! Called by every room above. Never sends anything anywhere.
