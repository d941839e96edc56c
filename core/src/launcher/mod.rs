//! `strata run`: ranks, their environment, restarts and logs on one node.
//! Called by the command line. Never touches checkpoints itself.
