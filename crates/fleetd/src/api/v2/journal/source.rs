//! One machine's journal, this one's or another's, again and again while somebody follows.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_api::client::{JournalStream, JournalWanted};
use fleet_api::v2::{JournalCursor, JournalEntry};
use fleet_core::name::UnitName;
use fleet_core::records::MachineId;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Lines;
use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::read::Reading;
use crate::peer::{self, Peer};
use crate::units::JournalQuery;

/// A journalctl that has printed nothing for so long has printed all that there is.
const LULL_AFTER: Duration = Duration::from_millis(100);

/// Units that come to a machine come together.
const SETTLE: Duration = Duration::from_millis(100);

/// A machine that does not answer is asked again after this, then twice as long each time…
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// What comes from a machine.
#[derive(Debug)]
pub(super) enum Piece {
    Entry(Box<JournalEntry>),
    /// All that there was has come.
    Lull,
    /// Nothing comes any more, or for the time being.
    Ended(Option<Trouble>),
}

/// Why nothing comes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Trouble {
    pub(super) why: String,
    pub(super) hint: String,
    /// Nothing came from the machine.
    pub(super) is_silent: bool,
}

impl Trouble {
    fn of(why: String) -> Trouble {
        Trouble {
            why,
            hint: String::new(),
            is_silent: false,
        }
    }
}

impl From<peer::Error> for Trouble {
    fn from(error: peer::Error) -> Trouble {
        Trouble {
            why: error.to_string(),
            hint: error.hint(),
            is_silent: error.is_silent(),
        }
    }
}

/// A machine's journal.
pub(super) struct Source {
    pub(super) machine: MachineId,
    /// Of these units; more may come.
    pub(super) units: watch::Receiver<BTreeSet<UnitName>>,
    pub(super) query: JournalQuery,
    /// For whom it is asked.
    pub(super) behalf: Option<String>,
    /// When he asked: a machine that answers only later is not asked for what was before.
    pub(super) began_us: u64,
    pub(super) out: mpsc::Sender<(MachineId, Piece)>,
}

/// Whoever reads has gone.
struct Gone;

enum Open<'a> {
    Here(Lines),
    There(JournalStream<'a>, &'a Peer),
}

/// What one look brought.
enum Got {
    Entry(Box<JournalEntry>),
    Lull,
    End,
}

impl Source {
    pub(super) async fn run(mut self, state: Api) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut has_spoken = false;
            let ended = match self.read(&state, &mut has_spoken).await {
                Err(Gone) => return,
                Ok(ended) => ended,
            };
            if has_spoken {
                pause = FIRST_PAUSE;
            }
            let is_over = !self.query.follow;
            if self.send(Piece::Ended(ended)).await.is_err() || is_over {
                return;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.out.closed() => return,
            }
            pause = (pause * 2).min(LAST_PAUSE);
            self.query.lines = None;
            self.query.since_us = self.query.since_us.or(Some(self.began_us));
        }
    }

    /// Reads until it ends; why, if it should not have.
    async fn read(&mut self, state: &Api, has_spoken: &mut bool) -> Result<Option<Trouble>, Gone> {
        loop {
            let units: Vec<UnitName> = self.units.borrow_and_update().iter().cloned().collect();
            self.query.units = units;
            let peer = match self.peer(state).await {
                Ok(peer) => peer,
                Err(trouble) => return Ok(Some(trouble)),
            };
            let opened = tokio::select! {
                () = self.out.closed() => return Err(Gone),
                opened = self.open(state, peer.as_ref()) => opened,
            };
            let mut open = match opened {
                Ok(open) => open,
                Err(trouble) => return Ok(Some(trouble)),
            };
            let mut is_quiet = false;
            loop {
                let got = tokio::select! {
                    biased;
                    () = self.out.closed() => return Err(Gone),
                    changed = self.units.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return Err(Gone),
                    },
                    got = next(&mut open, is_quiet) => got,
                };
                *has_spoken |= got.is_ok();
                match got {
                    Ok(Got::Entry(entry)) => {
                        is_quiet = false;
                        self.query.after = Some(entry.cursor.clone());
                        self.query.lines = None;
                        self.send(Piece::Entry(entry)).await?;
                    }
                    Ok(Got::Lull) => {
                        is_quiet = true;
                        self.send(Piece::Lull).await?;
                    }
                    Ok(Got::End) if self.query.follow => {
                        let why = format!("the journal of machine {} ended", self.machine.short());
                        return Ok(Some(Trouble::of(why)));
                    }
                    Ok(Got::End) => return Ok(None),
                    Err(trouble) => return Ok(Some(trouble)),
                }
            }
            sleep(SETTLE).await;
        }
    }

    /// The other machine; None: it is this one.
    async fn peer(&self, state: &Api) -> Result<Option<Peer>, Trouble> {
        let failed = |failure: Failure| Trouble::of(failure.full_message());
        let here = state.here().map_err(failed)?;
        if self.machine == here.machine {
            return Ok(None);
        }
        let mut reading = Reading::new(&*state.store);
        let peer = here
            .peer(&mut reading, &self.machine, self.behalf.as_deref())
            .await;
        Ok(Some(peer.map_err(failed)??))
    }

    async fn open<'a>(&self, state: &Api, peer: Option<&'a Peer>) -> Result<Open<'a>, Trouble> {
        let Some(peer) = peer else {
            let opened = match state.here() {
                Ok(here) => Lines::of(here, &self.query).await,
                Err(failure) => Err(failure.full_message()),
            };
            return opened
                .map(Open::Here)
                .map_err(|why| self.journal_failed(why));
        };
        let query = &self.query;
        let machine = self.machine.to_string();
        let after = query.after.clone().map(|cursor| JournalCursor {
            since_us: query.since_us.unwrap_or(0),
            machines: [(machine.clone(), cursor)].into(),
        });
        let wanted = JournalWanted {
            units: query.units.iter().map(ToString::to_string).collect(),
            machine: Some(machine),
            lines: query.lines,
            since_us: query.since_us,
            after,
            follow: query.follow,
            fields: query.all_fields,
        };
        match peer.client.journal(&wanted).await {
            Ok(lines) => Ok(Open::There(lines, peer)),
            Err(error) => Err(peer.failed(&error).into()),
        }
    }

    fn journal_failed(&self, why: String) -> Trouble {
        Trouble::of(format!("machine {}: {why}", self.machine.short()))
    }

    async fn send(&self, piece: Piece) -> Result<(), Gone> {
        let sent = self.out.send((self.machine.clone(), piece)).await;
        sent.map_err(|_| Gone)
    }
}

/// May be dropped and called again.
async fn next(open: &mut Open<'_>, is_quiet: bool) -> Result<Got, Trouble> {
    match open {
        Open::Here(lines) => {
            let read = match is_quiet {
                true => lines.next().await,
                false => match timeout(LULL_AFTER, lines.next()).await {
                    Ok(read) => read,
                    Err(_) => return Ok(Got::Lull),
                },
            };
            let read = read.map_err(Trouble::of)?;
            Ok(read.map_or(Got::End, |entry| Got::Entry(Box::new(entry))))
        }
        Open::There(lines, peer) => loop {
            let line = lines.next().await;
            let Some(line) = line.map_err(|error| Trouble::from(peer.failed(&error)))? else {
                return Ok(Got::End);
            };
            if let Some(entry) = line.entry {
                return Ok(Got::Entry(Box::new(entry)));
            }
            if line.lull {
                return Ok(Got::Lull);
            }
            if !line.end.is_empty() {
                return Err(Trouble::of(line.end));
            }
        },
    }
}
