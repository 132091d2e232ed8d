//! Where the API is served: the sockets that systemd passes, else the unix socket of the
//! configuration, and the TCP addresses of `api_listen`.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, SERVER};
use axum::http::{Request, Response, StatusCode};
use fleet_api::error::ErrorBody;
use fleet_core::records::MachineId;
use fleet_pki::{Identity, Subject};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use crate::access::{self, Caller};
use crate::config::Config;
use crate::pki::{self, Admitted, Pki};
use crate::shutdown::{Shutdown, stopped};
use crate::stall::Unstalled;

/// Connections served at once; further ones wait in the listen backlog. A cluster's people and
/// scripts hold a few dozen.
const MAX_CONNECTIONS: usize = 1_024;

/// A client that has not sent its request head by then is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What a connection keeps of what it reads; a request head beyond it is answered with 431.
const MAX_BUFFER: usize = 256 << 10;

/// Answers under way may finish for so long when fleetd stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// After a failed accept (out of file descriptors), before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that connections come from.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

/// Failures to listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process serves the socket.
    #[error("another process already serves {0}: is a fleetd running? (`systemctl status fleet`)")]
    Taken(PathBuf),
    /// The socket cannot be made.
    #[error("failed to listen on {address}: {source}")]
    Bind {
        /// Which socket.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// systemd passed something that is no stream socket.
    #[error(
        "failed to take socket {0} passed by systemd: it is neither a unix nor a TCP stream socket"
    )]
    Passed(usize),
}

/// Takes the sockets that systemd passed, or makes those of the configuration.
pub fn listeners(config: &Config) -> Result<Vec<Listener>, Error> {
    let mut listeners = passed()?;
    if listeners.is_empty() {
        listeners.push(Listener::Unix(bind_unix(&config.api_socket)?));
    }
    for address in &config.api_listen {
        listeners.push(Listener::Tcp(bind_tcp(address)?));
    }
    Ok(listeners)
}

fn passed() -> Result<Vec<Listener>, Error> {
    let mut sockets = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for idx in 0..sockets.len() {
        let unix = sockets.take_unix_listener(idx).ok().flatten();
        let listener = match unix {
            Some(socket) => socket
                .set_nonblocking(true)
                .and_then(|()| UnixListener::from_std(socket))
                .map(Listener::Unix),
            None => match sockets.take_tcp_listener(idx) {
                Ok(Some(socket)) => socket
                    .set_nonblocking(true)
                    .and_then(|()| TcpListener::from_std(socket))
                    .map(Listener::Tcp),
                _ => return Err(Error::Passed(idx)),
            },
        };
        listeners.push(listener.map_err(|source| Error::Bind {
            address: format!("socket {idx} passed by systemd"),
            source,
        })?);
    }
    Ok(listeners)
}

/// Makes the unix socket, 0660 and of the group `fleet` if there is one. A socket file that
/// nobody serves is left over and replaced.
fn bind_unix(path: &Path) -> Result<UnixListener, Error> {
    let bind = |source| Error::Bind {
        address: path.display().to_string(),
        source,
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::Taken(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(bind(err)),
        _ => {}
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(bind)?;
    }
    let listener = UnixListener::bind(path).map_err(bind)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(bind)?;
    if let Some(group) = group_id("fleet") {
        let chown = std::os::unix::fs::chown(path, None, Some(group));
        if let Err(error) = chown {
            warn!(%error, socket = %path.display(), "group fleet was not given the socket");
        }
    }
    Ok(listener)
}

fn group_id(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn bind_tcp(address: &str) -> Result<TcpListener, Error> {
    let bind = |source| Error::Bind {
        address: address.to_owned(),
        source,
    };
    let socket = std::net::TcpListener::bind(address).map_err(bind)?;
    socket.set_nonblocking(true).map_err(bind)?;
    TcpListener::from_std(socket).map_err(bind)
}

/// What decides who gets in over TCP, and to what.
#[derive(Clone)]
pub struct Door {
    /// While it is set, plaintext off loopback is served, too.
    pub insecure: Arc<AtomicBool>,
    /// TLS, if there is any.
    pub pki: Arc<Pki>,
    /// All that somebody without a certificate gets over TLS, who wants one.
    pub newcomers: Router,
}

impl Default for Door {
    /// No TLS, and no plaintext off loopback.
    fn default() -> Door {
        Door {
            insecure: Arc::default(),
            pki: Pki::off(),
            newcomers: Router::new(),
        }
    }
}

/// Serves the router on all listeners until told to stop; answers under way may finish.
pub async fn serve(listeners: Vec<Listener>, router: Router, door: Door, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut loops = tokio::task::JoinSet::new();
    for listener in listeners {
        let (router, room, shutdown) = (router.clone(), room.clone(), shutdown.clone());
        loops.spawn(accept(listener, router, door.clone(), room, shutdown));
    }
    while loops.join_next().await.is_some() {}
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN_TIMEOUT, room.acquire_many(all))
        .await
        .is_err()
    {
        debug!("connections still open at the end are cut");
    }
}

async fn accept(
    listener: Listener,
    router: Router,
    door: Door,
    room: Arc<Semaphore>,
    mut shutdown: Shutdown,
) {
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = accept_one(&listener) => accepted,
            () = stopped(&mut shutdown) => return,
        };
        let (stream, caller, is_local) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, door, shutdown) = (router.clone(), door.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _place = place;
            let is_insecure = door.insecure.load(Ordering::Relaxed);
            match (stream, caller) {
                (Stream::Tcp(stream), Caller::Anonymous(address)) if door.pki.has_tls() => {
                    match pki::speaks_tls(&stream).await {
                        Ok(true) => tls(stream, router, door, address, shutdown).await,
                        Ok(false) if is_local || is_insecure => {
                            http(stream, router, Caller::Anonymous(address), shutdown).await;
                        }
                        Ok(false) => {
                            let refused = plaintext_refused(PLAINTEXT_BESIDE_TLS);
                            http(stream, refused, Caller::Anonymous(address), shutdown).await;
                        }
                        Err(error) => debug!(%error, %address, "a connection said nothing"),
                    }
                }
                (Stream::Tcp(stream), caller) if is_local || is_insecure => {
                    http(stream, router, caller, shutdown).await;
                }
                (Stream::Tcp(stream), caller) => {
                    http(stream, plaintext_refused(PLAINTEXT), caller, shutdown).await;
                }
                (Stream::Unix(stream), caller) => http(stream, router, caller, shutdown).await,
            }
        });
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// The stream, who is there, and whether plaintext is fine on it.
async fn accept_one(listener: &Listener) -> io::Result<(Stream, Caller, bool)> {
    match listener {
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let credentials = stream.peer_cred()?;
            let caller = Caller::Unix {
                uid: credentials.uid(),
                gid: credentials.gid(),
                pid: credentials.pid(),
            };
            Ok((Stream::Unix(stream), caller, true))
        }
        Listener::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let loopback = stream.local_addr()?.ip().to_canonical().is_loopback();
            Ok((Stream::Tcp(stream), Caller::Anonymous(address), loopback))
        }
    }
}

/// Who shows this certificate.
fn caller(identity: &Identity, address: SocketAddr) -> Caller {
    match &identity.subject {
        Subject::Machine(id) => Caller::Machine(MachineId::new(id), address),
        Subject::User(name) => {
            let identity = access::Identity {
                name: name.clone(),
                roles: identity.roles.clone(),
            };
            Caller::Certificate(Arc::new(identity), address)
        }
    }
}

/// A connection over TLS: it lasts as long as the certificate that was shown is believed.
async fn tls(
    stream: TcpStream,
    router: Router,
    door: Door,
    address: SocketAddr,
    shutdown: Shutdown,
) {
    match pki::admit(&door.pki, stream).await {
        Ok((stream, Admitted::Member(identity))) => {
            let caller = caller(&identity, address);
            let router = router.layer(axum::Extension(Arc::clone(&identity)));
            let served = http(stream, router, caller, shutdown);
            tokio::select! {
                () = served => {}
                why = pki::ended(&door.pki, &identity) => {
                    let subject = identity.subject.to_string();
                    info!(subject, %address, why, "a connection is cut");
                }
            }
        }
        Ok((stream, Admitted::Newcomer)) => {
            http(stream, door.newcomers, Caller::Anonymous(address), shutdown).await;
        }
        Err(error) => info!(%error, %address, "a TLS connection was refused: {error}"),
    }
}

pub(crate) async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    caller: Caller,
    mut shutdown: Shutdown,
) {
    let service = TowerToHyperService::new(router.layer(axum::Extension(caller)));
    // `Content-Type`, not `content-type`: people's scripts look for what the original sent.
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .title_case_headers(true)
        // Who has closed its own half still gets its answer, as from the original. One that is
        // gone altogether is noticed at the next write, at the latest that of a wait's heartbeat.
        .half_close(true)
        .serve_connection(TokioIo::new(Unstalled::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}

/// What plaintext TCP off loopback gets: anybody on the network would be root everywhere.
const PLAINTEXT: &str = "plaintext TCP is served on loopback only: use the unix socket or an SSH \
    tunnel (fleetctl --tunnel), or set api_insecure=true in fleet.conf to let anybody on this \
    network control the cluster";

/// The same where there is something better.
const PLAINTEXT_BESIDE_TLS: &str = "plaintext TCP is served on loopback only: use https:// with a \
    certificate of this cluster (fleetctl join gets one), the unix socket, or an SSH tunnel \
    (fleetctl --tunnel)";

fn plaintext_refused(message: &'static str) -> Router {
    Router::new().fallback(async move |request: Request<Body>| {
        let caller = request.extensions().get::<Caller>().map(Caller::to_string);
        info!(caller, "plaintext TCP off loopback was refused");
        let body = fleet_api::v1::to_json(&ErrorBody::new(403, message));
        Response::builder()
            .status(StatusCode::FORBIDDEN)
            .header(CONTENT_TYPE, "application/json")
            .header(SERVER, concat!("fleetd/v", env!("CARGO_PKG_VERSION")))
            // What a refused client sends is not read.
            .header(CONNECTION, "close")
            .body(Body::from(body))
            .unwrap_or_default()
    })
}
