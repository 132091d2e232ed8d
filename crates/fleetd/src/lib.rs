//! fleetd.
