//! What browsers send on behalf of pages that are not fleet's is refused: whoever runs a browser beside a
//! fleetd that trusts its loopback would otherwise lend that trust to every page that he looks at.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{ACCEPT_LANGUAGE, HOST, ORIGIN, REFERER};

use super::failure::Failure;
use crate::access::Caller;

/// Says what brought a request about (W3C, "Fetch Metadata Request Headers").
const FETCH_SITE: &str = "sec-fetch-site";

/// Refuses what another site's page asks for, and what comes by a name that another site may have
/// given to this address (DNS rebinding).
pub(super) fn check(headers: &HeaderMap, caller: Option<&Caller>) -> Result<(), Failure> {
    let text = |name: &str| {
        let value = headers.get(name)?;
        // What is no text is nobody's name.
        Some(value.to_str().unwrap_or("?"))
    };
    let host = text(HOST.as_str()).unwrap_or_default();
    let is_foreign = text(FETCH_SITE).is_some_and(|site| !["same-origin", "none"].contains(&site))
        || text(ORIGIN.as_str()).is_some_and(|origin| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority != Some(host)
        });
    if is_foreign {
        return Err(Failure::new(
            403,
            "a page of another site asks for this: fleet answers to its own page only",
        ));
    }
    // Whom else's trust would be lent: anybody on this machine, or at the end of a tunnel to it.
    let is_trusted = match caller {
        None | Some(Caller::Unix { .. }) => true,
        Some(Caller::Anonymous(from)) => is_loopback(from),
        Some(Caller::Certificate(..) | Caller::Machine(..) | Caller::Behalf(_)) => false,
    };
    // Some programs speak "*".
    let speaks = text(ACCEPT_LANGUAGE.as_str()).is_some_and(|languages| languages != "*");
    let is_browser = speaks
        || [FETCH_SITE, ORIGIN.as_str(), REFERER.as_str()]
            .into_iter()
            .any(|name| headers.contains_key(name));
    if is_trusted && is_browser && !is_own(host) {
        return Err(Failure::new(
            403,
            format!(
                "this fleetd is not {host}: open its page by its address or as localhost (a name may be \
                 another site's)"
            ),
        ));
    }
    Ok(())
}

fn is_loopback(from: &SocketAddr) -> bool {
    from.ip().to_canonical().is_loopback()
}

/// Whether a `Host` can be nobody else's: an address, or localhost.
fn is_own(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn refused(from: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let caller = match from {
            "unix" => None,
            from => Some(Caller::Anonymous(from.parse().unwrap())),
        };
        check(&headers.collect(), caller.as_ref()).is_err()
    }

    #[test]
    fn fleets_own_page_and_programs_are_answered_and_other_pages_are_not() {
        let local = "127.0.0.1:5000";
        for (from, headers, expected) in [
            (local, &[("host", "n1.example:49153")][..], false),
            (
                local,
                &[
                    ("host", "localhost:8080"),
                    ("origin", "http://localhost:8080"),
                ],
                false,
            ),
            (
                local,
                &[("host", "[::1]:80"), ("sec-fetch-site", "same-origin")],
                false,
            ),
            (
                local,
                &[("host", "127.0.0.1"), ("sec-fetch-site", "none")],
                false,
            ),
            ("unix", &[("host", "fleet")], false),
            (
                "unix",
                &[("host", "localhost:8080"), ("accept-language", "en")],
                false,
            ),
            (
                local,
                &[("host", "n1.example"), ("accept-language", "*")],
                false,
            ),
            (
                "10.0.0.7:5000",
                &[("host", "n1.example"), ("accept-language", "en")],
                false,
            ),
            // Of another site.
            (
                local,
                &[
                    ("host", "localhost:8080"),
                    ("origin", "https://evil.example"),
                ],
                true,
            ),
            (
                local,
                &[
                    ("host", "localhost:8080"),
                    ("origin", "http://localhost:9090"),
                ],
                true,
            ),
            (local, &[("host", "localhost"), ("origin", "null")], true),
            (
                local,
                &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
                true,
            ),
            (
                local,
                &[("host", "localhost"), ("sec-fetch-site", "same-site")],
                true,
            ),
            (
                "unix",
                &[("host", "localhost"), ("origin", "https://evil.example")],
                true,
            ),
            // By a name that is another site's.
            (
                local,
                &[("host", "evil.example:49153"), ("accept-language", "en")],
                true,
            ),
            (
                local,
                &[("host", "evil.example"), ("origin", "http://evil.example")],
                true,
            ),
            (
                "[::1]:5000",
                &[
                    ("host", "evil.example"),
                    ("referer", "http://evil.example/"),
                ],
                true,
            ),
            (
                "unix",
                &[("host", "evil.example:8080"), ("accept-language", "en")],
                true,
            ),
            (
                "[::ffff:127.0.0.1]:5000",
                &[("host", "localhost.evil.example"), ("referer", "x")],
                true,
            ),
        ] {
            assert_eq!(refused(from, headers), expected, "{from} {headers:?}");
        }
    }
}
