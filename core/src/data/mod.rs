//! Datasets: scan, read, batches. Called by `client` and pylib. Reads files, never writes.
