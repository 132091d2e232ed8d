//! `/ui/`: the page for people with a browser. Its files are part of fleetd; all that it shows it asks
//! of API v2, as the one who looks at it.

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};

use super::failure::Failure;
use super::request::{Answer, Call, Reply};

/// Where the page is.
pub(crate) const BASE: &str = "/ui/";

/// Nothing from elsewhere is loaded, run, framed or sent to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asset {
    /// Below [`BASE`].
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! assets {
    ($($name:literal $file:literal $content_type:ident,)*) => {
        &[$(Asset { name: $name, content_type: $content_type, text: include_str!($file) }),*]
    };
}

const ASSETS: &[Asset] = assets! {
    "" "index.html" HTML,
    "style.css" "style.css" CSS,
    "icon.svg" "icon.svg" IMAGE,
    "app.js" "app.js" SCRIPT,
    "api.js" "api.js" SCRIPT,
    "cluster.js" "cluster.js" SCRIPT,
    "dom.js" "dom.js" SCRIPT,
    "lists.js" "lists.js" SCRIPT,
    "logs.js" "logs.js" SCRIPT,
    "unit.js" "unit.js" SCRIPT,
    "machine.js" "machine.js" SCRIPT,
};

/// How many files there are.
#[cfg(test)]
pub(crate) fn n_assets() -> usize {
    ASSETS.len()
}

/// The file at a path.
pub(crate) fn asset(path: &str) -> Option<Asset> {
    let name = path.strip_prefix(BASE)?;
    ASSETS.iter().find(|asset| asset.name == name).copied()
}

pub(crate) fn serve(call: &Call, asset: Asset) -> Answer {
    if call.method != Method::GET {
        return Err(Failure::new(
            405,
            "only GET supported against this resource",
        ));
    }
    let mut headers = HeaderMap::new();
    // A newer fleetd has a newer page.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    Ok(Reply {
        headers,
        ..Reply::text(asset.content_type, asset.text)
    })
}

/// `/`, which the original refuses, leads people with a browser to the page.
pub(crate) fn base(call: &Call) -> Answer {
    let accepts = call.headers.get(hyper::header::ACCEPT);
    let wants_page = accepts.is_some_and(|accepts| {
        accepts
            .to_str()
            .is_ok_and(|accepts| accepts.contains("text/html"))
    });
    match wants_page && call.method == Method::GET {
        true => Ok(Reply {
            location: Some(HeaderValue::from_static(BASE)),
            ..Reply::empty(StatusCode::FOUND)
        }),
        false => Err(Failure::new(405, "")),
    }
}
