//! How a byte stream to fleetd comes to be.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

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

    /// A dial that takes longer is given up.
    fn bound(&self) -> Duration {
        CONNECT_TIMEOUT
    }

    /// What an error of a dial or of its stream means, where this way knows more than the error
    /// says.
    fn explain(&self, error: &io::Error) -> Option<NoWay> {
        NoWay::within(error)
    }
}

/// A machine that does not accept a connection by then is taken for dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no way to fleetd, from a [`Dial`] or a stream of its own that knows more than an
/// errno: put it into an [`io::Error`], and the request ends with [`super::Error::NoWay`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct NoWay {
    /// Whole sentence for people.
    pub message: String,
    /// What can be done about it.
    pub cures: Vec<String>,
}

impl NoWay {
    /// The one in an I/O error, if it carries one.
    pub(crate) fn within(error: &io::Error) -> Option<NoWay> {
        error.get_ref()?.downcast_ref::<NoWay>().cloned()
    }
}

impl From<NoWay> for io::Error {
    fn from(no_way: NoWay) -> io::Error {
        io::Error::other(no_way)
    }
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
