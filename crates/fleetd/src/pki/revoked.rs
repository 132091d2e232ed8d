//! Who is not believed any more, though a certificate says so.
//!
//! What is in the store is a revocation; what is not there any more is none that is taken back: what
//! a machine has once heard it keeps in a file of its own, so that neither an emptied store nor an
//! older copy of it lets anybody in again. A revocation is of the certificates that were issued until
//! then; who is to be believed again joins anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet_pki::{Identity, files};
use futures_util::StreamExt;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::shutdown::{Shutdown, stopped};
use crate::store::codec::{Document, RevokedRecord};
use crate::store::{self, Entry, Event, Range, Store, keys};

/// Its file, below the state directory.
const FILE: &str = "revoked";

/// Clocks may differ: a certificate that another machine issued so much later than the revocation,
/// by its clock, may have been issued before it.
pub(crate) const CLOCK_SKEW_MS: u64 = 60_000;

/// More are not kept: a thousand machines lost each year for ten years. A store that is full of
/// garbage must not fill the memory.
pub(crate) const MAX_REVOKED: usize = 10_000;

/// What begins the name of a single certificate; others are a subject's.
pub(crate) const SERIAL: &str = "serial:";

/// All revocations that are known: of whom, and until when their certificates were issued.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revocations(BTreeMap<String, u64>);

impl Revocations {
    /// Whether this one is among them.
    pub fn cover(&self, identity: &Identity) -> bool {
        let by_subject = self.0.get(&identity.subject.to_string());
        let by_serial = self.0.get(&format!("{SERIAL}{}", identity.serial));
        let mut until = [by_subject, by_serial].into_iter().flatten();
        until.any(|at_ms| identity.issued_ms <= at_ms.saturating_add(CLOCK_SKEW_MS))
    }

    /// When this subject was revoked, if it was.
    pub fn of(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Adds one. Only more is ever revoked: the later time counts.
    fn add(&mut self, name: &str, at_ms: u64) -> bool {
        let is_full = self.0.len() >= MAX_REVOKED;
        match self.0.get(name) {
            Some(known) if *known >= at_ms => return false,
            None if is_full => return false,
            _ => {}
        }
        self.0.insert(name.to_owned(), at_ms);
        true
    }

    fn parse(text: &str) -> Revocations {
        let mut all = Revocations::default();
        for line in text.lines() {
            if let Some((name, at)) = line.split_once(' ')
                && let Ok(at_ms) = at.parse()
            {
                all.add(name, at_ms);
            }
        }
        all
    }

    fn text(&self) -> String {
        let lines = self.0.iter();
        lines
            .map(|(name, at_ms)| format!("{name} {at_ms}\n"))
            .collect()
    }
}

/// What this machine knows of revocations.
pub struct Revoked {
    known: watch::Sender<Revocations>,
    file: Option<PathBuf>,
}

impl Revoked {
    /// What was known before, from the file in this directory; None: nothing is kept.
    pub(super) fn open(state: Option<&Path>) -> Arc<Revoked> {
        let file = state.map(|state| state.join(FILE));
        let text = file.as_ref().and_then(|file| {
            std::fs::read_to_string(file)
                .inspect_err(|error| {
                    if error.kind() != std::io::ErrorKind::NotFound {
                        let file = file.display().to_string();
                        warn!(%error, file, "who was revoked before cannot be read: the store is asked");
                    }
                })
                .ok()
        });
        Arc::new(Revoked {
            known: watch::Sender::new(Revocations::parse(&text.unwrap_or_default())),
            file,
        })
    }

    /// Whether it is revoked.
    pub fn has(&self, identity: &Identity) -> bool {
        self.known.borrow().cover(identity)
    }

    /// Until when this one's certificates are revoked.
    pub(crate) fn at(&self, name: &str) -> Option<u64> {
        self.known.borrow().of(name)
    }

    /// Whether no more can be remembered.
    pub(crate) fn is_full(&self) -> bool {
        self.known.borrow().0.len() >= MAX_REVOKED
    }

    /// Hears of each change.
    pub fn subscribe(&self) -> watch::Receiver<Revocations> {
        self.known.subscribe()
    }

    /// Takes note of some: connections are cut at once, and it is remembered.
    pub fn note(&self, revoked: impl IntoIterator<Item = (String, u64)>) {
        let mut fresh = Vec::new();
        self.known.send_if_modified(|known| {
            fresh = revoked
                .into_iter()
                .filter(|(name, at_ms)| known.add(name, *at_ms))
                .collect();
            !fresh.is_empty()
        });
        for (name, at_ms) in &fresh {
            info!(name, at_ms, "its certificates are revoked");
        }
        if !fresh.is_empty() {
            self.keep();
        }
    }

    fn keep(&self) {
        let Some(file) = &self.file else { return };
        let text = self.known.borrow().text();
        let written = file
            .parent()
            .map_or(Ok(()), files::directory)
            .and_then(|()| files::replace(file, &text));
        if let Err(error) = written {
            warn!(
                %error,
                "who is revoked could not be written down: it holds until fleetd is restarted, and \
                 then as long as the store says so"
            );
        }
    }

    /// Hears of what is in the store, until told to stop.
    pub(crate) async fn follow(&self, store: Arc<dyn Store>, mut shutdown: Shutdown) {
        let mut backoff = Backoff::new();
        loop {
            let heard = async {
                if let Err(error) = self.hear(&*store, &mut backoff).await {
                    debug!(%error, "revocations cannot be heard at present");
                }
                backoff.pause().await;
            };
            tokio::select! {
                () = heard => {}
                () = stopped(&mut shutdown) => return,
            }
        }
    }

    async fn hear(&self, store: &dyn Store, backoff: &mut Backoff) -> Result<(), store::Error> {
        let (_, mut watch) = store.watch_from_now(keys::REVOKED).await?;
        let all = Range {
            prefix: keys::REVOKED.to_owned(),
            limit: Some(MAX_REVOKED),
            ..Range::default()
        };
        let there = store.read(all).await?;
        self.note(there.entries.iter().filter_map(revocation));
        *backoff = Backoff::new();
        while let Some(batch) = watch.next().await {
            let events = batch?.events;
            self.note(events.iter().filter_map(|event| match event {
                Event::Put(entry) => revocation(entry),
                // What is not there any more takes nothing back.
                Event::Delete { .. } => None,
            }));
        }
        Ok(())
    }
}

fn revocation(entry: &Entry) -> Option<(String, u64)> {
    let keys::Key::Revoked(name) = keys::parse(&entry.key) else {
        return None;
    };
    match RevokedRecord::decode(&entry.key, &entry.value) {
        Ok(record) => Some((name.to_owned(), record.at_ms)),
        Err(error) => {
            warn!(%error, "a revocation cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_pki::Subject;

    use super::*;

    fn identity(subject: &str, issued_ms: u64) -> Identity {
        Identity {
            subject: Subject::parse(subject).unwrap(),
            roles: Vec::new(),
            serial: "46ab".to_owned(),
            issued_ms,
            valid_from_ms: 0,
            expires_ms: u64::MAX,
            names: Vec::new(),
        }
    }

    #[test]
    fn what_was_issued_until_then_is_revoked_and_what_is_issued_later_is_not() {
        let revoked = Revoked::open(None);
        assert!(!revoked.has(&identity("user:alice", 5_000_000)));
        revoked.note([("user:alice".to_owned(), 5_000_000)]);
        assert!(revoked.has(&identity("user:alice", 5_000_000)));
        assert!(revoked.has(&identity("user:alice", 5_000_000 + CLOCK_SKEW_MS)));
        assert!(!revoked.has(&identity("user:alice", 5_000_001 + CLOCK_SKEW_MS)));
        assert!(!revoked.has(&identity("user:bob", 1)));
        assert!(!revoked.has(&identity("machine:alice", 1)));
        // An earlier time, from an older copy of the store, takes nothing back.
        revoked.note([("user:alice".to_owned(), 1)]);
        assert!(revoked.has(&identity("user:alice", 5_000_000)));
        // A single certificate.
        revoked.note([("serial:46ab".to_owned(), u64::MAX)]);
        assert!(revoked.has(&identity("user:bob", 1)));
    }

    #[test]
    fn it_is_remembered_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("fleet");
        Revoked::open(Some(&state)).note([("user:a".to_owned(), 7), ("machine:b".to_owned(), 9)]);
        let again = Revoked::open(Some(&state));
        assert_eq!(again.known.borrow().text(), "machine:b 9\nuser:a 7\n");
        // Garbage in it does not hide the rest.
        std::fs::write(state.join(FILE), "\nx\nuser:a y\nuser:c 3\n").unwrap();
        let again = Revoked::open(Some(&state));
        assert!(again.has(&identity("user:c", 3)));
    }

    #[test]
    fn there_is_a_bound() {
        let revoked = Revoked::open(None);
        revoked.note((0..MAX_REVOKED + 5).map(|n| (format!("user:{n}"), 1)));
        assert_eq!(revoked.known.borrow().0.len(), MAX_REVOKED);
    }
}
