//! An etcd with the v2 keys of an original cluster, of which it can only be asked: what
//! `tests/data/original-registry.txt` says.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::net::UnixListener;

/// The committed data set.
const RECORDED: &str = include_str!("../data/original-registry.txt");

/// The original's prefix, without its last slash.
const PREFIX: &str = "/_coreos.com/fleet";

/// An etcd.
#[derive(Clone)]
pub(crate) struct Etcd {
    /// Keys below the prefix; a directory without keys ends in a slash.
    keys: Arc<Vec<(String, String)>>,
    /// What `Authorization` must say.
    authorization: Option<&'static str>,
    has_v2: bool,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Etcd {
    pub(crate) fn recorded() -> Etcd {
        Etcd::with(RECORDED)
    }

    pub(crate) fn with(text: &str) -> Etcd {
        Etcd {
            keys: Arc::new(keys(text)),
            authorization: None,
            has_v2: true,
            requests: Arc::default(),
        }
    }

    pub(crate) fn guarded(self, authorization: &'static str) -> Etcd {
        Etcd {
            authorization: Some(authorization),
            ..self
        }
    }

    pub(crate) fn without_v2(self) -> Etcd {
        Etcd {
            has_v2: false,
            ..self
        }
    }

    /// Method and path of each request.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    pub(crate) async fn serve(self, listener: UnixListener) {
        let router = Router::new()
            .route("/{*path}", any(answer))
            .with_state(self);
        axum::serve(listener, router).await.unwrap();
    }

    /// A node with all that is below it.
    fn node(&self, path: &str) -> Option<Value> {
        let path = path.trim_end_matches('/');
        if let Some((_, value)) = self.keys.iter().find(|(key, _)| key == path) {
            return Some(json!({"key": format!("{PREFIX}/{path}"), "value": value}));
        }
        let below = format!("{path}/");
        let mut names: Vec<&str> = self
            .keys
            .iter()
            .filter_map(|(key, _)| key.strip_prefix(&below)?.split('/').next())
            .collect();
        if names.is_empty() {
            return None;
        }
        names.dedup();
        // An empty directory has itself as its only entry.
        let nodes: Vec<Value> = names
            .iter()
            .filter(|name| !name.is_empty())
            .filter_map(|name| self.node(&format!("{path}/{name}")))
            .collect();
        Some(json!({"key": format!("{PREFIX}/{path}"), "dir": true, "nodes": nodes}))
    }
}

/// Reads a data set.
fn keys(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

async fn answer(
    State(etcd): State<Etcd>,
    method: Method,
    UrlPath(path): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    etcd.requests
        .lock()
        .unwrap()
        .push(format!("{method} /{path}"));
    let authorization = headers.get("Authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let under = format!("v2/keys{PREFIX}/");
    match path.strip_prefix(&under) {
        _ if !etcd.has_v2 => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
        _ if etcd.authorization.is_some() && etcd.authorization != authorization => refuse(
            StatusCode::UNAUTHORIZED,
            110,
            "The request requires user authentication",
        ),
        Some(path) => match etcd.node(path) {
            Some(node) => json!({"action": "get", "node": node})
                .to_string()
                .into_response(),
            None => refuse(StatusCode::NOT_FOUND, 100, "Key not found"),
        },
        None => refuse(StatusCode::NOT_FOUND, 100, "Key not found"),
    }
}

fn refuse(status: StatusCode, code: u32, message: &str) -> Response {
    let body = json!({"errorCode": code, "message": message, "cause": "", "index": 7});
    (status, body.to_string()).into_response()
}
