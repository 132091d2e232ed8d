//! From a TCP connection to somebody who is known.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::v2::JOIN_PROTOCOL;
use fleet_pki::Identity;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;

use super::Pki;
use crate::clock;

/// A handshake takes two round trips; whoever takes longer only holds a place.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: a handshake record. No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// The clock by which certificates end may be set: it is looked at this often.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(600);

/// Who got in.
pub(crate) enum Admitted {
    /// Somebody with a certificate of the cluster.
    Member(Arc<Identity>),
    /// Somebody without one, who may ask for one and nothing else.
    Newcomer,
}

/// Whether TLS is what the client speaks, by its first byte, which is not taken.
pub(crate) async fn speaks_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let n_read = timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await??;
    Ok(n_read == 1 && first[0] == TLS_HANDSHAKE)
}

/// Does the handshake.
///
/// # Errors
/// The client shows no certificate, or one that is not believed; or it takes too long; or there are
/// too many who try.
pub(crate) async fn admit(
    pki: &Pki,
    stream: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, Admitted)> {
    let Ok(_place) = Arc::clone(&pki.handshakes).try_acquire_owned() else {
        return Err(io::Error::other("too many handshakes at once"));
    };
    let Some(material) = pki.material() else {
        return Err(io::Error::other("there is no TLS any more"));
    };
    let handshake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let joins = hello
            .client_hello()
            .alpn()
            .is_some_and(|mut offered| offered.any(|protocol| protocol == JOIN_PROTOCOL));
        let config = match joins {
            true => &material.join,
            false => &material.server,
        };
        let stream = hello.into_stream(Arc::clone(config)).await?;
        if joins {
            return Ok((stream, Admitted::Newcomer));
        }
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let identity = shown
            .first()
            .ok_or_else(|| io::Error::other("no certificate was shown"))
            .and_then(|certificate| Identity::read(certificate).map_err(io::Error::other))?;
        Ok((stream, Admitted::Member(Arc::new(identity))))
    };
    timeout(HANDSHAKE_TIMEOUT, handshake).await?
}

/// Returns when a member is one no more: it was revoked, or its certificate has expired.
pub(crate) async fn ended(pki: &Pki, identity: &Identity) -> &'static str {
    let mut revoked = pki.revoked().subscribe();
    let expired = async {
        loop {
            let left_ms = identity.expires_ms.saturating_sub(clock::unix_ms());
            if left_ms == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left_ms).min(LOOK_AT_CLOCK)).await;
        }
    };
    let is_revoked = async {
        let heard = revoked.wait_for(|all| all.cover(identity)).await.is_ok();
        if !heard {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = is_revoked => "its certificate was revoked",
        () = expired => "its certificate has expired",
    }
}
