//! The address under which other hosts reach a listener of this process.

use std::net::SocketAddr;

/// An address that cannot be advertised.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the advertised address is {found:?}: expected HOST or HOST:PORT, an IPv6 address in brackets")]
pub struct Error {
    /// The given address.
    pub found: String,
}

/// Returns the advertised host:port of a listener that is bound to `bound`.
///
/// `advertise`: the configured HOST or HOST:PORT; without a port (or with port 0) the bound port is used. Without it,
/// a listener on all interfaces is advertised under this host's name, any other under its bound address.
///
/// # Errors
/// Fails if `advertise` is not HOST or HOST:PORT.
pub fn address(bound: SocketAddr, advertise: Option<&str>) -> Result<String, Error> {
    let Some(advertise) = advertise else {
        let name = host_name();
        return Ok(if bound.ip().is_unspecified() && !name.is_empty() {
            format!("{name}:{}", bound.port())
        } else {
            bound.to_string()
        });
    };
    let broken = || Error { found: advertise.to_owned() };
    // The colons of an IPv6 address are inside its brackets.
    let port_from = advertise.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match advertise[port_from..].find(':') {
        None => (advertise, 0),
        Some(colon) => {
            let colon = port_from + colon;
            (&advertise[..colon], advertise[colon + 1..].parse().map_err(|_| broken())?)
        }
    };
    let whole = !host.is_empty() && !host.contains(char::is_whitespace) && !host.contains('/');
    let port = if port == 0 { bound.port() } else { port };
    if whole { Ok(format!("{host}:{port}")) } else { Err(broken()) }
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
        for broken in ["", ":9", "node7:", "node7:port", "node7:70000", "fd00::7", "a b", "http://node7"] {
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
