//! Lines of this machine's journal, from a journalctl that ends with whoever reads them.

use std::process::ExitStatus;

use fleet_api::v2::JournalEntry;
use fleet_core::records::MachineId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::here::Here;
use crate::units::JournalQuery;

/// A longer line is passed over: whoever reads the answer takes no longer ones either.
const MAX_LINE_BYTES: usize = 512 << 10;

/// What is told of why journalctl failed.
const MAX_WHY_BYTES: u64 = 1 << 10;

/// A journalctl, and what it prints.
pub(crate) struct Lines {
    machine: MachineId,
    keep: bool,
    child: Child,
    out: BufReader<ChildStdout>,
    err: Option<ChildStderr>,
    buffer: Vec<u8>,
    is_too_long: bool,
    _room: OwnedSemaphorePermit,
}

impl Lines {
    /// Starts journalctl. Waits for its turn while too many run.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(crate) async fn of(here: &Here, query: &JournalQuery) -> Result<Lines, String> {
        let room = here.journalctls.clone().acquire_owned().await;
        let room = room.map_err(|error| error.to_string())?;
        let mut command = here.manager.journal(query, &here.machine);
        let spawned = command.spawn();
        let mut child =
            spawned.map_err(|error| format!("journalctl cannot be started: {error}"))?;
        let out = child.stdout.take().ok_or("journalctl has no output")?;
        Ok(Lines {
            machine: here.machine.clone(),
            keep: query.all_fields,
            err: child.stderr.take(),
            child,
            out: BufReader::new(out),
            buffer: Vec::new(),
            is_too_long: false,
            _room: room,
        })
    }

    /// The next line; None at the end. May be dropped and called again.
    ///
    /// # Errors
    /// Why journalctl failed.
    pub(crate) async fn next(&mut self) -> Result<Option<JournalEntry>, String> {
        loop {
            let available = self.out.fill_buf().await;
            let available = available.map_err(|error| format!("journalctl: {error}"))?;
            if available.is_empty() {
                return self.ended().await.map(|()| None);
            }
            let at = available.iter().position(|byte| *byte == b'\n');
            let n_taken = at.map_or(available.len(), |at| at + 1);
            if self.buffer.len() + n_taken > MAX_LINE_BYTES {
                self.is_too_long = true;
                self.buffer.clear();
            }
            if !self.is_too_long {
                self.buffer.extend_from_slice(&available[..n_taken]);
            }
            self.out.consume(n_taken);
            if at.is_none() {
                continue;
            }
            let line = std::mem::take(&mut self.buffer);
            if std::mem::take(&mut self.is_too_long) {
                tracing::debug!("a line of the journal is too long to be sent");
                continue;
            }
            match JournalEntry::of_journald(&line, self.machine.as_str(), self.keep) {
                Ok(entry) => return Ok(Some(entry)),
                Err(error) => tracing::debug!(error, "a line of journalctl's is no entry"),
            }
        }
    }

    async fn ended(&mut self) -> Result<(), String> {
        let mut why = Vec::new();
        if let Some(err) = self.err.take() {
            // It has ended: what it had to say is there.
            let _ = err.take(MAX_WHY_BYTES).read_to_end(&mut why).await;
        }
        let status = self.child.wait().await.map_err(|error| error.to_string())?;
        match ExitStatus::success(&status) {
            true => Ok(()),
            false => {
                let why = String::from_utf8_lossy(&why);
                let why = why.lines().last().unwrap_or_default().trim();
                Err(format!("journalctl failed ({status}): {why}"))
            }
        }
    }
}
