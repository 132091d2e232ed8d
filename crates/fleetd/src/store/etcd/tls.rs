//! URLs and TLS files of etcd: all that can be wrong before anything is connected.

use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, Identity, TlsOptions};
use tonic::transport::Endpoint;

use super::EtcdConfig;
use super::errors::chain;
use crate::store::Error;

/// Where distributions keep the CAs that the computer trusts.
const SYSTEM_CAS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// A dead peer on an idle connection is noticed by the kernel after this much silence and
/// [`TCP_PROBES`] probes, without any work for etcd.
const TCP_IDLE: Duration = Duration::from_secs(1);
const TCP_PROBES: u32 = 2;

/// etcd disconnects clients that ping more often than every 5 s (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Enough for a page of 10,000 units in flight; HTTP/2's own 64 kB would make each page wait.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The endpoints of a configuration, checked, each with its URL.
pub(super) fn endpoints(config: &EtcdConfig) -> Result<Vec<(String, Endpoint)>, Error> {
    if config.endpoints.is_empty() {
        return Err(Error::Refused(
            "no etcd server is named: set etcd_servers".to_owned(),
        ));
    }
    let urls = config
        .endpoints
        .iter()
        .map(|url| match url.contains("://") {
            true => url.trim_end_matches('/').to_owned(),
            false => format!("http://{}", url.trim_end_matches('/')),
        });
    let mut tls = None;
    urls.map(|url| {
        let bad = |why: &str| {
            Error::Refused(format!(
                "etcd_servers: {url:?} is no URL like http://10.0.0.1:2379: {why}"
            ))
        };
        let secure = url.starts_with("https://");
        if !secure && !url.starts_with("http://") {
            return Err(bad("it starts neither with http:// nor with https://"));
        }
        let mut endpoint =
            Endpoint::from_shared(url.clone()).map_err(|error| bad(&chain(&error)))?;
        let uri = endpoint.uri();
        if uri.host().is_none_or(str::is_empty) {
            return Err(bad("it names no host"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(bad("it has a path"));
        }
        endpoint = endpoint
            .tcp_nodelay(true)
            .tcp_keepalive(Some(TCP_IDLE))
            .tcp_keepalive_interval(Some(TCP_IDLE))
            .tcp_keepalive_retries(Some(TCP_PROBES))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if secure {
            let options = match &tls {
                Some(options) => options,
                None => tls.insert(options(config)?),
            };
            endpoint = endpoint
                .tls_config(TlsOptions::clone(options))
                .map_err(|error| {
                    Error::Refused(format!("the TLS files of etcd: {}", chain(&error)))
                })?;
        }
        Ok((url, endpoint))
    })
    .collect()
}

/// With questions whether etcd itself lives, while something is under way: for connections on which nobody
/// may say anything for hours, but waits.
pub(super) fn with_pings(endpoint: &Endpoint) -> Endpoint {
    let endpoint = endpoint.clone().http2_keep_alive_interval(PING_EVERY);
    endpoint
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false)
}

/// The server's certificate is always verified.
fn options(config: &EtcdConfig) -> Result<TlsOptions, Error> {
    let files = &config.tls;
    let ca = match &files.ca {
        Some(path) => pem("etcd_cafile", path, "CERTIFICATE")?,
        None => {
            let mut trusted = SYSTEM_CAS.iter().map(Path::new);
            let path = trusted.find(|path| path.exists()).ok_or_else(|| {
                Error::Refused(
                    "this computer has no list of trusted CAs: set etcd_cafile".to_owned(),
                )
            })?;
            pem("the trusted CAs", path, "CERTIFICATE")?
        }
    };
    let options = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
    match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => Ok(options.identity(Identity::from_pem(
            pem("etcd_certfile", certificate, "CERTIFICATE")?,
            pem("etcd_keyfile", key, "PRIVATE KEY")?,
        ))),
        (None, None) => Ok(options),
        (Some(_), None) => Err(Error::Refused(
            "etcd_certfile needs etcd_keyfile".to_owned(),
        )),
        (None, Some(_)) => Err(Error::Refused(
            "etcd_keyfile needs etcd_certfile".to_owned(),
        )),
    }
}

fn pem(option: &str, path: &Path, kind: &str) -> Result<Vec<u8>, Error> {
    let path_and = |why: &str| Error::Refused(format!("{option} {}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| path_and(&error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    let marked = |line: &str| line.starts_with("-----BEGIN ") && line.contains(kind);
    if !text.lines().any(marked) {
        return Err(path_and(&format!("it holds no {kind} in PEM form")));
    }
    Ok(bytes)
}
