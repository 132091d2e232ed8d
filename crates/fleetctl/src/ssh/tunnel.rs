//! HTTP to fleetd through the user's own `ssh`.
//!
//! A unix endpoint is reached by `fleetctl fd-forward` on the tunnel's host, a TCP endpoint by
//! `ssh -W`. The first ssh tells when the user is logged in (until then prompts may wait for a
//! person), then its stdin and stdout are fleetd's connection, which the client keeps for all
//! requests of a command. Further ones share that ssh's connection to the host: nobody logs in
//! twice.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use fleet_api::client::{ByteStream, Dial, Dialing, Endpoint, NoWay};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

pub(crate) use super::child::Say;
use super::child::{Ended, SshChild, Words};
use super::failure::{self, Reached};
use super::{Destination, Options, arguments, known_hosts};

/// Prompts included. sshd itself gives up so long after a connection (LoginGraceTime).
const LOGIN_BOUND: Duration = Duration::from_secs(120);

/// An ssh whose stdout has ended tells its status soon, unless others use its connection.
const END_BOUND: Duration = Duration::from_secs(2);

/// Sockets have short paths: 108 bytes with the zero, of which ssh takes 17 for a temporary name.
const MAX_CONTROL_PATH_BYTES: usize = 90;

/// The way to an endpoint through a host.
pub(crate) struct Tunnel {
    options: Options,
    through: Destination,
    endpoint: Endpoint,
    say: Say,
    /// Somebody has logged in on the shared connection. Held while the first one does.
    is_up: Mutex<bool>,
}

impl Tunnel {
    /// A tunnel through `through`; ssh is run with the first dial.
    pub(crate) fn new(
        options: Options,
        through: Destination,
        endpoint: Endpoint,
        say: Say,
    ) -> Tunnel {
        Tunnel {
            options,
            through,
            endpoint,
            say,
            is_up: Mutex::new(false),
        }
    }

    async fn open(&self) -> io::Result<Box<dyn ByteStream>> {
        let mut is_up = self.is_up.lock().await;
        let is_shared = self.options.control_path.is_some();
        let is_guest = is_shared && *is_up;
        let mut stream = self.start(!is_guest)?;
        if !is_guest {
            match timeout(LOGIN_BOUND, stream.log_in()).await {
                Ok(logged_in) => logged_in?,
                Err(_) => return Err(failure::too_slow(&self.shown()).into()),
            }
            *is_up = true;
        }
        Ok(Box::new(stream))
    }

    fn start(&self, tells_when_up: bool) -> io::Result<TunnelStream> {
        if self.options.strict_host_key_checking {
            known_hosts::prepare(&self.options.known_hosts_file).map_err(|error| NoWay {
                message: failure::initializing(&error.to_string()),
                cures: vec!["name another file with --known-hosts-file".to_owned()],
            })?;
        }
        let arguments =
            arguments::tunnel(&self.options, &self.through, &self.endpoint, tells_when_up);
        let program = &self.options.program;
        let child = SshChild::start(program, &arguments, self.say.clone())
            .map_err(|error| failure::of_start(program, &error))?;
        Ok(TunnelStream {
            through: self.shown(),
            has_far_side: matches!(self.endpoint, Endpoint::Unix(_)),
            reached: if tells_when_up {
                Reached::Nothing
            } else {
                Reached::Host
            },
            stdin: Some(child.stdin),
            stdout: child.stdout,
            words: child.words,
            end: End::Open(Some(child.end)),
            has_asked: false,
            reader: None,
        })
    }

    fn shown(&self) -> String {
        arguments::shown(&self.options, &self.through)
    }
}

impl Dial for Tunnel {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(self.open())
    }

    fn describe(&self) -> String {
        format!("dial through {}", self.shown())
    }

    fn bound(&self) -> Duration {
        // The tunnel's own bound has better words.
        LOGIN_BOUND * 2
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // ssh removes its socket itself unless it was killed.
        if let Some(path) = &self.options.control_path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A new socket's path for the connection that others share: in the user's runtime directory,
/// or beside the keys of known hosts. None if neither has room.
pub(crate) fn control_path(runtime_dir: Option<&Path>, known_hosts_file: &Path) -> Option<PathBuf> {
    // Not only the process's number: the directory may be seen from several containers.
    let unique = RandomState::new().build_hasher().finish();
    let name = format!("fleetctl-{}-{unique:016x}", std::process::id());
    let runtime_dir = runtime_dir.filter(|dir| dir.is_absolute() && dir.is_dir());
    let beside = known_hosts_file.parent().filter(|dir| dir.is_absolute());
    [runtime_dir, beside]
        .into_iter()
        .flatten()
        .map(|dir| dir.join(&name))
        .find(|path| path.as_os_str().len() <= MAX_CONTROL_PATH_BYTES)
}

/// fleetd's connection.
struct TunnelStream {
    through: String,
    has_far_side: bool,
    reached: Reached,
    /// None after we have said all.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    words: Words,
    end: End,
    /// A request has been sent.
    has_asked: bool,
    /// Who is to hear of the end as soon as a request has been sent.
    reader: Option<Waker>,
}

/// What becomes of a stream whose stdout has ended.
enum End {
    /// It has not.
    Open(Option<oneshot::Receiver<Ended>>),
    /// ssh's status is awaited.
    Awaited(Pin<Box<dyn Future<Output = Option<Ended>> + Send>>),
    /// All is said.
    Over,
}

impl TunnelStream {
    /// Waits for the empty line that ssh prints when the user is logged in.
    async fn log_in(&mut self) -> io::Result<()> {
        let mut line_end = [0];
        // The end of stdout comes as the error which says why.
        self.read_exact(&mut line_end).await?;
        self.reached = Reached::Host;
        self.words.release();
        Ok(())
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.end {
                End::Over => return Poll::Ready(Ok(())),
                End::Open(end) => {
                    let end = end.take();
                    self.end = End::Awaited(Box::pin(async move {
                        timeout(END_BOUND, end?).await.ok()?.ok()
                    }));
                }
                End::Awaited(ended) => {
                    let ended = ready!(ended.as_mut().poll(cx));
                    self.end = End::Over;
                    let failure = ended.and_then(|ended| {
                        let has_far_side = self.has_far_side;
                        failure::of_tunnel(&self.through, has_far_side, self.reached, &ended)
                    });
                    return Poll::Ready(failure.map_or(Ok(()), Err));
                }
            }
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if matches!(self.end, End::Open(_)) {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.stdout).poll_read(cx, buffer))?;
            if buffer.filled().len() > before || buffer.capacity() == before {
                if self.reached == Reached::Host {
                    self.reached = Reached::Fleetd;
                    self.words.open();
                }
                return Poll::Ready(Ok(()));
            }
        }
        // An HTTP client that is told before it has a request forgets the reason.
        if self.reached == Reached::Host && !self.has_asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.poll_end(cx)
    }
}

/// Writing to an ssh that has ended is no error: the next read says why it did.
impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.has_asked = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        let Some(stdin) = &mut self.stdin else {
            return Poll::Ready(Ok(bytes.len()));
        };
        match ready!(Pin::new(stdin).poll_write(cx, bytes)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdin = None;
                Poll::Ready(Ok(bytes.len()))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Closing the pipe is the only way to end it.
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
