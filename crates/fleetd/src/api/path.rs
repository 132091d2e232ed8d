//! Paths and queries as the original's router takes them.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::page::{self, Asset};

/// What a path means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// Not in its shortest form: where to go instead.
    Unclean(String),
    /// A `%` that two hexadecimal digits do not follow: what stands there.
    BadEscape(String),
    Metrics,
    /// `/`, `/fleet/v1`, `/v1-alpha`: nothing can be done with them.
    Base,
    /// A file of the page.
    Page(Asset),
    V1(V1),
    V2(V2),
    /// Something below `/fleet/v2` that does not exist.
    NoV2,
    Nothing,
}

/// The resources of v1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum V1 {
    Machines,
    Units,
    Unit(String),
    States,
    State(String),
    Discovery,
}

/// The resources of v2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum V2 {
    Machines,
    Machine(String),
    UnitsOfMachine(String),
    Units,
    Unit(String),
    UnitStatus(String),
    UnitOnMachine(String, String),
    Journal,
    Wait,
    Cluster,
    Events,
    WatchUnits,
    Thaw,
    AcceptStore,
    Join,
    JoinTokens,
    Certificates,
    Revocations,
    Whoami,
    OpenApi,
}

/// Finds what a path names.
pub(crate) fn route(raw: &str) -> Route {
    if let Some(escape) = bad_escape(raw) {
        return Route::BadEscape(escape.to_owned());
    }
    let path = percent_decode_str(raw).decode_utf8_lossy();
    if !path.starts_with('/') {
        return Route::Nothing;
    }
    let clean = clean(&path);
    if clean != path {
        return Route::Unclean(utf8_percent_encode(&clean, PATH).to_string());
    }
    let v1 = [fleet_api::v1::BASE, fleet_api::v1::ALIAS]
        .into_iter()
        .find_map(|base| path.strip_prefix(base));
    match (path.as_ref(), v1, path.strip_prefix(fleet_api::v2::BASE)) {
        ("/", ..) | (_, Some(""), _) => Route::Base,
        ("/metrics", ..) => Route::Metrics,
        ("/ui", ..) => Route::Unclean(page::BASE.to_owned()),
        (_, Some(rest), _) if rest.starts_with('/') => v1_route(&rest[1..]),
        (_, _, Some(rest)) if rest.is_empty() || rest.starts_with('/') => v2_route(rest),
        _ => page::asset(&path).map_or(Route::Nothing, Route::Page),
    }
}

fn bad_escape(raw: &str) -> Option<&str> {
    raw.match_indices('%').find_map(|(at, _)| {
        let escape = raw.get(at..).unwrap_or_default();
        let mut digits = escape.chars().skip(1).take(2);
        let is_escape = digits.by_ref().filter(char::is_ascii_hexdigit).count() == 2;
        let end = escape
            .char_indices()
            .nth(3)
            .map_or(escape.len(), |(end, _)| end);
        (!is_escape).then_some(&escape[..end])
    })
}

fn v1_route(rest: &str) -> Route {
    Route::V1(match (rest, rest.split_once('/')) {
        ("machines", _) => V1::Machines,
        ("units", _) => V1::Units,
        ("state", _) => V1::States,
        ("discovery", _) => V1::Discovery,
        (_, Some(("units", name))) if is_name(name) => V1::Unit(name.to_owned()),
        (_, Some(("state", name))) if is_name(name) => V1::State(name.to_owned()),
        _ => return Route::Nothing,
    })
}

fn v2_route(rest: &str) -> Route {
    let rest = rest.strip_prefix('/').unwrap_or_default();
    Route::V2(match (rest, rest.split_once('/')) {
        ("machines", _) => V2::Machines,
        ("units", _) => V2::Units,
        ("wait", _) => V2::Wait,
        ("cluster", _) => V2::Cluster,
        ("events", _) => V2::Events,
        ("journal", _) => V2::Journal,
        ("watch/units", _) => V2::WatchUnits,
        ("thaw", _) => V2::Thaw,
        ("accept-store", _) => V2::AcceptStore,
        ("join", _) => V2::Join,
        ("join-tokens", _) => V2::JoinTokens,
        ("certificates", _) => V2::Certificates,
        ("revocations", _) => V2::Revocations,
        ("whoami", _) => V2::Whoami,
        ("openapi.json", _) => V2::OpenApi,
        (_, Some(("units", name))) if is_name(name) => V2::Unit(name.to_owned()),
        (_, Some(("units", rest))) => match rest.split_once('/') {
            Some((name, "status")) if is_name(name) => V2::UnitStatus(name.to_owned()),
            _ => return Route::NoV2,
        },
        (_, Some(("machines", id))) if is_name(id) => V2::Machine(id.to_owned()),
        (_, Some(("machines", rest))) => match rest.split_once('/') {
            Some((id, "units")) if is_name(id) => V2::UnitsOfMachine(id.to_owned()),
            Some((id, rest)) if is_name(id) => match rest.strip_prefix("units/") {
                Some(name) if is_name(name) => V2::UnitOnMachine(id.to_owned(), name.to_owned()),
                _ => return Route::NoV2,
            },
            _ => return Route::NoV2,
        },
        _ => return Route::NoV2,
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// The shortest form of a path: no `//`, `.` and `..`; a slash at the end stays.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut clean = String::with_capacity(path.len());
    for part in &parts {
        clean.push('/');
        clean.push_str(part);
    }
    if clean.is_empty() || path.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// The values of a query's parameters, in order.
pub(crate) fn query(raw: Option<&str>) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    raw.unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// What Go escapes in a path.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'!')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_means_what_it_meant_to_the_original() {
        let unit = |name: &str| Route::V1(V1::Unit(name.into()));
        for (path, expected) in [
            ("/", Route::Base),
            ("/fleet/v1", Route::Base),
            ("/v1-alpha", Route::Base),
            ("/metrics", Route::Metrics),
            ("/fleet/v1/machines", Route::V1(V1::Machines)),
            ("/v1-alpha/machines", Route::V1(V1::Machines)),
            ("/fleet/v1/units", Route::V1(V1::Units)),
            ("/fleet/v1/units/a.service", unit("a.service")),
            ("/v1-alpha/units/a%40%31.service", unit("a@1.service")),
            ("/fleet/v1/state", Route::V1(V1::States)),
            ("/fleet/v1/state/a", Route::V1(V1::State("a".into()))),
            ("/fleet/v1/discovery", Route::V1(V1::Discovery)),
            ("/fleet/v2/units", Route::V2(V2::Units)),
            ("/fleet/v2/units/a", Route::V2(V2::Unit("a".into()))),
            ("/fleet/v2/machines", Route::V2(V2::Machines)),
            ("/fleet/v2/machines/m1", Route::V2(V2::Machine("m1".into()))),
            (
                "/fleet/v2/machines/m1/units",
                Route::V2(V2::UnitsOfMachine("m1".into())),
            ),
            ("/fleet/v2/machines/m1/units/", Route::NoV2),
            (
                "/fleet/v2/machines/m1/units/a",
                Route::V2(V2::UnitOnMachine("m1".into(), "a".into())),
            ),
            ("/fleet/v2/machines/m1/units/a/b", Route::NoV2),
            (
                "/fleet/v2/units/a/status",
                Route::V2(V2::UnitStatus("a".into())),
            ),
            ("/fleet/v2/units/a/b", Route::NoV2),
            (
                "/fleet/v2/units//status",
                Route::Unclean("/fleet/v2/units/status".into()),
            ),
            ("/fleet/v2/journal", Route::V2(V2::Journal)),
            ("/fleet/v2/machines/m1/x", Route::NoV2),
            ("/fleet/v2/machines/", Route::NoV2),
            ("/fleet/v2/wait", Route::V2(V2::Wait)),
            ("/fleet/v2/cluster", Route::V2(V2::Cluster)),
            ("/fleet/v2/events", Route::V2(V2::Events)),
            ("/fleet/v2/watch/units", Route::V2(V2::WatchUnits)),
            ("/fleet/v2/watch", Route::NoV2),
            ("/fleet/v2/thaw", Route::V2(V2::Thaw)),
            ("/fleet/v2/accept-store", Route::V2(V2::AcceptStore)),
            ("/fleet/v2/join-tokens", Route::V2(V2::JoinTokens)),
            ("/fleet/v2/certificates", Route::V2(V2::Certificates)),
            ("/fleet/v2/revocations", Route::V2(V2::Revocations)),
            ("/fleet/v2/join", Route::V2(V2::Join)),
            ("/fleet/v2/whoami", Route::V2(V2::Whoami)),
            ("/fleet/v2/openapi.json", Route::V2(V2::OpenApi)),
            ("/fleet/v2", Route::NoV2),
            ("/fleet/v2/", Route::NoV2),
            ("/fleet/v2/x", Route::NoV2),
            ("/fleet/v1/", Route::Nothing),
            ("/fleet/v1/machines/x", Route::Nothing),
            ("/fleet/v1/machines/", Route::Nothing),
            ("/fleet/v1/units/", Route::Nothing),
            ("/fleet/v1/units/a/b", Route::Nothing),
            ("/fleet/v1/units/a%2Fb", Route::Nothing),
            ("/fleet/v1/state/", Route::Nothing),
            ("/fleet/v1/discovery/", Route::Nothing),
            ("/fleet/v1x", Route::Nothing),
            ("/fleet/v2x", Route::Nothing),
            ("/fleet", Route::Nothing),
            ("/metrics/", Route::Nothing),
            ("/ui", Route::Unclean("/ui/".into())),
            ("/ui/", Route::Page(page::asset("/ui/").unwrap())),
            ("/ui/x", Route::Nothing),
            ("*", Route::Nothing),
            ("", Route::Nothing),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn unclean_paths_are_cleaned() {
        for (path, to) in [
            ("//fleet/v1/units", "/fleet/v1/units"),
            ("/fleet//v1///units/", "/fleet/v1/units/"),
            ("/fleet/v1/units/../machines", "/fleet/v1/machines"),
            ("/fleet/v1/units/..", "/fleet/v1"),
            ("/fleet/v1/./units", "/fleet/v1/units"),
            ("/../..", "/"),
            ("/fleet/v1/units/%2e%2e/a%20b", "/fleet/v1/a%20b"),
            // What Go escapes and what it leaves.
            ("//a!'()*é{", "/a%21%27%28%29%2A%C3%A9%7B"),
            ("//-_.~$&+,:;=@", "/-_.~$&+,:;=@"),
        ] {
            assert_eq!(route(path), Route::Unclean(to.into()), "{path}");
        }
    }

    #[test]
    fn an_escape_that_is_none_is_named() {
        for (path, escape) in [
            ("/fleet/v1/units/%zz", "%zz"),
            ("/fleet/v1/units/a%4", "%4"),
            ("/%", "%"),
            ("/a%20%x1y", "%x1"),
        ] {
            assert_eq!(route(path), Route::BadEscape(escape.into()), "{path}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        assert_eq!(
            query(Some("a=1&b&&c=%20+x&a=2")),
            [("a", "1"), ("b", ""), ("c", "  x"), ("a", "2")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
        assert!(query(None).is_empty());
    }
}
