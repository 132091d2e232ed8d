//! How fleetd's own tasks come to life: the simulator stops and kills them with their process.

#[cfg(fleet_sim)]
pub(crate) use crate::sim::spawn;
#[cfg(not(fleet_sim))]
pub(crate) use tokio::spawn;
