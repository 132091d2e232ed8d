//! Under which address this machine is reached.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Documentation addresses (RFC 5737, RFC 3849): only asked for the route to them. Connecting a
/// UDP socket sends nothing.
const FAR_AWAY: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// The address that packets over the default route come from, IPv4 before IPv6. None without
/// a default route, or when only loopback or link-local addresses are there.
pub(crate) fn find() -> Option<IpAddr> {
    FAR_AWAY.iter().find_map(|(own, far)| {
        let socket = UdpSocket::bind(own).ok()?;
        socket.connect(far).ok()?;
        socket
            .local_addr()
            .ok()
            .map(|address: SocketAddr| address.ip())
            .filter(is_global)
    })
}

fn is_global(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_can_use_are_published() {
        for address in ["10.0.0.1", "192.0.2.7", "2001:db8::7", "fd5e::7"] {
            assert!(is_global(&address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.1",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
        ] {
            assert!(!is_global(&address.parse().unwrap()), "{address}");
        }
    }
}
