//! What lies in arenas and stores: manifest, chunk table, COMMIT, OWNER, arena headers. Pure and versioned.
//! Called by everyone above. Does no IO; every format has a golden sample.
