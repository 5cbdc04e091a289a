//! The address under which other hosts reach a listener of this process.

use std::net::{Ipv6Addr, SocketAddr};

/// An address that cannot be advertised.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the advertised address is {found:?}: expected HOST or HOST:PORT, an IPv6 address in brackets")]
pub struct Error {
    /// The given address.
    pub found: String,
}

/// Returns the host:port at which other hosts reach a listener that is bound to `bound`.
///
/// `advertise` is HOST or HOST:PORT from the configuration, see [`named`]. Without it, the host is
/// this host's name for a listener on all interfaces, and the bound address for any other listener.
///
/// # Errors
///
/// If `advertise` is not HOST or HOST:PORT.
pub fn address(bound: SocketAddr, advertise: Option<&str>) -> Result<String, Error> {
    if let Some(advertise) = advertise {
        return named(bound, advertise);
    }
    let name = host_name();
    Ok(if bound.ip().is_unspecified() && !name.is_empty() {
        format!("{name}:{}", bound.port())
    } else {
        bound.to_string()
    })
}

/// Parses HOST or HOST:PORT. Without a port, or with port 0, the port is that of `bound`.
///
/// # Errors
///
/// If `advertise` is not HOST or HOST:PORT.
pub fn named(bound: SocketAddr, advertise: &str) -> Result<String, Error> {
    let broken = || Error { found: advertise.to_owned() };
    let (host, port) = match split(advertise) {
        Some((host, port)) => (host, port.parse().map_err(|_| broken())?),
        None => (advertise, 0),
    };
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/:[]@".contains(c));
    let is_host = in_brackets.map_or(plain, |host| host.parse::<Ipv6Addr>().is_ok());
    let port = if port == 0 { bound.port() } else { port };
    if is_host { Ok(format!("{host}:{port}")) } else { Err(broken()) }
}

/// Splits an address into host and port; `None` without a port. The host of an IPv6 address is in
/// brackets.
pub fn split(address: &str) -> Option<(&str, &str)> {
    address.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'))
}

/// Returns this host's name; empty if the system does not report it.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bound: &str, advertise: Option<&str>) -> Option<String> {
        address(bound.parse().unwrap(), advertise).ok()
    }

    #[test]
    fn advertised_addresses_have_a_host_and_a_port() {
        for (advertise, expected) in [
            ("node7", "node7:4100"),
            ("node7:0", "node7:4100"),
            ("node7:9", "node7:9"),
            ("10.0.0.7:9", "10.0.0.7:9"),
            ("[fd00::7]", "[fd00::7]:4100"),
            ("[fd00::7]:9", "[fd00::7]:9"),
        ] {
            assert_eq!(told("0.0.0.0:4100", Some(advertise)).as_deref(), Some(expected));
        }
        for broken in
            ["", ":9", "node7:", "node7:port", "node7:70000", "fd00::7", "a b", "http://node7", "[x]:1"]
        {
            assert_eq!(told("0.0.0.0:4100", Some(broken)), None, "{broken:?}");
        }
    }

    #[test]
    fn a_listener_on_all_interfaces_is_advertised_by_the_hosts_name() {
        assert_eq!(told("127.0.0.1:7", None).as_deref(), Some("127.0.0.1:7"));
        let told = told("0.0.0.0:7", None).unwrap();
        assert!(told.ends_with(":7") && !told.starts_with("0.0.0.0"), "{told}");
    }
}
