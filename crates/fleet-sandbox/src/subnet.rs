//! Addresses: a free /24 for each sandbox, and every name and number that follows from it.

use std::fs;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::At;
use crate::{Error, Result};

/// Where sandboxes get their subnets: the first two bytes, and a letter for interface names.
/// Private or benchmark ranges that few networks use.
const RANGES: [(char, u8, u8); 3] = [('a', 10, 213), ('b', 172, 29), ('c', 198, 19)];
/// The last byte of etcd's first member; below is the bridge.
const FIRST_MEMBER: u8 = 2;
/// The first host's last byte.
const FIRST_HOST: u8 = 11;
/// The last byte of the MAC address of etcd's first member; below are the bridge and the hosts.
const FIRST_MEMBER_MAC: u8 = 0xe0;

/// A /24 of its own for one sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet {
    /// Which of the ranges.
    range: u8,
    /// The third byte.
    third: u8,
}

impl Subnet {
    /// The first subnet that overlaps neither a route nor one of the given.
    pub(crate) fn pick(taken: &[Subnet]) -> Result<Subnet> {
        let table = fs::read_to_string("/proc/net/route").at("read", "/proc/net/route")?;
        let routes = routes(&table);
        candidates()
            .find(|subnet| !taken.contains(subnet) && !routes.iter().any(|r| subnet.overlaps(*r)))
            .ok_or_else(|| Error::NoFreeSubnet {
                tried: RANGES.map(|(_, a, b)| format!("{a}.{b}.0.0/16")).join(", "),
            })
    }

    fn byte(self, last: u8) -> Ipv4Addr {
        let (_, a, b) = RANGES[usize::from(self.range)];
        Ipv4Addr::new(a, b, self.third, last)
    }

    /// The bridge's address: the hosts' default route.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        self.byte(1)
    }

    /// The address of etcd's member `index` (from 0).
    #[must_use]
    pub fn member(self, index: u8) -> Ipv4Addr {
        self.byte(FIRST_MEMBER + index)
    }

    /// The address of host `index` (from 0).
    #[must_use]
    pub fn host(self, index: u8) -> Ipv4Addr {
        self.byte(FIRST_HOST + index)
    }

    /// The MAC address of etcd's member `index` (from 0).
    pub(crate) fn member_mac(self, index: u8) -> String {
        self.mac(FIRST_MEMBER_MAC + index)
    }

    /// A MAC address that is the sandbox's own. Locally administered (02), then the subnet.
    pub(crate) fn mac(self, index: u8) -> String {
        format!("02:f1:ee:{:02x}:{:02x}:{index:02x}", self.range, self.third)
    }

    /// The bridge's name, within the kernel's 15 bytes.
    pub(crate) fn bridge(self) -> String {
        format!("fsb-{}{}", RANGES[usize::from(self.range)].0, self.third)
    }

    /// The name of the computer's end of a host's cable, within 15 bytes.
    pub(crate) fn cable(self, index: u8) -> String {
        format!(
            "fsv-{}{}-{}",
            RANGES[usize::from(self.range)].0,
            self.third,
            u16::from(index) + 1
        )
    }

    /// The name of the computer's end of the cable of etcd's member `index` (from 0).
    pub(crate) fn member_cable(self, index: u8) -> String {
        format!(
            "fsv-{}{}-e{}",
            RANGES[usize::from(self.range)].0,
            self.third,
            u16::from(index) + 1
        )
    }

    fn overlaps(self, (network, mask): (u32, u32)) -> bool {
        // Two networks overlap when they agree under the shorter of both masks. A default
        // route (mask 0) agrees with everything and takes nothing.
        mask != 0 && u32::from(self.byte(0)) & mask & 0xffff_ff00 == network & mask & 0xffff_ff00
    }
}

fn candidates() -> impl Iterator<Item = Subnet> {
    (0u8..)
        .take(RANGES.len())
        .flat_map(|range| (0..=255).map(move |third| Subnet { range, third }))
}

/// Destinations and masks of /proc/net/route, which has them in memory order.
fn routes(table: &str) -> Vec<(u32, u32)> {
    let number = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::swap_bytes);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((number(fields.get(1)?)?, number(fields.get(7)?)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn free_beside(line: &str) -> Option<Subnet> {
        let routes = routes(&format!("{HEAD}{line}\n"));
        candidates().find(|s| !routes.iter().any(|r| s.overlaps(*r)))
    }

    #[test]
    fn a_default_route_takes_nothing() {
        let subnet =
            free_beside("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0").unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 213, 0, 1));
    }

    #[test]
    fn a_route_inside_a_subnet_takes_it() {
        // 10.213.0.128/25
        let subnet =
            free_beside("eth0\t8000D50A\t00000000\t0001\t0\t0\t0\t80FFFFFF\t0\t0\t0").unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 213, 1, 1));
    }

    #[test]
    fn a_route_around_a_range_takes_all_of_it() {
        // 10.0.0.0/8
        let subnet =
            free_beside("tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0").unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 29, 0, 1));
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        for subnet in candidates() {
            assert!(subnet.bridge().len() <= 15 && subnet.cable(254).len() <= 15);
            assert!(subnet.member_cable(9).len() <= 15);
        }
    }

    #[test]
    fn names_and_macs_of_two_subnets_differ() {
        let (a, b) = (Subnet { range: 0, third: 7 }, Subnet { range: 1, third: 7 });
        assert_ne!(a.bridge(), b.bridge());
        assert_ne!(a.mac(1), b.mac(1));
    }
}
