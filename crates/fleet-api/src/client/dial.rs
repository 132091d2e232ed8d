//! How a byte stream to fleetd comes to be.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::{Endpoint, TcpEndpoint};

/// Bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// A dial under way.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send + 'a>>;

/// Makes connections: to a socket, over TCP, through a tunnel, to a child's stdin and stdout.
pub trait Dial: Send + Sync + 'static {
    /// A new connection.
    fn dial(&self) -> Dialing<'_>;

    /// How the original names such a dial in its messages: `dial unix /run/fleet.sock`.
    fn describe(&self) -> String;
}

/// The way to an endpoint without TLS and tunnel.
pub(crate) fn plain(endpoint: &Endpoint) -> Box<dyn Dial> {
    match endpoint {
        Endpoint::Unix(path) => Box::new(UnixDial { path: path.clone() }),
        Endpoint::Tcp(tcp) => Box::new(TcpDial { to: tcp.clone() }),
    }
}

struct UnixDial {
    path: PathBuf,
}

impl Dial for UnixDial {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let stream = UnixStream::connect(&self.path).await?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }

    fn describe(&self) -> String {
        format!("dial unix {}", self.path.display())
    }
}

/// A TCP connection.
pub(crate) struct TcpDial {
    pub(crate) to: TcpEndpoint,
}

impl TcpDial {
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((self.to.host.as_str(), self.to.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Dial for TcpDial {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async { Ok(Box::new(self.connect().await?) as Box<dyn ByteStream>) })
    }

    fn describe(&self) -> String {
        format!("dial tcp {}", self.to.authority())
    }
}
