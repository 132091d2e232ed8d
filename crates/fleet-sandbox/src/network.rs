//! Cables: a bridge for each sandbox, a network namespace and a cable for each host and for each
//! member of etcd.
//!
//! A host that is switched off has no namespace: with it go its sockets, so that nobody gets
//! a farewell from a machine whose power was cut.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::program::{IP, UMOUNT};
use crate::record::{HostRecord, Lock, Loss, MemberRecord, Record, lock};
use crate::{Error, Result, wait_for};

/// Name of the host's own end of the cable.
const INSIDE: &str = "host0";
/// Where ip(8) keeps namespaces.
const NETNS: &str = "/run/netns";
/// A namespace stays, and its cable with it, while somebody else is in it, and while the kernel
/// repeats what dead processes have sent and nobody acknowledges: the cable is out.
const GONE_BOUND: Duration = Duration::from_secs(1);
/// In the directory of records: /run/netns is there because of us.
const MADE_NETNS: &str = "/run/fleet-sandbox/made-run-netns";

/// What is plugged into the bridge: a host, or a member of etcd.
#[derive(Clone, Copy)]
pub(crate) struct Plug<'a> {
    /// Whose it is.
    pub(crate) name: &'a str,
    /// The computer's end of the cable.
    pub(crate) cable: &'a str,
    /// The namespace at the other end, and what the interface in there has.
    netns: &'a str,
    mac: &'a str,
    address: Ipv4Addr,
    /// The cable is to be out.
    cut: bool,
    /// It is in, and loses these frames.
    loss: Option<Loss>,
}

impl<'a> From<&'a HostRecord> for Plug<'a> {
    fn from(host: &'a HostRecord) -> Plug<'a> {
        Plug {
            name: &host.name,
            cable: &host.cable,
            netns: &host.netns,
            mac: &host.mac,
            address: host.address,
            cut: host.cut,
            loss: host.loss,
        }
    }
}

impl<'a> From<&'a MemberRecord> for Plug<'a> {
    fn from(member: &'a MemberRecord) -> Plug<'a> {
        Plug {
            name: &member.name,
            cable: &member.cable,
            netns: &member.netns,
            mac: &member.mac,
            address: member.address,
            cut: member.cut,
            loss: member.loss,
        }
    }
}

/// Makes the bridge with its address. Its MAC address is fixed: a borrowed one changes when
/// hosts come and go, and everything loses the bridge for seconds.
pub(crate) fn make_bridge(record: &Record) -> Result<()> {
    let bridge = &record.bridge;
    let script = format!(
        "link add {bridge} address {} type bridge stp_state 0 forward_delay 0\n\
         link set {bridge} alias fleet-sandbox:{}\n\
         addr add {}/24 dev {bridge}\n\
         link set {bridge} addrgenmode none\n\
         link set {bridge} up\n",
        record.subnet.mac(0),
        record.name,
        record.subnet.gateway(),
    );
    batch(&script)
}

/// Makes the namespace and plugs the cable in, unless it was cut.
pub(crate) fn plug<'a>(record: &Record, plug: impl Into<Plug<'a>>) -> Result<()> {
    let plug = plug.into();
    let Plug {
        name,
        netns,
        cable,
        mac,
        address,
        ..
    } = plug;
    let outside = format!(
        "link add {cable} type veth peer name {INSIDE} address {mac} netns {netns}\n\
         link set {cable} alias fleet-sandbox:{}\n\
         link set {cable} addrgenmode none\n\
         link set {cable} master {}\n\
         {}",
        name,
        record.bridge,
        settings(&plug),
    );
    let inside = format!(
        "link set lo up\n\
         link set {INSIDE} addrgenmode none\n\
         addr add {address}/24 dev {INSIDE}\n\
         link set {INSIDE} up\n\
         route add default via {}\n",
        record.subnet.gateway(),
    );
    add_netns(netns, &lock()?)?;
    batch(&outside)?;
    IP.run_with_input(&["-netns", netns, "-batch", "-"], &inside)
        .map(|_| ())
}

/// Takes the cable of a host out at once, so that nothing it says from now on is heard.
/// No cable is no error.
pub(crate) fn silence(host: &HostRecord) -> Result<()> {
    match IP.run(&["link", "set", &host.cable, "down"]).map(|_| ()) {
        Err(Error::Command { .. }) if !link_exists(&host.cable) => Ok(()),
        other => other,
    }
}

/// Removes the namespace and the cable of who has no processes any more. Nothing to do is no
/// error.
pub(crate) fn unplug<'a>(plug: impl Into<Plug<'a>>) -> Result<()> {
    let plug = plug.into();
    let lock = lock()?;
    if namespace(plug).exists() {
        IP.run(&["netns", "delete", plug.netns])?;
    }
    tidy_netns(&lock);
    drop(lock);
    // The cable goes with its namespace: the kernel removes those of many hosts at once,
    // whereas each removal by hand waits for all the others.
    let gone = wait_for(
        &format!("the end of cable {}", plug.cable),
        GONE_BOUND,
        || {
            if link_exists(plug.cable) {
                Err("it is there")
            } else {
                Ok(())
            }
        },
    );
    gone.or_else(|_| delete_link(plug.cable))
}

/// Where the namespace is, for nsenter(1).
pub(crate) fn namespace<'a>(plug: impl Into<Plug<'a>>) -> PathBuf {
    Path::new(NETNS).join(plug.into().netns)
}

/// Removes the bridge. Nothing to do is no error.
pub(crate) fn remove_bridge(record: &Record) -> Result<()> {
    delete_link(&record.bridge)
}

/// Has a cable be as its record says, at the computer's end.
pub(crate) fn set_cable<'a>(plug: impl Into<Plug<'a>>) -> Result<()> {
    batch(&settings(&plug.into()))
}

/// Lines for ip(8): is the cable in, and which frames does the bridge's port lose?
///
/// A port that learns no address, and floods nothing, has no frame for who is behind it; one that is
/// locked takes frames from addresses that it knows only, and it knows none. Both leave the link up,
/// unlike the port's state, which the kernel also puts back by itself when links come and go.
fn settings(plug: &Plug) -> String {
    let cable = plug.cable;
    let on = |yes: bool| if yes { "on" } else { "off" };
    let hears = on(!matches!(plug.loss, Some(Loss::To | Loss::Both)));
    let locked = on(matches!(plug.loss, Some(Loss::From | Loss::Both)));
    let learns = on(plug.loss.is_none());
    let plugged = if plug.cut { "down" } else { "up" };
    format!(
        "link set {cable} type bridge_slave learning {learns} locked {locked} flood {hears} \
         mcast_flood {hears} bcast_flood {hears} fdb_flush\n\
         link set {cable} {plugged}\n"
    )
}

fn batch(script: &str) -> Result<()> {
    IP.run_with_input(&["-batch", "-"], script).map(|_| ())
}

fn delete_link(name: &str) -> Result<()> {
    if !link_exists(name) {
        return Ok(());
    }
    match IP.run(&["link", "delete", name]) {
        // It went with its namespace meanwhile.
        Err(Error::Command { .. }) if !link_exists(name) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// /sys/class/net may be another namespace's, when we are in a container ourselves.
fn link_exists(name: &str) -> bool {
    let links = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    links.lines().any(|line| {
        line.split_once(':')
            .is_some_and(|(link, _)| link.trim() == name)
    })
}

/// ip(8) makes /run/netns a mount of its own the first time, and two that do so at once stack
/// it up: hence the lock. It goes on when we are killed, and whoever takes down what we have left
/// waits for its end.
fn add_netns(name: &str, lock: &Lock) -> Result<()> {
    if !Path::new(NETNS).exists() {
        // Without the mark the mount stays when all is down: harmless.
        let _ = std::fs::write(MADE_NETNS, "");
    }
    IP.run_with_file(&["netns", "add", name], lock.share()?)
        .map(|_| ())
}

/// Removes /run/netns and its mount when it was not there before us and nobody uses it.
fn tidy_netns(_: &Lock) {
    let empty = std::fs::read_dir(NETNS).is_ok_and(|mut entries| entries.next().is_none());
    if Path::new(MADE_NETNS).exists() && empty && UMOUNT.run(&[NETNS]).is_ok() {
        let _ = std::fs::remove_dir(NETNS);
        let _ = std::fs::remove_file(MADE_NETNS);
    }
}
