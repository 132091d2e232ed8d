//! What `fleetctl list-units` takes in clusters of 1,000 and of 100,000 units: a part of `make bench`.
//!
//! Real: etcd, durable; fleetd's API over its socket, in a process of its own; fleetctl, forked for each
//! listing. Written straight into etcd: units that run, their placements and states; there is neither an
//! engine nor an agent. The first listing of each size is of a fleetd that has just begun.
//! `FLEET_BENCH_UNITS` (100000) makes the large cluster another one.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints"
)]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fleet_core::records::MachineRecord;
use fleetd::api::{ApiState, router};
use fleetd::listen::{self, Door, Listener};
use fleetd::store::{Document, MAX_TXN_OPS, Op, Store, Txn, keys};
use tokio::task::JoinSet;

#[path = "million/documents.rs"]
mod documents;
#[path = "million/etcd.rs"]
#[expect(dead_code, reason = "what it takes on disk is not asked here")]
mod etcd;

use documents::{MACHINES, documents, machine_of};
use etcd::{OwnEtcd, resident_mb, store_at, wait_for};

/// The promises.
const FEW: usize = 1_000;
const MANY: usize = 100_000;
/// Listings of each size after the first.
const ROUNDS: usize = 20;
/// More transactions in flight make etcd no faster.
const IN_FLIGHT: usize = 16;
/// How long fleetd may take until it serves.
const START: Duration = Duration::from_secs(20);
/// The first argument of this program as fleetd's API.
const API: &str = "--api";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match arguments.get(1).map(String::as_str) {
        Some(API) => runtime.block_on(serve(&arguments[2], Path::new(&arguments[3]))),
        _ => measure(&runtime),
    }
}

/// fleetd's API alone.
async fn serve(url: &str, socket: &Path) -> Result<()> {
    let store = store_at(url)?;
    let listener = Listener::Unix(tokio::net::UnixListener::bind(socket)?);
    let state = ApiState::new(store, 100, "bench");
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    listen::serve(vec![listener], router(state), Door::default(), shutdown).await;
    Ok(())
}

fn measure(runtime: &tokio::runtime::Runtime) -> Result<()> {
    let many = match std::env::var("FLEET_BENCH_UNITS") {
        Ok(text) => text.parse()?,
        Err(_) => MANY,
    };
    let etcd = OwnEtcd::start()?;
    let store = store_at(&etcd.url)?;
    runtime.block_on(wait_for(&store))?;
    runtime.block_on(write_machines(&*store))?;
    println!("load {}", load()?);
    println!(
        "{:>8} units        ms: first row · whole   CPU ms: fleetctl · fleetd · etcd   fleetd MB",
        "list of"
    );
    let mut written = 0;
    for (n_units, goal) in [(FEW, 10), (many, 300)] {
        runtime.block_on(write_units(Arc::clone(&store) as _, written..n_units))?;
        written = n_units;
        list(&etcd, n_units, goal)?;
    }
    Ok(())
}

/// A fleetd that has just begun, and its listings.
fn list(etcd: &OwnEtcd, n_units: usize, goal_ms: u32) -> Result<()> {
    let fleetd = Api::start(&etcd.url)?;
    let pids = [fleetd.child.id(), etcd.pid()];
    let mut rows = Vec::new();
    for _ in 0..=ROUNDS {
        let before = [own_children()?, cpu_time(pids[0])?, cpu_time(pids[1])?];
        let (first, whole) = list_units(&fleetd.socket, n_units)?;
        let after = [own_children()?, cpu_time(pids[0])?, cpu_time(pids[1])?];
        let spent = [0, 1, 2].map(|who| after[who] - before[who]);
        rows.push((first, whole, spent));
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut again = rows.split_off(1);
    let n = u32::try_from(again.len())?;
    // Of so short a time the kernel counts hundredths of a second: only the mean says something.
    let mean = |who: usize| ms(again.iter().map(|row| row.2[who]).sum::<Duration>() / n);
    let means = [0, 1, 2].map(mean);
    again.sort_by_key(|row| row.1);
    let middle = &again[again.len() / 2];
    let of = |what: &str, first, whole, cpu: [f64; 3]| {
        let memory = resident_mb(pids[0])?;
        println!(
            "{n_units:>8} {what:<12} {:>12.1} · {:<8.1} {:>12.1} · {:.1} · {:.1} {memory:>12}",
            ms(first),
            ms(whole),
            cpu[0],
            cpu[1],
            cpu[2]
        );
        anyhow::Ok(())
    };
    let first = &rows[0];
    of("first", first.0, first.1, first.2.map(ms))?;
    of("again (p50)", middle.0, middle.1, means)?;
    let met = if ms(middle.1) <= f64::from(goal_ms) {
        "met"
    } else {
        "MISSED"
    };
    println!("{:>8} goal: {goal_ms} ms, {met}", "");
    Ok(())
}

/// Runs fleetctl: until its first bytes, until its end.
fn list_units(socket: &Path, n_units: usize) -> Result<(Duration, Duration)> {
    let began = Instant::now();
    let mut child = Command::new(fleetctl())
        .arg(format!("--endpoint=unix://{}", socket.display()))
        .arg("list-units")
        .stdout(Stdio::piped())
        .spawn()
        .context("fleetctl cannot be started: cargo build --release --bins")?;
    let mut out = child.stdout.take().context("no output")?;
    let mut buffer = vec![0; 1 << 20];
    let mut n_lines = 0;
    let mut first = None;
    loop {
        let n = out.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        first.get_or_insert_with(|| began.elapsed());
        n_lines += buffer[..n].iter().filter(|byte| **byte == b'\n').count();
    }
    let status = child.wait()?;
    let whole = began.elapsed();
    if !status.success() || n_lines != n_units + 1 {
        bail!("{n_lines} lines instead of {}, {status}", n_units + 1);
    }
    Ok((first.unwrap_or(whole), whole))
}

/// Where `make bench` has built it, or a release build.
fn fleetctl() -> PathBuf {
    let built = std::env::var_os("FLEET_BIN_DIR").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release");
    built.unwrap_or(usual).join("fleetctl")
}

/// fleetd's API in a process of its own; it ends with its value.
struct Api {
    child: Child,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Api {
    fn start(url: &str) -> Result<Api> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("fleet.sock");
        let child = Command::new(std::env::current_exe()?)
            .args([API, url])
            .arg(&socket)
            .spawn()?;
        let api = Api {
            child,
            socket,
            _directory: directory,
        };
        let deadline = Instant::now() + START;
        while std::os::unix::net::UnixStream::connect(&api.socket).is_err() {
            if Instant::now() > deadline {
                bail!("fleetd does not serve within {START:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(api)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // Nothing can be done about a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn write_machines(store: &dyn Store) -> Result<()> {
    let ops: Vec<Op> = (0..MACHINES)
        .map(|n| {
            let id = machine_of(n);
            let value = MachineRecord::default().encode();
            put(keys::machine(id.as_str()), value)
        })
        .collect();
    for ops in ops.chunks(MAX_TXN_OPS) {
        let ops = ops.to_vec();
        store
            .commit(Txn {
                ops,
                ..Txn::default()
            })
            .await?;
    }
    Ok(())
}

async fn write_units(store: Arc<dyn Store>, numbers: std::ops::Range<usize>) -> Result<()> {
    let mut running = JoinSet::new();
    let mut ops = Vec::with_capacity(MAX_TXN_OPS);
    let last = numbers.end - 1;
    for n in numbers {
        ops.extend(
            documents(n, true)
                .into_iter()
                .map(|(key, value)| put(key, value)),
        );
        if ops.len() + 4 > MAX_TXN_OPS || n == last {
            let txn = Txn {
                ops: std::mem::take(&mut ops),
                ..Txn::default()
            };
            let store = Arc::clone(&store);
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
    Ok(())
}

fn put(key: String, value: Vec<u8>) -> Op {
    Op::Put {
        key,
        value,
        lease: None,
    }
}

/// What a process has spent, of all processors.
fn cpu_time(pid: u32) -> Result<Duration> {
    ticks(pid.to_string(), 11)
}

/// What the children of this process have spent that have ended.
fn own_children() -> Result<Duration> {
    ticks("self".to_owned(), 13)
}

fn ticks(process: String, field: usize) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let ticks = rest.split_whitespace().skip(field).take(2);
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    // Linux counts in hundredths for whoever asks.
    Ok(Duration::from_millis(ticks * 10))
}

fn load() -> Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}
