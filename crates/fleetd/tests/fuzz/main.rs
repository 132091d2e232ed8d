//! The fuzz targets without a fuzzer: on stable, each target gets its corpus and mutations of it
//! that are the same every time, in a process of its own with a bound on memory and, for each
//! input, on time. `make fuzz` looks for new inputs, guided by coverage; what it finds is put
//! into `fuzz/corpus/` and is replayed here for ever.
//!
//!     cargo test -p fleetd --test fuzz                       all targets
//!     cargo test -p fleetd --test fuzz glob                  those whose name has `glob` in it
//!     FLEET_FUZZ_INPUT=file cargo test … --test fuzz glob    one input
//!     FLEET_FUZZ_ROUNDS=100000 cargo test … --test fuzz      more mutations
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells why"
)]

#[path = "../../../../fuzz/src/lib.rs"]
#[allow(
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "it is a library in fuzz/, and a module here"
)]
mod targets;

#[path = "../common/chance.rs"]
mod chance;
mod mutate;

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use mutate::Mutator;
use targets::TARGETS;

/// What a target may use: a hundred times what the largest of them needs.
const MAX_ADDRESS_SPACE: u64 = 2 << 30;
/// An input takes about a millisecond; one that takes so long on the slowest machine hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// Mutations of a target's corpus, unless `FLEET_FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 400;
/// The same mutations in each run: one commit gets one verdict.
const SEED: u64 = 0x666c_6565_7421;

/// Says which target a child process runs.
const CHILD: &str = "FLEET_FUZZ_CHILD";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CHILD) {
        return run_target(&name);
    }
    every_target_is_a_fuzz_target_with_a_corpus();
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let mut failed = Vec::new();
    for (name, _) in TARGETS.iter().filter(|(name, _)| wanted(name)) {
        let status = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, name)
            .status()
            .unwrap();
        if status.success() {
            println!("fuzz {name} ... ok");
        } else {
            println!("fuzz {name} ... FAILED: {status}");
            println!(
                "    its last input is {0}: put it into fuzz/corpus/{name}, and see it fail by\n    \
                 FLEET_FUZZ_INPUT={0} cargo test -p fleetd --test fuzz {name}",
                last_input(name).display()
            );
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn every_target_is_a_fuzz_target_with_a_corpus() {
    let manifest = fs::read_to_string(fuzz_directory().join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "fuzz/Cargo.toml lacks {name}"
        );
        let body = fuzz_directory().join(format!("fuzz_targets/{name}.rs"));
        let body = fs::read_to_string(body).unwrap();
        assert!(body.contains(&format!("run(\"{name}\"")), "{body}");
        assert!(!corpus(name).is_empty(), "fuzz/corpus/{name} is empty");
    }
    let n_bins = manifest.matches("[[bin]]").count();
    assert_eq!(n_bins, TARGETS.len(), "fuzz/Cargo.toml knows others");
}

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// In order of the names, so that the mutations are the same everywhere.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = fuzz_directory().join("corpus").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn last_input(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"))
}

fn run_target(name: &str) -> ExitCode {
    let limit = Some(MAX_ADDRESS_SPACE);
    setrlimit(
        Resource::As,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
    let runner = Runner {
        name,
        alive: hang_detector(name.to_owned()),
    };
    if let Some(path) = std::env::var_os("FLEET_FUZZ_INPUT") {
        return runner.run(&fs::read(path).unwrap());
    }
    let rounds = std::env::var("FLEET_FUZZ_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let corpus = corpus(name);
    let mut mutator = Mutator::new(SEED);
    let mutations = (0..rounds).map(|_| mutator.mutate(&corpus));
    for input in corpus.iter().cloned().chain(mutations) {
        if runner.run(&input) != ExitCode::SUCCESS {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

struct Runner<'a> {
    name: &'a str,
    alive: Sender<()>,
}

impl Runner<'_> {
    fn run(&self, input: &[u8]) -> ExitCode {
        // Before it is run: who dies of it cannot write any more.
        fs::write(last_input(self.name), input).unwrap();
        self.alive.send(()).unwrap();
        match catch_unwind(AssertUnwindSafe(|| targets::run(self.name, input))) {
            Ok(()) => ExitCode::SUCCESS,
            // The hook has told the panic.
            Err(_) => ExitCode::FAILURE,
        }
    }
}

/// Ends the process when it hears nothing for too long.
fn hang_detector(name: String) -> Sender<()> {
    let (alive, heard) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match heard.recv_timeout(HANGS_AFTER) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let _ = writeln!(std::io::stderr(), "{name} hangs");
                    std::process::abort();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    alive
}
