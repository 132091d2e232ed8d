//! fleet-sandbox.
