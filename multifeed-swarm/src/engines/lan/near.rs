//! Which addresses are in networks of this machine: an announcement sends nobody to any other.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

use if_addrs::{IfAddr, Interface};
use mdns_sd::{InterfaceId, ScopedIp};

/// How long a list of interfaces is used, so that a flood of announcements does not ask for it each time.
const LIST_TIME: Duration = Duration::from_secs(1);

/// The interfaces of this machine.
pub(super) struct Near {
    loopback_only: bool,
    listed: Option<(Instant, Vec<Interface>)>,
}

impl Near {
    pub(super) fn new(loopback_only: bool) -> Self {
        Self { loopback_only, listed: None }
    }

    pub(super) fn changed(&mut self) {
        self.listed = None;
    }

    /// The socket address of an address that was announced; `None` if it is not in a network of this machine.
    pub(super) fn address(&mut self, ip: &ScopedIp, port: u16) -> Option<SocketAddr> {
        let now = Instant::now();
        let is_old = |(when, _): &(Instant, _)| now.saturating_duration_since(*when) > LIST_TIME;
        if self.listed.as_ref().is_none_or(is_old) {
            self.listed = Some((now, if_addrs::get_if_addrs().unwrap_or_default()));
        }
        let interfaces = self.listed.as_ref().map_or(&[][..], |(_, interfaces)| interfaces);
        let (scope, over): (u32, &[InterfaceId]) = match ip {
            ScopedIp::V4(v4) => (0, v4.interface_ids()),
            ScopedIp::V6(v6) => (v6.scope_id().index, std::slice::from_ref(v6.scope_id())),
            _ => return None,
        };
        let over_loopback = !over.is_empty()
            && over.iter().all(|over| {
                interfaces.iter().any(|interface| interface.is_loopback() && interface.index == Some(over.index))
            });
        let ip = ip.to_ip_addr();
        if port == 0 || !is_near(ip, interfaces, over_loopback, self.loopback_only) {
            return None;
        }
        Some(match ip {
            IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
            IpAddr::V6(ip) => {
                let scope = if ip.is_unicast_link_local() { scope } else { 0 };
                SocketAddrV6::new(ip, port, 0, scope).into()
            }
        })
    }
}

/// Whether an address is in a network of this machine. One of this machine alone has to come from it.
fn is_near(ip: IpAddr, interfaces: &[Interface], over_loopback: bool, loopback_only: bool) -> bool {
    if ip.is_loopback() || loopback_only {
        return ip.is_loopback() && over_loopback;
    }
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() => false,
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => false,
        // Its scope says by which interface it is reached.
        IpAddr::V6(ip) if ip.is_unicast_link_local() => true,
        ip => interfaces.iter().any(|interface| match (&interface.addr, ip) {
            (IfAddr::V4(own), IpAddr::V4(ip)) => {
                let mask = u32::from(own.netmask);
                own.broadcast != Some(ip) && mask != 0 && (u32::from(own.ip) ^ u32::from(ip)) & mask == 0
            }
            (IfAddr::V6(own), IpAddr::V6(ip)) => {
                let mask = u128::from(own.netmask);
                mask != 0 && (u128::from(own.ip) ^ u128::from(ip)) & mask == 0
            }
            _ => false,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(addr: IfAddr) -> Interface {
        Interface {
            name: "eth0".to_owned(),
            addr,
            index: Some(2),
            oper_status: IfOperStatus::Up,
            is_p2p: false,
            #[cfg(windows)]
            adapter_name: String::new(),
        }
    }

    #[test]
    fn only_addresses_in_networks_of_this_machine_are_dialled() {
        let interfaces = [
            interface(IfAddr::V4(Ifv4Addr {
                ip: Ipv4Addr::new(192, 168, 7, 5),
                netmask: Ipv4Addr::new(255, 255, 255, 0),
                prefixlen: 24,
                broadcast: Some(Ipv4Addr::new(192, 168, 7, 255)),
            })),
            interface(IfAddr::V6(Ifv6Addr {
                ip: "2001:db8:1:2::5".parse().unwrap(),
                netmask: "ffff:ffff:ffff:ffff::".parse().unwrap(),
                prefixlen: 64,
                broadcast: None,
            })),
        ];
        let is_near = |text: &str, over_loopback, loopback_only| {
            super::is_near(text.parse().unwrap(), &interfaces, over_loopback, loopback_only)
        };
        for near in ["192.168.7.1", "192.168.7.254", "2001:db8:1:2:3::1", "fe80::1"] {
            assert!(is_near(near, false, false), "{near}");
            assert!(!is_near(near, true, true), "{near}: loopback only");
        }
        let far = ["192.168.8.1", "198.51.100.1", "0.0.0.0", "255.255.255.255", "192.168.7.255", "224.0.0.251"];
        for far in far.into_iter().chain(["2001:db8:1:3::1", "::", "ff02::fb", "127.0.0.1", "::1"]) {
            assert!(!is_near(far, false, false), "{far}");
        }
        // Services of this machine are its own to announce.
        assert!(is_near("127.0.0.1", true, false) && is_near("127.0.0.1", true, true));
    }
}
