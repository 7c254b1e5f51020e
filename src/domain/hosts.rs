//! Names by which a service may be called: of signed requests, and of requests without credentials that a page in a browser could make.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Domains that are kept for private use (RFC 6761, RFC 6762, ICANN), and those of services in Kubernetes.
const INSIDE: [&str; 5] = ["internal", "local", "localhost", "svc", "test"];

/// A host, with a port or for all ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    /// In lower case, an address of IPv6 in brackets.
    host: String,
    port: Option<u16>,
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text.as_bytes()).ok_or_else(|| "give HOST or HOST:PORT".to_owned())
    }
}

impl HostName {
    /// As the header `Host` has it: `name`, `name:port`, `1.2.3.4`, `[::1]:port`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        // Behind the brackets of an address of IPv6, which has colons of its own.
        let from = text.find(']').unwrap_or(0);
        let (host, port) = match text[from..].rfind(':') {
            Some(at) => (&text[..from + at], Some(text[from + at + 1..].parse().ok()?)),
            None => (text, None),
        };
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let good = match inner {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && plain(host),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        good.then_some(Self { host, port })
    }

    /// Whether a request that names this one means `self`: the same host and, where `self` names one, the same port.
    pub(crate) fn covers(&self, named: &Self) -> bool {
        self.host == named.host && (self.port.is_none() || self.port == named.port)
    }

    /// Whether it is an address or a name inside of a network: of those no stranger has a name server that could lead a browser here. A
    /// name without a dot, of this machine or of a service beside it, or one below a domain that nobody can buy.
    pub(crate) fn is_inside(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        let (_, top) = self.host.rsplit_once('.').unwrap_or_default();
        address.parse::<IpAddr>().is_ok() || !self.host.contains('.') || INSIDE.contains(&top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_requests_write_them() {
        for (text, host, port) in [
            ("DMS.example", "dms.example", None),
            ("dms.example.", "dms.example", None),
            ("dms:8080", "dms", Some(8080)),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[::1]:9464", "[::1]", Some(9464)),
        ] {
            assert_eq!(HostName::parse(text.as_bytes()), Some(HostName { host: host.into(), port }), "{text}");
        }
        for text in ["", ":80", "a b", "a:", "a:99999", "a:80:90", "::1", "[::1", "[::1]x", "[x]", "a/b", "a@b", "é"] {
            assert_eq!(HostName::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_name_without_a_port_covers_all_of_its_ports() {
        for (allowed, named, expected) in [
            ("dms", "DMS:8080", true),
            ("dms", "dms", true),
            ("dms:80", "dms:80", true),
            ("dms:80", "dms:81", false),
            ("dms:80", "dms", false),
            ("dms", "dms.evil.example", false),
        ] {
            let [allowed, named] = [allowed, named].map(|text| text.parse::<HostName>().unwrap());
            assert_eq!(allowed.covers(&named), expected, "{allowed:?} {named:?}");
        }
    }

    #[test]
    fn names_that_no_stranger_can_have_are_inside() {
        for (text, expected) in [
            ("127.0.0.1:9464", true),
            ("10.1.2.3", true),
            ("[::1]:80", true),
            ("localhost:80", true),
            ("a.localhost", true),
            ("dms-admin:9464", true),
            ("dms.shop.svc", true),
            ("dms.shop.svc.cluster.local:9464", true),
            ("dms.corp.internal", true),
            ("svc.evil.example", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
        ] {
            assert_eq!(text.parse::<HostName>().unwrap().is_inside(), expected, "{text}");
        }
    }
}
