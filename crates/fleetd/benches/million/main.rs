//! A million units on five thousand machines, on this computer: `make bench-million`.
//!
//! Real: etcd, durable, with its log on disk; the fleetd that leads, as `Server::build` wires it, in
//! a process of its own; the agents of all machines, fleetd's own code, in another; the API, over
//! its socket. Scripted: systemd, which does at once what it is told. Presence is long, since the
//! keepalives of five thousand machines are not what is measured, and nothing is logged.
//!
//! `FLEET_BENCH_LOG` has the programs log, when something is to be found out.
//! `FLEET_BENCH_UNITS` and `FLEET_BENCH_MACHINES` make it another cluster than the promised one.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a benchmark reads the clock, prints, and ends when something is wrong"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fleet_api::client::{Client, Endpoint};
use fleet_api::v2::{BatchRequest, MAX_BATCH, MachineChange, UnitWish};
use fleetd::config::DEFAULT_LOST_AFTER;
use fleetd::store::Store;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

mod etcd;
mod roles;
mod scripted;
#[path = "../../../fleet-core/benches/large/units.rs"]
mod units;

use etcd::{OwnEtcd, resident_mb, store_at, wait_for};

/// The promise.
const UNITS: usize = 1_000_000;
const MACHINES: usize = 5_000;
/// Clients that submit side by side.
const CLIENTS: usize = 4;
/// Machines that are lost, one after the other.
const LOSSES: usize = 10;
/// How often it is told how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Without any news for so long it has failed.
const SILENCE: Duration = Duration::from_secs(120);

/// The first argument of the programs that this one starts.
const LEADER: &str = "--leader";
const AGENTS: &str = "--agents";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize| arguments[index].parse::<usize>();
    if std::env::var_os("FLEET_BENCH_LOG").is_some() {
        fleetd::logging::init(0);
    }
    match arguments.get(1).map(String::as_str) {
        Some(LEADER) => roles::leader(&arguments[2], Path::new(&arguments[3]), number(4)?),
        Some(AGENTS) => roles::agents(&arguments[2], Path::new(&arguments[3]), number(4)?),
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(measure())
        }
    }
}

async fn measure() -> Result<()> {
    let n_units = from_environment("FLEET_BENCH_UNITS", UNITS)?;
    let n_machines = from_environment("FLEET_BENCH_MACHINES", MACHINES)?;
    println!("{n_units} units on {n_machines} machines, load {}", load()?);
    let directory = Directory::make()?;
    let etcd = OwnEtcd::start()?;
    wait_for(&*store_at(&etcd.url)?).await?;
    let began = Instant::now();
    let leader = start(LEADER, &etcd.url, &directory.0, n_machines)?;
    let mut agents = Agents::start(&etcd.url, &directory.0, n_machines).await?;
    println!("{n_machines} machines have joined: {:.1?}", began.elapsed());
    let client = directory.client()?;
    // All units go to the machines whose words are counted.
    cordon(&client, units::machine(n_machines).as_str()).await?;

    let before = [etcd.pid(), pid_of(&leader)?, agents.pid()?].map(cpu_time);
    let so_far = counts(&etcd.url)?;
    let began = Instant::now();
    let submitting = submit(&directory, n_units);
    let (submitted, reported) = tokio::join!(submitting, agents.wait_for("launched", n_units));
    let (submitted, reported) = (submitted?, reported?);
    println!("submitted: {:.1?}", submitted - began);
    println!("placed, started, reported back: {:.1?}", reported - began);
    let a_unit = |time: Duration| time.as_secs_f64() * 1e6 / n_units as f64;
    let names = ["etcd", "leader", "agents"];
    let pids = [etcd.pid(), pid_of(&leader)?, agents.pid()?];
    for (index, name) in names.into_iter().enumerate() {
        let spent = cpu_time(pids[index])? - before[index].as_ref().copied().unwrap_or_default();
        println!(
            "{name}: {:.0} µs of CPU a unit, {} MB resident",
            a_unit(spent),
            resident_mb(pids[index])?
        );
    }
    let (txns, puts) = counts(&etcd.url)?;
    println!(
        "etcd: {:.2} transactions and {:.2} puts a unit",
        (txns - so_far.0) as f64 / n_units as f64,
        (puts - so_far.1) as f64 / n_units as f64,
    );
    let (database, whole) = etcd.disk_bytes()?;
    println!(
        "etcd on disk: database {} MB, all {} MB",
        database >> 20,
        whole >> 20
    );
    count_keys(&*store_at(&etcd.url)?, n_units).await?;
    lose_machines(&mut agents, n_units).await
}

/// A machine after the other is lost; its units are placed elsewhere, and run there.
async fn lose_machines(agents: &mut Agents, n_units: usize) -> Result<()> {
    let mut launched = n_units;
    let mut took = Vec::new();
    for number in 0..LOSSES {
        let began = Instant::now();
        let n_lost = agents.lose(number).await?;
        launched += n_lost;
        let ended = agents.wait_for("launched", launched).await?;
        took.push((ended - began).saturating_sub(DEFAULT_LOST_AFTER));
        if number == 0 {
            println!("a machine has {n_lost} units");
        }
    }
    took.sort_unstable();
    println!(
        "a machine lost, its units reported elsewhere, after lost: min {:.0?}, median {:.0?}, max {:.0?} ({LOSSES})",
        took[0],
        took[LOSSES / 2],
        took[LOSSES - 1]
    );
    Ok(())
}

/// Submits all units; returns when the last was acknowledged.
async fn submit(directory: &Directory, n_units: usize) -> Result<Instant> {
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        let client = directory.client()?;
        clients.spawn(async move {
            let batches = n_units.div_ceil(MAX_BATCH);
            for batch in (first..batches).step_by(CLIENTS) {
                let numbers = batch * MAX_BATCH..((batch + 1) * MAX_BATCH).min(n_units);
                submit_batch(&client, batch, numbers).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(Instant::now())
}

async fn submit_batch(
    client: &Client,
    batch: usize,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    let wishes = numbers.map(|number| {
        let (name, record) = units::unit(number);
        UnitWish {
            name: name.to_string(),
            text: Some(record.text.to_string()),
            desired_state: Some("launched".to_owned()),
            ..UnitWish::default()
        }
    });
    let request = BatchRequest {
        request_id: format!("million-{batch}"),
        units: wishes.collect(),
        ..BatchRequest::default()
    };
    let answer = client.batch(&request).await?;
    match answer.units.iter().find(|unit| unit.outcome != "created") {
        Some(unit) => bail!("{}: {} {:?}", unit.name, unit.outcome, unit.error),
        None => Ok(()),
    }
}

async fn cordon(client: &Client, machine: &str) -> Result<()> {
    let change = MachineChange {
        cordoned: Some(true),
        ..MachineChange::default()
    };
    client.change_machine(machine, &change).await?;
    Ok(())
}

/// How many transactions and puts etcd has carried out.
fn counts(url: &str) -> Result<(u64, u64)> {
    let mut connection = TcpStream::connect(url.trim_start_matches("http://"))?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim().parse::<f64>().ok());
        number.with_context(|| format!("{name} is not among etcd's metrics"))
    };
    Ok((
        count("etcd_debugging_mvcc_txn_total ")? as u64,
        count("etcd_debugging_mvcc_put_total ")? as u64,
    ))
}

/// Each placement and each state must be in the store.
async fn count_keys(store: &dyn Store, n_units: usize) -> Result<()> {
    for prefix in ["units/", "placements/", "assignments/", "states/"] {
        let range = fleetd::store::Range {
            prefix: prefix.to_owned(),
            ..fleetd::store::Range::default()
        };
        let began = Instant::now();
        let count = store.read(range).await?.entries.len();
        println!("{prefix}: {count} keys, read in {:.1?}", began.elapsed());
        if count != n_units {
            bail!("{n_units} were to be there");
        }
    }
    Ok(())
}

/// The process of the agents, and what it says.
struct Agents {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agents {
    async fn start(url: &str, directory: &Path, count: usize) -> Result<Agents> {
        let mut child = start(AGENTS, url, directory, count)?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let lines = BufReader::new(stdout).lines();
        let mut agents = Agents {
            child,
            stdin,
            lines,
        };
        agents.wait_for("present", count).await?;
        Ok(agents)
    }

    fn pid(&self) -> Result<u32> {
        pid_of(&self.child)
    }

    /// Waits until they have told so many; when that was.
    async fn wait_for(&mut self, what: &str, count: usize) -> Result<Instant> {
        let mut told = Instant::now();
        loop {
            let line = tokio::time::timeout(SILENCE, self.lines.next_line()).await;
            let line = line.with_context(|| format!("nothing was told for {SILENCE:?}"))??;
            let line = line.context("the agents have ended")?;
            let (word, number) = line.split_once(' ').context("no number")?;
            let number: usize = number.parse()?;
            if word == what && number >= count {
                return Ok(Instant::now());
            }
            if told.elapsed() > TELL_EVERY {
                println!("  {line} of {count}");
                told = Instant::now();
            }
        }
    }

    /// Takes a machine away; how many units it had.
    async fn lose(&mut self, number: usize) -> Result<usize> {
        self.stdin
            .write_all(format!("{number}\n").as_bytes())
            .await?;
        loop {
            let line = self.lines.next_line().await?;
            let line = line.context("the agents have ended")?;
            if let Some(("lost", number)) = line.split_once(' ') {
                return Ok(number.parse()?);
            }
        }
    }
}

/// This program in another role. It ends with its value.
fn start(role: &str, url: &str, directory: &Path, number: usize) -> Result<Child> {
    let child = Command::new(std::env::current_exe()?)
        .args([role, url])
        .arg(directory)
        .arg(number.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

fn pid_of(child: &Child) -> Result<u32> {
    child.id().context("it has ended")
}

/// What a process has spent, of all processors.
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    // Linux counts in hundredths for whoever asks.
    Ok(Duration::from_millis(ticks * 10))
}

fn load() -> Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

fn from_environment(name: &str, usual: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(usual),
    }
}

/// Where the socket and the machines' files are.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Directory> {
        // In memory, as /run is: agents write there in passing.
        let path = Path::new("/dev/shm").join(format!("fleet-million-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Directory(path))
    }

    fn client(&self) -> Result<Client> {
        let socket = self.0.join("fleet.sock");
        Ok(Client::new(Endpoint::Unix(socket)).answer_timeout(SILENCE))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left there is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
