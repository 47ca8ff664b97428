//! The `client.id` of a member of the group: the only free text that a membership of librdkafka carries to the others.
//!
//! `<application id>:<instance id>:<thread>`, which is also the thread's transactional id; a worker that others can ask over
//! HTTP adds where: `…@<host>:<port>`. No id can hold an `@`.
//!
//! What a member says is not believed further than that: an address that is none is left out.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What stands between the id and the address.
const SEPARATOR: char = '@';
/// The longest host name, as DNS has it.
const HOST_BYTES_MAX: usize = 253;

/// A `client.id`.
///
/// ```
/// use processor_core::protocol::client_id::ClientId;
///
/// let http = Some("worker-1.example:8080".parse()?);
/// let id = ClientId { transactional_id: "averages:worker-1:0".to_owned(), http };
/// assert_eq!(id.to_string(), "averages:worker-1:0@worker-1.example:8080");
/// assert_eq!(ClientId::parse(&id.to_string()), id);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientId {
    /// The transactional id of the thread, or whatever else stands before the address.
    pub transactional_id: String,
    /// Where its worker can be asked over HTTP.
    pub http: Option<HttpAddress>,
}

impl ClientId {
    /// Reads what the group shows. Never fails: it may be the name of any client.
    ///
    /// ```
    /// # use processor_core::protocol::client_id::ClientId;
    /// let id = ClientId::parse("app:one:0@one.example:8080");
    /// assert_eq!(id.http.map(|address| address.port()), Some(8080));
    /// let id = ClientId::parse("app:one:0@evil/../:80"); // no address
    /// assert_eq!((&*id.transactional_id, id.http), ("app:one:0", None));
    /// assert_eq!(ClientId::parse("rdkafka").transactional_id, "rdkafka"); // another program
    /// ```
    pub fn parse(text: &str) -> Self {
        let (id, http) = match text.split_once(SEPARATOR) {
            Some((id, address)) => (id, address.parse().ok()),
            None => (text, None),
        };
        // Nobody can be asked at port 0.
        Self { transactional_id: id.to_owned(), http: http.filter(|address: &HttpAddress| address.port != 0) }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.transactional_id)?;
        self.http.as_ref().map_or(Ok(()), |http| write!(f, "{SEPARATOR}{http}"))
    }
}

/// `host:port`: a name, an IPv4 address, or an IPv6 address in brackets. Nothing that needs escaping in a URL fits in.
///
/// ```
/// use processor_core::protocol::client_id::HttpAddress;
///
/// let address: HttpAddress = "worker-1.example:8080".parse()?;
/// assert_eq!(address.port(), 8080);
/// assert_eq!(address.with_port(80).to_string(), "worker-1.example:80");
/// assert!("http://worker-1:8080".parse::<HttpAddress>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpAddress {
    host: String,
    port: u16,
}

impl HttpAddress {
    /// The port.
    ///
    /// ```
    /// # use processor_core::protocol::client_id::HttpAddress;
    /// let address: HttpAddress = "[2001:db8::1]:8080".parse()?;
    /// assert_eq!(address.port(), 8080);
    /// # Ok::<(), String>(())
    /// ```
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host, another port.
    ///
    /// ```
    /// # use processor_core::protocol::client_id::HttpAddress;
    /// let advertised: HttpAddress = "worker-1.example:0".parse()?; // 0: any free port
    /// let chosen = 41_234;
    /// assert_eq!(advertised.with_port(chosen).to_string(), "worker-1.example:41234");
    /// # Ok::<(), String>(())
    /// ```
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }
}

impl From<SocketAddr> for HttpAddress {
    fn from(address: SocketAddr) -> Self {
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self { host, port: address.port() }
    }
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it must be host:port, such as worker-1.example:8080 or [2001:db8::1]:8080".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let is_name = |host: &str| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            host.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) && host.bytes().all(legal)
        };
        let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = v6.map_or_else(|| is_name(host), |v6| v6.parse::<Ipv6Addr>().is_ok());
        // `parse` would take a sign.
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if is_host && is_port && host.len() <= HOST_BYTES_MAX => Ok(Self { host: host.to_owned(), port }),
            Ok(_) | Err(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        for text in ["worker-1:8080", "a_b.example:1", "10.0.0.1:65535", "[::1]:80", "[2001:db8::7]:0"] {
            assert_eq!(text.parse::<HttpAddress>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
        let long = format!("{}:80", "x".repeat(254));
        for text in [
            "",
            ":",
            "host",
            "host:",
            ":80",
            "host:65536",
            "host:+80",
            "host:-1",
            "host:8o",
            "http://host:80",
            "host:80/",
            "host/a:80",
            "user@host:80",
            "a b:80",
            "ä:80",
            "-a:80",
            "::1:80",
            "[::1:80",
            "[::g]:80",
            "[::1%25eth0]:80",
            "\"onclick:80",
            &long,
        ] {
            let refused = text.parse::<HttpAddress>().expect_err(text);
            assert!(refused.contains("host:port"), "{text}: {refused}");
        }
    }

    #[test]
    fn a_client_id_names_its_transactional_id_with_and_without_an_address() {
        let of = |text: &str| {
            let ClientId { transactional_id, http } = ClientId::parse(text);
            (transactional_id, http.map(|address| address.to_string()))
        };
        assert_eq!(of("app:one:0"), ("app:one:0".to_owned(), None));
        assert_eq!(of("app:one:0@one.example:80"), ("app:one:0".to_owned(), Some("one.example:80".to_owned())));
        for hostile in ["app:one:0@", "app:one:0@evil/../:80", "app:one:0@a@b:80", "app:one:0@host:0"] {
            assert_eq!(of(hostile), ("app:one:0".to_owned(), None), "{hostile}");
        }
        let address = "127.0.0.1:80".parse::<SocketAddr>().expect("an address");
        assert_eq!(HttpAddress::from(address).with_port(81).to_string(), "127.0.0.1:81");
        let address = "[::1]:80".parse::<SocketAddr>().expect("an address");
        assert_eq!(HttpAddress::from(address).to_string(), "[::1]:80");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(id in "[a-z.:_-]{0,40}", host in "[a-z0-9][a-z0-9._-]{0,40}", port in 1_u16..) {
            let http = Some(HttpAddress { host, port });
            for written in [ClientId { transactional_id: id.clone(), http }, ClientId { transactional_id: id, http: None }] {
                prop_assert_eq!(ClientId::parse(&written.to_string()), written);
            }
        }

        #[test]
        fn hostile_text_is_no_panic_and_no_address_that_needs_escaping(text: String) {
            if let Some(address) = ClientId::parse(&text).http {
                let address = address.to_string();
                prop_assert!(address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)));
            }
        }
    }
}
