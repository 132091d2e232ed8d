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
use fleet_core::hash::UnitHash;
use fleet_core::records::{
    AssignmentRecord, Decision, DesiredState, Failures, MachineId, Order, PlacementRecord, Reached,
    StateRecord, UnitRecord,
};
use fleetd::store::etcd::EtcdStore;
use fleetd::store::keys::{self, Key};
use fleetd::store::{Document, MAX_TXN_OPS, Op, Range, Store, Txn};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[path = "../benches/million/etcd.rs"]
mod etcd;

use etcd::{OwnEtcd, resident_mb, store_at, wait_for};

/// The promise is about a million units.
const UNITS: usize = 1_000_000;
/// As many machines as a large cluster has.
const MACHINES: usize = 5000;
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

/// The keys and documents of one unit, about as a real one has them.
fn documents(n: usize, all_keys: bool) -> Vec<(String, Vec<u8>)> {
    let name = format!("web-frontend-{n:07}.service");
    let text: Arc<str> = format!(
        "[Unit]\nDescription=Web frontend {n}\nAfter=network-online.target\n\n[Service]\n\
         ExecStart=/usr/bin/web --instance {n} --listen 0.0.0.0:8080 --config /etc/web/config.toml\n\
         Restart=always\nRestartSec=2\n\n[X-Fleet]\nMachineMetadata=region=eu\n"
    )
    .into();
    let hash = UnitHash::of(text.as_bytes());
    let (generation, seq) = (n as u64 + 1, n as u64 + 2);
    let decision = Decision { generation, seq };
    let machine = MachineId::new(&format!("{:032x}", n % MACHINES));
    let wish = UnitRecord {
        text: Arc::clone(&text),
        hash,
        desired: DesiredState::Launched,
        restarts: 0,
        prefer: None,
        request_id: format!("{n:016x}"),
        earlier_requests: Vec::new(),
        buried: false,
        changed_by: "uid 0".to_owned(),
        changed_ms: 1_700_000_000_000 + generation,
    };
    let mut documents = vec![(keys::unit(&name), wish.encode())];
    if all_keys {
        let placement = PlacementRecord {
            failures: Failures::default(),
            machine: Some(machine.clone()),
            leaving: None,
            decision,
            reason: "fewest units".to_owned(),
            refusals: vec![],
            passed_over: Vec::new(),
            considered: 0,
            assigned: 0,
            since_ms: 1_700_000_000_000 + generation,
        };
        let assignment = AssignmentRecord {
            text,
            hash,
            decision,
            order: Order::Launched,
            restarts: 0,
            reason: "fewest units".to_owned(),
        };
        let state = StateRecord {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            sub: "running".to_owned(),
            hash,
            decision,
            reached: Reached::Launched,
            invocation_id: format!("{:032x}", n * 7 + 1),
            description: format!("Web frontend {n}"),
            why: None,
            leased_ms: None,
            log: vec![],
        };
        documents.push((keys::placement(&name), placement.encode()));
        documents.push((
            keys::assignment(machine.as_str(), &name),
            assignment.encode(),
        ));
        documents.push((keys::state(&name, machine.as_str()), state.encode()));
    }
    documents
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
