//! Where fleetd is: `unix:///run/fleet.sock`, `http://host:port/base`, `https://…`.

use std::fmt;
use std::path::PathBuf;

/// Where fleetd is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A unix socket on this machine.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(TcpEndpoint),
}

/// A TCP address and what is spoken there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpEndpoint {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// Port; 80 or 443 if none was given.
    pub port: u16,
    /// What precedes the API's own paths, without a slash at its end; mostly empty.
    pub base: String,
    /// HTTPS.
    pub tls: bool,
}

/// Why a text is no endpoint. The messages are the original's where it has one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EndpointError {
    /// `fleet.sock`: nothing says what it is.
    #[error("URL scheme undefined")]
    NoScheme,
    /// `unix://var/run/fleet.sock`: a slash short.
    #[error("unable to connect to host \"{host}\" with scheme \"{scheme}\"")]
    SocketWithHost {
        /// What was taken for a host.
        host: String,
        /// `unix` or `file`.
        scheme: String,
    },
    /// `ftp://…`
    #[error(
        "unsupported protocol scheme \"{0}\": an endpoint starts with unix://, http:// or https://"
    )]
    UnknownScheme(String),
    /// `unix://`
    #[error("the endpoint names no socket: write it as unix:///run/fleet.sock")]
    NoPath,
    /// `http://:80`
    #[error("the endpoint names no host: write it as http://host:port")]
    NoHost,
    /// `http://a:b`
    #[error("invalid port \"{0}\" in the endpoint")]
    BadPort(String),
}

impl Endpoint {
    /// Reads an endpoint. Of a list with commas, only the first counts, as in the original: the
    /// caller warns (`multiple endpoints provided but only the first (…) is used`).
    pub fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        let first = first_of_list(text);
        let (scheme, rest) = split_scheme(first).ok_or(EndpointError::NoScheme)?;
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "unix" | "file" => socket(scheme, rest),
            "http" => Ok(Endpoint::Tcp(tcp(rest, false)?)),
            "https" => Ok(Endpoint::Tcp(tcp(rest, true)?)),
            _ => Err(EndpointError::UnknownScheme(scheme)),
        }
    }

    /// What stands before the API's own paths in a URL, as the original's messages show it: the
    /// host of a socket reads `domain-sock`.
    pub fn url_base(&self) -> String {
        match self {
            Endpoint::Unix(_) => "http://domain-sock".to_owned(),
            Endpoint::Tcp(tcp) => {
                let scheme = if tcp.tls { "https" } else { "http" };
                format!("{scheme}://{}{}", tcp.authority(), tcp.base)
            }
        }
    }
}

impl Endpoint {
    /// Over the network, and readable for everybody on the way.
    pub fn is_plaintext(&self) -> bool {
        matches!(self, Endpoint::Tcp(tcp) if !tcp.tls)
    }
}

impl TcpEndpoint {
    /// `host:port`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Behind two slashes the first part of a relative path would be a host.
            Endpoint::Unix(path) if path.is_relative() => write!(f, "unix:{}", path.display()),
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(_) => f.write_str(&self.url_base()),
        }
    }
}

/// The part of a list that counts.
pub fn first_of_list(text: &str) -> &str {
    text.split(',').next().unwrap_or_default()
}

/// `scheme:rest`, where the scheme is one by the rules of URLs.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    is_scheme.then_some((scheme, rest))
}

fn socket(scheme: String, rest: &str) -> Result<Endpoint, EndpointError> {
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
            if !host.is_empty() {
                return Err(EndpointError::SocketWithHost {
                    host: host.to_owned(),
                    scheme,
                });
            }
            rest
        }
        None => rest,
    };
    if path.is_empty() || path == "/" {
        return Err(EndpointError::NoPath);
    }
    let path = percent_encoding::percent_decode_str(path).collect::<Vec<u8>>();
    use std::os::unix::ffi::OsStringExt;
    Ok(Endpoint::Unix(std::ffi::OsString::from_vec(path).into()))
}

fn tcp(rest: &str, tls: bool) -> Result<TcpEndpoint, EndpointError> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, a)| a);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(EndpointError::NoHost)?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(EndpointError::NoHost);
    }
    let port = match port {
        None | Some("") if tls => 443,
        None | Some("") => 80,
        Some(port) => port
            .parse()
            .map_err(|_| EndpointError::BadPort(port.to_owned()))?,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Ok(TcpEndpoint {
        host: host.to_owned(),
        port,
        base: path.trim_end_matches('/').to_owned(),
        tls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, shown, base) in [
            (
                "unix:///var/run/fleet.sock",
                "unix:///var/run/fleet.sock",
                "http://domain-sock",
            ),
            (
                "file:///run/fleet.sock,http://b",
                "unix:///run/fleet.sock",
                "http://domain-sock",
            ),
            (
                "unix:/run/fleet.sock",
                "unix:///run/fleet.sock",
                "http://domain-sock",
            ),
            (
                "http://127.0.0.1:49153",
                "http://127.0.0.1:49153",
                "http://127.0.0.1:49153",
            ),
            ("HTTP://h/base/", "http://h:80/base", "http://h:80/base"),
            ("https://[::1]", "https://[::1]:443", "https://[::1]:443"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.url_base(), base);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_as_by_the_original() {
        for (text, message) in [
            ("", "URL scheme undefined"),
            ("/run/fleet.sock", "URL scheme undefined"),
            ("127.0.0.1:80", "URL scheme undefined"),
            (
                "unix://var/run/fleet.sock",
                "unable to connect to host \"var\" with scheme \"unix\"",
            ),
            (
                "unix://",
                "the endpoint names no socket: write it as unix:///run/fleet.sock",
            ),
            (
                "ftp://h",
                "unsupported protocol scheme \"ftp\": an endpoint starts with unix://, http:// or https://",
            ),
            (
                "http://",
                "the endpoint names no host: write it as http://host:port",
            ),
            ("http://h:x", "invalid port \"x\" in the endpoint"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap_err().to_string(), message);
        }
    }
}
