//! Real systemd machines on one computer.
//!
//! A *sandbox* is a number of hosts, a network and an etcd. Each *host* is a systemd-nspawn
//! container with its own systemd as PID 1, journal, D-Bus, machine id, network namespace and
//! address on a bridge, in cgroups of its own: for fleetd, and for whoever tests it, a machine.
//! It boots in a second and takes about 15 MB. Its power and its network cable can be cut.
//! Members of etcd run beside the hosts, each with an address and a cable of its own. What runs in
//! it is real: systemd starts the units, etcd keeps the keys; nothing is simulated.
//!
//! From the shell, as root:
//!
//! ```text
//! fleet-sandbox up --name demo --hosts 3 --no-fleetd       # demo-1, demo-2, demo-3, one etcd
//! fleet-sandbox up --name demo --hosts 3 --bin-dir target/debug \
//!     --metadata region=us-west --metadata region=us-east  # with fleetd, fleetctl in PATH
//! fleet-sandbox list
//! fleet-sandbox exec demo-1 -- systemctl list-units
//! fleet-sandbox cut demo-1; fleet-sandbox heal demo-1      # the network cable
//! fleet-sandbox cut --to demo-1                            # it hears nothing, and is heard
//! fleet-sandbox cut --silent demo-1                        # all is lost, the link stays up
//! fleet-sandbox kill demo-1; fleet-sandbox boot demo-1     # the power
//! fleet-sandbox kill demo-etcd1; fleet-sandbox boot demo-etcd1  # a member of etcd, of 3 with --etcd 3
//! fleet-sandbox save-etcd --name demo FILE; fleet-sandbox restore-etcd --name demo FILE
//! fleet-sandbox logs demo-1
//! fleet-sandbox down --name demo
//! ```
//!
//! From a test:
//!
//! ```no_run
//! # fn main() -> fleet_sandbox::Result<()> {
//! use fleet_sandbox::Sandbox;
//! let sandbox = Sandbox::builder().hosts(3).metadata(0, "region=us-west").up()?;
//! let first = sandbox.host(0);
//! first.write_file("/etc/systemd/system/x.service", "[Service]\nExecStart=/bin/sleep 1d\n")?;
//! first.run(&["systemctl", "start", "x.service"])?;
//! first.kill()?; // power cut
//! first.boot()?;
//! assert_eq!(first.exec(&["systemctl", "is-active", "x.service"])?.stdout, "inactive\n");
//! # Ok(()) } // dropping it takes everything down
//! ```
//!
//! # What must hold
//!
//! - Everything is written down before it is made ([`Record`], in `/run/fleet-sandbox/NAME`),
//!   so [`down`] removes all of it, also after `kill -9` of whoever made it.
//! - Only processes in cgroups of the sandbox's own are ended, or by number *and* start time.
//! - Two sandboxes share nothing: name, subnet, interfaces, cgroups, directories.
//! - Every wait has a bound and says in its failure what it last saw.
//! - This package knows fleetd only as a binary with units and a configuration file.

mod builder;
mod down;
mod error;
mod etcd;
mod fleet;
mod host;
mod limits;
mod network;
mod nspawn;
mod process;
mod program;
mod record;
mod sandbox;
mod scope;
mod subnet;
mod tree;
mod wait;

pub use builder::{Builder, ETCD_MAX, HOSTS_MAX};
pub use down::{down, sweep};
pub use error::{Error, Result};
pub use etcd::Member;
pub use host::{Host, Output};
pub use process::Process;
pub use record::{HostRecord, Loss, MemberRecord, RUN_DIRECTORY, Record, list, load};
pub use sandbox::{Sandbox, built_beside};
pub use scope::Scope;
pub use subnet::Subnet;
pub use wait::wait_for;
