//! One machine without any set-up: the store in one file.
//!
//! The whole store is held in memory ([`super::model`]), where it is read and watched. One thread
//! writes: it takes all transactions that wait, decides them on top of each other, makes them
//! durable together by one commit of redb, and only then makes them visible and answers.
//! Renewals of leases are not written: after a restart each lease has its full time again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::memory::Shared;
use super::model::Staged;
use super::{Error, LeaseId, Range, Revision, Snapshot, Store, Txn, Watch};
use file::{Failure, StoreFile};

mod file;
#[cfg(test)]
mod tests;

/// How many requests may wait for the writer; more wait outside, so that memory is bounded.
const QUEUE: usize = 1024;

/// How many requests share one commit: enough to hide the disk's latency, few enough that the
/// first of them does not wait long.
const GROUP: usize = 256;

/// The store in one file.
pub struct EmbeddedStore {
    path: PathBuf,
    shared: Arc<Shared>,
    /// None only while dropping.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

enum Request {
    Commit(Txn, Answer<Revision>),
    Grant(Duration, Answer<(LeaseId, Duration)>),
    Revoke(LeaseId, Answer<()>),
}

type Answer<T> = oneshot::Sender<Result<T, Error>>;

impl EmbeddedStore {
    /// Opens the file, or creates it when it does not exist.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, or when it cannot be read or created;
    /// `NoSpace` on a full disk; `Refused` when it is damaged or of a newer fleetd: it is then left
    /// exactly as it is. Each names the path and the cure.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<EmbeddedStore>, Error> {
        let path = path.as_ref();
        Self::run(StoreFile::open(path)?, path)
    }

    fn run(file: StoreFile, path: &Path) -> Result<Arc<EmbeddedStore>, Error> {
        let shared = Shared::new(file.load(Instant::now())?);
        let (requests, queue) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Error::Unavailable(format!("the store's timer: {error}")))?;
        let writer = Writer {
            file,
            shared: Arc::clone(&shared),
            in_doubt: None,
        };
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || runtime.block_on(writer.run(queue)))
            .map_err(|error| Error::Unavailable(format!("the store's thread: {error}")))?;
        Ok(Arc::new(EmbeddedStore {
            path: path.to_owned(),
            shared,
            requests: Some(requests),
            writer: Some(writer),
        }))
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Error> {
        let ended = || Error::Unavailable(format!("{} was closed", self.path.display()));
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(request(answer)).await.map_err(|_| ended())?;
        // The writer answers everything that it takes, unless it dies over it.
        answered.await.map_err(|_| {
            Error::OutcomeUnknown(format!("the writer of {} has died", self.path.display()))
        })?
    }
}

impl Drop for EmbeddedStore {
    /// Waits until what was asked for is written and the file is closed, so that it can be opened
    /// anew.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was reported when it happened.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn read(&self, range: Range) -> Result<Snapshot, Error> {
        self.shared.read().read(&range)
    }

    async fn read_keys(&self, keys: &[String]) -> Result<Snapshot, Error> {
        super::check_keys(keys)?;
        Ok(self.shared.read().read_keys(keys))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.shared.watch(prefix, after, None)
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, Error> {
        self.ask(|answer| Request::Commit(txn, answer)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), Error> {
        self.ask(|answer| Request::Grant(ttl, answer)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.shared.write().renew(lease, Instant::now())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.ask(|answer| Request::Revoke(lease, answer)).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.shared.write().compact(revision)
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// The one writer.
struct Writer {
    file: StoreFile,
    shared: Arc<Shared>,
    /// Changes of which it is not known whether the file has them.
    in_doubt: Option<Staged>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            let deadline = self.shared.read().next_deadline();
            let expiry = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                taken = queue.recv_many(&mut group, GROUP) => {
                    if taken == 0 {
                        return;
                    }
                    self.serve(&mut group);
                }
                () = expiry => self.expire().await,
            }
        }
    }

    fn serve(&mut self, group: &mut Vec<Request>) {
        let mut staged = self.shared.read().begin();
        let mut waiting = Vec::new();
        for request in group.drain(..) {
            match request {
                Request::Commit(txn, answer) => {
                    let decided = self.shared.read().stage(&mut staged, txn, Instant::now());
                    waiting.push((answer, decided));
                }
                // Rare: what is staged is written first, because a lease is decided alone.
                Request::Grant(ttl, answer) => {
                    self.finish(staged, waiting.drain(..));
                    let (id, grant) = self.shared.read().stage_grant(ttl);
                    let _ = answer.send(self.write(grant).map(|()| (id, ttl)));
                    staged = self.shared.read().begin();
                }
                Request::Revoke(id, answer) => {
                    self.finish(staged, waiting.drain(..));
                    let revoke = self.shared.read().stage_revoke(id);
                    let _ = answer.send(self.write(revoke));
                    staged = self.shared.read().begin();
                }
            }
        }
        self.finish(staged, waiting.drain(..));
    }

    /// Writes, then answers. A refusal was decided on top of what is written here, so it holds
    /// only when the write succeeds. Nobody may listen any more: that is fine.
    fn finish(
        &mut self,
        staged: Staged,
        waiting: impl Iterator<Item = (Answer<Revision>, Result<Revision, Error>)>,
    ) {
        let written = self.write(staged);
        for (answer, decided) in waiting {
            let _ = answer.send(written.clone().and(decided));
        }
    }

    async fn expire(&mut self) {
        let expired = self.shared.read().stage_expired(Instant::now());
        if let Err(error) = self.write(expired) {
            tracing::warn!(%error, store = %self.file.path().display(), "the end of a lease cannot be written");
            tokio::time::sleep(EXPIRY_RETRY).await;
        }
    }

    /// Makes changes durable, then visible.
    fn write(&mut self, staged: Staged) -> Result<(), Error> {
        if staged.is_empty() {
            return Ok(());
        }
        if let Some(doubtful) = self.in_doubt.take()
            && self.resolve(doubtful)?
        {
            // What was just decided rests on a state that is no more.
            return Err(Error::Unavailable(format!(
                "{} was just opened anew after a fault: try again",
                self.file.path().display()
            )));
        }
        match self.file.write(&staged) {
            Ok(()) => {
                self.apply(staged);
                Ok(())
            }
            Err(Failure::NotWritten(error)) => Err(error),
            Err(Failure::Unknown(error)) => {
                self.in_doubt = Some(staged);
                Err(error)
            }
        }
    }

    /// Opens the file anew and looks whether the changes are in it. True when they were and are
    /// visible now.
    fn resolve(&mut self, doubtful: Staged) -> Result<bool, Error> {
        match self.file.reopen() {
            Ok(serial) if serial == self.file.serial() => Ok(false),
            Ok(_) => {
                self.file.accept();
                self.apply(doubtful);
                Ok(true)
            }
            Err(error) => {
                self.in_doubt = Some(doubtful);
                Err(error)
            }
        }
    }

    fn apply(&self, staged: Staged) {
        let mut model = self.shared.write();
        self.shared.apply(&mut model, staged, Instant::now());
    }
}

/// How long after a failed write the end of a lease is tried again: the disk may be full for long.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);
