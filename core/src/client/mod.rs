//! What the Python package calls: the Unix socket, the arena writer, reconnection.
//! Called by pylib (and by the launcher for its sidecar). Never holds a tensor beyond the call that passed it.
