//! A node's sidecar: one session per trainer, the persist scheduler, and the service on the Unix socket.
//! Called by start-up alone; trainers reach it through `client`.
//! Never trusts a message where a slot header says otherwise; never blocks a trainer on the store.
