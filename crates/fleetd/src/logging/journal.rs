//! The journal's native protocol (systemd's "Native Journal Protocol"): a datagram for each event,
//! with the line for people and each field for itself, so that `journalctl -u fleet` can be read
//! and `journalctl F_UNIT=hello.service` asks for one unit.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::said::Said;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A journal that takes nothing for so long does without the line, and is not waited for again
/// until it takes one: its disk may have stalled, and fleetd has a lease to renew and units to mind.
const WAIT: Duration = Duration::from_millis(500);

/// Of a longer text the beginning is said: a datagram has room for about 200 KiB in all.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// Stands before the names of fleet's own fields.
const PREFIX: &str = "F_";

/// Sends each event to the journal.
pub(super) struct Journal {
    path: PathBuf,
    /// Waits for room.
    patient: UnixDatagram,
    /// Waits for nothing.
    hasty: UnixDatagram,
    /// The last line found no room.
    is_full: AtomicBool,
}

impl Journal {
    /// # Errors
    /// There is no journal, or there are no sockets left.
    pub(super) fn new() -> io::Result<Journal> {
        Journal::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Journal> {
        let patient = UnixDatagram::unbound()?;
        patient.set_write_timeout(Some(WAIT))?;
        let hasty = UnixDatagram::unbound()?;
        hasty.set_nonblocking(true)?;
        let journal = Journal {
            path: path.to_owned(),
            patient,
            hasty,
            is_full: AtomicBool::new(false),
        };
        // Nothing but to learn whether it is there. One that is full is there.
        match journal.send(&[]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(journal),
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let socket = match self.is_full.load(Ordering::Relaxed) {
            true => &self.hasty,
            false => &self.patient,
        };
        let sent = socket.send_to(datagram, &self.path);
        let is_full = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.is_full.store(is_full, Ordering::Relaxed);
        sent.map(|_| ())
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let datagram = datagram(event.metadata(), &Said::by(event));
        // Where could one say that nothing can be said?
        let _ = self.send(&datagram);
    }
}

fn datagram(metadata: &Metadata<'_>, said: &Said) -> Vec<u8> {
    let mut datagram = Vec::new();
    put(&mut datagram, "PRIORITY", priority(*metadata.level()));
    put(&mut datagram, "SYSLOG_IDENTIFIER", "fleetd");
    put(&mut datagram, "TARGET", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        put(&mut datagram, "CODE_FILE", file);
        put(&mut datagram, "CODE_LINE", &line.to_string());
    }
    put(&mut datagram, "MESSAGE", &said.line());
    for (name, value) in &said.fields {
        put(&mut datagram, &field_name(name), value);
    }
    datagram
}

/// The form with a length, which takes line breaks, too.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value.as_bytes()[..value.floor_char_boundary(MAX_TEXT_BYTES)];
    datagram.extend_from_slice(name.as_bytes());
    datagram.push(b'\n');
    datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    datagram.extend_from_slice(value);
    datagram.push(b'\n');
}

/// Capitals, digits and underscores are what the journal takes.
fn field_name(name: &str) -> String {
    let letter = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    };
    format!("{PREFIX}{}", name.chars().map(letter).collect::<String>())
}

/// The levels of syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Post(Arc<Mutex<Vec<Vec<u8>>>>);

    impl<S: Subscriber> Layer<S> for Post {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let datagram = datagram(event.metadata(), &Said::by(event));
            self.0.lock().unwrap().push(datagram);
        }
    }

    /// The fields of a datagram, as journald reads them.
    fn read(mut datagram: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(datagram[..end].to_vec()).unwrap();
            let (length, rest) = datagram[end + 1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(rest[length], b'\n');
            let value = String::from_utf8(rest[..length].to_vec()).unwrap();
            fields.push((name, value));
            datagram = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn the_message_can_be_read_alone_and_each_field_can_be_asked_for() {
        let post = Post::default();
        tracing::subscriber::with_default(Registry::default().with(post.clone()), || {
            let reason = "line one\nline two";
            tracing::warn!(unit = %"a.service", reason, n = 3, "unit refused");
            tracing::info!(text = "é".repeat(MAX_TEXT_BYTES), "long");
        });
        let post = post.0.lock().unwrap();
        let fields = read(&post[0]);
        for (name, value) in [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "fleetd"),
            (
                "MESSAGE",
                "unit refused unit=a.service reason=\"line one\\nline two\" n=3",
            ),
            ("F_UNIT", "a.service"),
            ("F_REASON", "line one\nline two"),
            ("F_N", "3"),
        ] {
            let field = (name.to_owned(), value.to_owned());
            assert!(fields.contains(&field), "{field:?} in {fields:?}");
        }
        for (_, value) in read(&post[1]) {
            assert!(value.len() <= MAX_TEXT_BYTES);
        }
    }

    /// journald with a stalled disk: its socket is there, and nobody reads.
    #[test]
    fn a_journal_that_takes_nothing_is_waited_for_once_and_used_again_when_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let reader = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let refused = (0..10_000).filter(|_| journal.send(b"x").is_err()).count();
            let _ = done.send((refused, journal));
        });
        // Waited for each time it would take an hour.
        let (refused, journal) = ended.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(refused > 0, "there is room for all");
        reader.set_nonblocking(true).unwrap();
        while reader.recv(&mut [0; 8]).is_ok() {}
        journal.send(b"y").unwrap();
        assert!(!journal.is_full.load(Ordering::Relaxed));
    }
}
