//! Arenas: layout, fill, seal, adoption. The shared memory between a trainer and its sidecar.
//! Called by `client` (fills, seals, reads) and `sidecar` (creates, scans, frees). Truth is in the slot headers.
//! Never touches a store or a socket.
