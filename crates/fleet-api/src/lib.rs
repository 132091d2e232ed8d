//! fleet-api.
