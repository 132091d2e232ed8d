//! systemd's private socket, as a transport for zbus.
//!
//! The socket speaks D-Bus without a bus. It is several times faster than the bus and needs none
//! (see docs/design). Two things keep zbus from using it as it is: systemd puts its well-known
//! name into the SENDER field, where zbus accepts unique names only, and the handshake must not
//! negotiate file descriptors. So this module shakes hands itself and turns the first byte of
//! that name into a `:` in every message that comes in.
//!
//! And systemd tells everybody everything: about fifteen signals for each start, most of which are
//! of no use to us. Those are dropped here, before zbus makes messages of them, and in a storm they
//! are read by the dozen: waking up for each cost more than all that is done with them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};

use super::noise::{self, Listener};

/// systemd answers within a millisecond; one that does not in this time is hung or reloading.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The answer is `OK ` and 32 hex digits.
const MAX_HANDSHAKE_BYTES: usize = 256;
/// One read takes what fits: about thirty signals.
const READ_BYTES: usize = 32 * 1024;
/// The largest answer is that about 2,000 units, half a megabyte. D-Bus would allow 128 MiB, which
/// would be taken from the machine's units.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// The fixed part of a message's header.
pub(super) const FIXED_HEADER_BYTES: usize = 16;

/// So many reads one after the other are a storm: one start makes about thirty.
const STORM_READS: u32 = 48;
/// After a pause of this there is no storm any more.
const CALM: Duration = Duration::from_millis(25);
/// In a storm it is read this often at first. systemd starts a unit in two milliseconds at best, so nobody
/// waits longer for it, and it is not interrupted at each of its words where processors are few.
const GATHER_FROM: Duration = Duration::from_millis(1);
/// The longer it lasts the less often: what is told late by this share of it is not noticed.
const GATHER_SHARE: u32 = 32;
/// So long at most: with a hundred jobs under way systemd has work meanwhile.
const GATHER_TO: Duration = Duration::from_millis(8);

/// The SENDER field as systemd writes it: code 7, signature `s`, and the name with its length.
const NAME: &[u8] = b"org.freedesktop.systemd1";
const FIELD_SENDER: &[u8] = &[7, 1, b's', 0];

/// A connected, authenticated socket.
pub(crate) struct PrivateSocket {
    read: Reader,
    write: Writer,
    /// The server's id.
    pub(crate) guid: String,
}

impl Socket for PrivateSocket {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        Split::new(self.read, self.write)
    }
}

/// Connects and shakes hands. Of units that are not our own nothing is heard.
pub(crate) async fn connect(path: &Path, listener: Arc<dyn Listener>) -> io::Result<PrivateSocket> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, connect_unbounded(path, listener))
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}

async fn connect_unbounded(path: &Path, listener: Arc<dyn Listener>) -> io::Result<PrivateSocket> {
    let mut stream = UnixStream::connect(path).await?;
    let uid = rustix::process::geteuid().as_raw().to_string();
    let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
    // BEGIN goes with the question: systemd answers when it has read both.
    let hello = format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n");
    stream.write_all(hello.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        // Byte by byte, so that nothing of what follows is taken away.
        let byte = stream.read_u8().await?;
        answer.push(byte);
        if answer.len() > MAX_HANDSHAKE_BYTES {
            return Err(invalid("its answer to the handshake is too long"));
        }
    }
    let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
    let Some(guid) = answer.strip_prefix("OK ") else {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("systemd refused the handshake: {answer}"),
        ));
    };
    Ok(over(stream, guid.to_owned(), listener))
}

/// The socket once hands are shaken.
pub(crate) fn over(stream: UnixStream, guid: String, listener: Arc<dyn Listener>) -> PrivateSocket {
    let (read, write) = stream.into_split();
    PrivateSocket {
        read: Reader::new(read, listener),
        write: Writer(write),
        guid,
    }
}

/// Reads whole messages, mends them, and hands out the bytes of those that are of use.
pub(crate) struct Reader {
    stream: OwnedReadHalf,
    frames: Frames,
    storm: Storm,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    fn new(stream: OwnedReadHalf, listener: Arc<dyn Listener>) -> Self {
        Reader {
            stream,
            frames: Frames::new(listener),
            storm: Storm::default(),
        }
    }
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            let n_bytes = self.frames.take(buffer)?;
            if n_bytes > 0 {
                return Ok((n_bytes, Vec::new()));
            }
            if let Some(pause) = self.storm.gather() {
                tokio::time::sleep(pause).await;
            }
            let n_bytes = self.stream.read_buf(self.frames.space()).await?;
            if n_bytes == 0 {
                return Ok((0, Vec::new()));
            }
            self.storm.read(n_bytes, Instant::now());
        }
    }
}

/// Whether systemd says so much that it is better read less often.
#[derive(Debug, Default)]
struct Storm {
    /// Reads without a pause between them.
    n_reads: u32,
    /// The first and the last of them.
    began: Option<Instant>,
    last: Option<Instant>,
    /// The last read has taken less than it could: nothing was left behind it.
    was_all: bool,
}

impl Storm {
    fn read(&mut self, n_bytes: usize, now: Instant) {
        if self.last.is_none_or(|last| now - last >= CALM) {
            self.n_reads = 0;
            self.began = Some(now);
        }
        self.n_reads = self.n_reads.saturating_add(1);
        self.last = Some(now);
        self.was_all = n_bytes < READ_BYTES;
    }

    /// How long what systemd says is left to gather before the next read.
    fn gather(&self) -> Option<Duration> {
        if !self.was_all || self.n_reads <= STORM_READS {
            return None;
        }
        let lasts = self.last? - self.began?;
        Some((lasts / GATHER_SHARE).clamp(GATHER_FROM, GATHER_TO))
    }
}

/// The sending half: nothing to mend.
#[derive(Debug)]
pub(crate) struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

/// Cuts the byte stream into messages, drops those that are of no use, and mends the others.
struct Frames {
    listener: Arc<dyn Listener>,
    /// What was read.
    bytes: Vec<u8>,
    /// Handed out up to here.
    taken: usize,
    /// Mended, and to be handed out, up to here.
    mended: usize,
}

impl Frames {
    fn new(listener: Arc<dyn Listener>) -> Frames {
        Frames {
            listener,
            bytes: Vec::new(),
            taken: 0,
            mended: 0,
        }
    }

    /// Where the next read goes.
    fn space(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.taken);
        self.mended -= self.taken;
        self.taken = 0;
        self.bytes.reserve(READ_BYTES);
        &mut self.bytes
    }

    /// Hands out bytes of whole messages; 0 when more must be read.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.mended {
            self.sift()?;
        }
        let n_bytes = buffer.len().min(self.mended - self.taken);
        buffer[..n_bytes].copy_from_slice(&self.bytes[self.taken..self.taken + n_bytes]);
        self.taken += n_bytes;
        Ok(n_bytes)
    }

    /// Looks at all messages that are there as a whole; those that are kept move together.
    fn sift(&mut self) -> io::Result<()> {
        let mut at = self.mended;
        while let Some(length) = frame_length(&self.bytes[at..])? {
            let Some(frame) = self.bytes[at..].get_mut(..length) else {
                break;
            };
            if !noise::is_noise(frame, &*self.listener) {
                mend(frame);
                self.bytes.copy_within(at..at + length, self.mended);
                self.mended += length;
            }
            at += length;
        }
        self.bytes.drain(self.mended..at);
        Ok(())
    }
}

/// The length of the message that begins here; None while its fixed header is not complete.
fn frame_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    if bytes.len() < FIXED_HEADER_BYTES {
        return Ok(None);
    }
    let (body, fields) = (number(bytes, 4), number(bytes, 12));
    let length = header_length(fields).saturating_add(body);
    if length > MAX_MESSAGE_BYTES {
        return Err(invalid("a message is too long"));
    }
    Ok(Some(length))
}

/// Header fields are followed by padding to eight bytes.
pub(super) fn header_length(fields: usize) -> usize {
    FIXED_HEADER_BYTES.saturating_add(fields.saturating_add(7) & !7)
}

/// A number of four bytes in the message's own byte order.
pub(super) fn number(message: &[u8], at: usize) -> usize {
    let bytes = [
        message[at],
        message[at + 1],
        message[at + 2],
        message[at + 3],
    ];
    let number = if message[0] == b'B' {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    };
    number as usize
}

/// Turns the well-known name in the SENDER field into a unique one of the same length.
fn mend(message: &mut [u8]) {
    let header = header_length(number(message, 12)).min(message.len());
    // Every header field begins at a multiple of eight bytes.
    let mut at = FIXED_HEADER_BYTES;
    while at + 8 + NAME.len() <= header {
        let name = at + 8;
        if message[at..].starts_with(FIELD_SENDER)
            && number(message, at + 4) == NAME.len()
            && message[name..].starts_with(NAME)
        {
            message[name] = b':';
            return;
        }
        at += 8;
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All units are its own.
    #[derive(Debug)]
    struct All;

    impl Listener for All {
        fn is_own(&self, _: &str) -> bool {
            true
        }

        fn main_pid_is(&self, _: &str, _: u32) {}
    }

    /// A signal of path `/` with the given sender, in little or big endian.
    fn message(sender: &str, body: usize, big: bool) -> Vec<u8> {
        let n = |n: usize| {
            let n = u32::try_from(n).unwrap();
            if big {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        let mut fields = vec![1, 1, b'o', 0];
        fields.extend(n(1));
        fields.extend(b"/\0");
        fields.resize(16, 0);
        fields.extend(FIELD_SENDER);
        fields.extend(n(sender.len()));
        fields.extend(sender.as_bytes());
        fields.push(0);
        let mut message = vec![if big { b'B' } else { b'l' }, 4, 0, 1];
        message.extend(n(body));
        message.extend(n(1));
        message.extend(n(fields.len()));
        message.extend(&fields);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(std::iter::repeat_n(b'x', body));
        message
    }

    fn read_all(stream: &[u8], piece: usize, out: usize) -> Vec<u8> {
        let mut frames = Frames::new(Arc::new(All));
        let mut got = Vec::new();
        let mut buffer = vec![0; out];
        for part in stream.chunks(piece) {
            frames.space().extend_from_slice(part);
            loop {
                let n = frames.take(&mut buffer).unwrap();
                if n == 0 {
                    break;
                }
                got.extend_from_slice(&buffer[..n]);
            }
        }
        got
    }

    #[test]
    fn the_sender_becomes_a_unique_name_and_nothing_else_changes() {
        for big in [false, true] {
            let original = message("org.freedesktop.systemd1", 33, big);
            let mended = message(":rg.freedesktop.systemd1", 33, big);
            let other = message(":1.5", 0, big);
            let stream = [&original[..], &other, &original].concat();
            let expected = [&mended[..], &other, &mended].concat();
            for (piece, out) in [(1, 1), (7, 16), (stream.len(), 16), (stream.len(), 4096)] {
                assert_eq!(read_all(&stream, piece, out), expected, "{piece} {out}");
            }
        }
    }

    /// Wherever the reads end, what is of use comes out whole, and nothing of what is not.
    #[test]
    fn noise_is_dropped_between_what_is_of_use() {
        let noise = zbus::message::Message::signal(
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
            "JobNew",
        );
        let noise = noise.build(&(7_u32, "a.service")).unwrap();
        let noise = noise.data();
        let useful = message(":1.5", 20, false);
        let stream = [noise, noise, &useful[..], noise, &useful, noise].concat();
        let expected = [&useful[..], &useful].concat();
        for (piece, out) in [(1, 1), (7, 16), (stream.len(), 16), (stream.len(), 4096)] {
            assert_eq!(read_all(&stream, piece, out), expected, "{piece} {out}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_storm_is_read_by_the_dozen() {
        let mut storm = Storm::default();
        // What one start makes, again and again, each time after a pause.
        for _ in 0..10 {
            for _ in 0..STORM_READS {
                storm.read(100, Instant::now());
                assert_eq!(storm.gather(), None);
            }
            tokio::time::sleep(CALM).await;
        }
        for _ in 0..=STORM_READS {
            storm.read(100, Instant::now());
        }
        assert_eq!(storm.gather(), Some(GATHER_FROM));
        // What could not be read at once is not left lying.
        storm.read(READ_BYTES, Instant::now());
        assert_eq!(storm.gather(), None);
        // The longer it lasts the more is gathered, within bounds; to gather is no pause of systemd's.
        let mut before = GATHER_FROM;
        for _ in 0..100 {
            storm.read(100, Instant::now());
            let gather = storm.gather().unwrap();
            assert!((before..=GATHER_TO).contains(&gather), "{gather:?}");
            before = gather;
            tokio::time::sleep(gather + CALM / 2).await;
        }
        assert_eq!(before, GATHER_TO);
        tokio::time::sleep(CALM).await;
        storm.read(100, Instant::now());
        assert_eq!(storm.gather(), None);
    }

    #[test]
    fn a_message_that_is_too_long_is_an_error() {
        let mut message = message(":1.5", 0, false);
        message[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut frames = Frames::new(Arc::new(All));
        frames.space().extend_from_slice(&message);
        assert!(frames.take(&mut [0; 16]).is_err());
    }
}
