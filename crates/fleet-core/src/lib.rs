//! fleet-core.
