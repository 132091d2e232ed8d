//! Whether a unit file may be stored.
