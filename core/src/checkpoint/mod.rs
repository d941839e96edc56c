//! The checkpoint engine: save plan, packs, commit, restore, retention, verification.
//! Called by the sidecar (and by `inspect`, `verify` without one). Never decides which step is newest: the coordinator does.
