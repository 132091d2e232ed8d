//! fleet-sandbox.
fn main() {}
