//! Loads very many units through the codec into etcd and reads them back: keys a second, size of
//! the database, memory. The numbers in ARCHITECTURE.md come from here.
//!
//! `cargo run --release -p fleetd --example load_units -- [--units N] [--all-keys] [--endpoint URL]`
//!
//! Without an endpoint it starts an etcd of its own on a free port, in a temporary directory.
//! `--all-keys` writes placement, assignment and state beside each wish.

#![allow(
    clippy::print_stdout,
    reason = "a program for people: its output is what it is for"
)]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fleet_core::records::{AssignmentRecord, PlacementRecord, StateRecord, UnitRecord};
use fleetd::store::etcd::EtcdStore;
use fleetd::store::keys::{self, Key};
use fleetd::store::{Document, MAX_TXN_OPS, Op, Range, Store, Txn};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[path = "../benches/million/documents.rs"]
mod documents;
#[path = "../benches/million/etcd.rs"]
mod etcd;

use documents::documents;
use etcd::{OwnEtcd, resident_mb, store_at, wait_for};

/// The promise is about a million units.
const UNITS: usize = 1_000_000;
/// More transactions in flight make etcd no faster.
const IN_FLIGHT: usize = 16;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse()?;
    let own = match &options.endpoint {
        Some(_) => None,
        None => Some(OwnEtcd::start()?),
    };
    let endpoint = match (&options.endpoint, &own) {
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(own)) => own.url.clone(),
        (None, None) => bail!("no etcd"),
    };
    let store = store_at(&endpoint)?;
    wait_for(&store).await?;
    println!(
        "{} units, {}, etcd {endpoint}",
        options.units,
        if options.all_keys {
            "4 keys each"
        } else {
            "wishes alone"
        },
    );

    let started = Instant::now();
    let (count, bytes) = load(&store, &options).await?;
    report("written", count, bytes, started.elapsed());
    size(&endpoint, own.as_ref())?;

    // The keys of what is read must be all there, and each document must be whole.
    let started = Instant::now();
    let snapshot = store.read(Range::default()).await?;
    let bytes = snapshot.entries.iter().map(|entry| entry.value.len()).sum();
    report("read", snapshot.entries.len(), bytes, started.elapsed());
    let started = Instant::now();
    let mut decoded = 0;
    for entry in &snapshot.entries {
        let (key, value) = (entry.key.as_str(), entry.value.as_slice());
        match keys::parse(key) {
            Key::Unit(_) => drop(UnitRecord::decode(key, value)?),
            Key::Placement(_) => drop(PlacementRecord::decode(key, value)?),
            Key::Assignment(..) => drop(AssignmentRecord::decode(key, value)?),
            Key::State(..) => drop(StateRecord::decode(key, value)?),
            _ => bail!("what is {key}?"),
        }
        decoded += 1;
    }
    report("decoded", decoded, bytes, started.elapsed());
    if decoded != count {
        bail!("{count} keys were written and {decoded} read");
    }
    println!(
        "memory of this process with the snapshot: {} MB",
        resident_mb(std::process::id())?
    );
    Ok(())
}

struct Options {
    units: usize,
    all_keys: bool,
    endpoint: Option<String>,
}

impl Options {
    fn parse() -> Result<Options> {
        let mut options = Options {
            units: UNITS,
            all_keys: false,
            endpoint: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--all-keys" => options.all_keys = true,
                "--units" => {
                    options.units = words.next().context("--units needs a number")?.parse()?;
                }
                "--endpoint" => {
                    options.endpoint = Some(words.next().context("--endpoint needs a URL")?);
                }
                other => bail!("unknown option {other}: --units N, --all-keys, --endpoint URL"),
            }
        }
        Ok(options)
    }
}

async fn load(store: &Arc<EtcdStore>, options: &Options) -> Result<(usize, usize)> {
    let mut running = JoinSet::new();
    let (mut ops, mut count, mut bytes) = (Vec::with_capacity(MAX_TXN_OPS), 0, 0);
    for n in 0..options.units {
        for (key, value) in documents(n, options.all_keys) {
            (count, bytes) = (count + 1, bytes + value.len());
            ops.push(Op::Put {
                key,
                value,
                lease: None,
            });
        }
        let last = n + 1 == options.units;
        if ops.len() + 4 > MAX_TXN_OPS || last {
            let txn = Txn {
                compares: vec![],
                ops: std::mem::take(&mut ops),
            };
            let store = Arc::clone(store);
            running.spawn(async move { store.commit(txn).await });
            if running.len() >= IN_FLIGHT
                && let Some(done) = running.join_next().await
            {
                done??;
            }
        }
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok((count, bytes))
}

fn report(what: &str, keys: usize, bytes: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    println!(
        "{what}: {keys} keys, {} MB of documents in {seconds:.1} s: {:.0} keys/s",
        bytes >> 20,
        keys as f64 / seconds,
    );
}

/// What etcd's database takes on disk and in memory.
fn size(endpoint: &str, own: Option<&OwnEtcd>) -> Result<()> {
    let Some(own) = own else {
        println!("size and memory: see `etcdctl --endpoints {endpoint} endpoint status`");
        return Ok(());
    };
    let (database, directory) = own.disk_bytes()?;
    println!(
        "etcd: database {} MB, directory {} MB, memory {} MB",
        database >> 20,
        directory >> 20,
        resident_mb(own.pid())?,
    );
    Ok(())
}
