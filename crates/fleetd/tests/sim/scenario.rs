//! What is to happen in a simulation: drawn from its seed, or written as text.

use std::time::Duration;

use crate::chance::Rng;

/// Something that befalls the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Crash,
    CrashAtPoint,
    CrashLeader,
    CrashAll,
    Upgrade,
    PowerCut,
    PowerCutAll,
    Cut,
    CutLeader,
    CutAll,
    Loss,
    Slow,
    Compact,
    BreakWatches,
    StoreDown,
    LeaseEnds,
    SystemdAway,
    UnitDies,
    ClockJump,
    WipedStore,
}

impl Fault {
    pub const ALL: [Fault; 20] = [
        Fault::Crash,
        Fault::CrashAtPoint,
        Fault::CrashLeader,
        Fault::CrashAll,
        Fault::Upgrade,
        Fault::PowerCut,
        Fault::PowerCutAll,
        Fault::Cut,
        Fault::CutLeader,
        Fault::CutAll,
        Fault::Loss,
        Fault::Slow,
        Fault::Compact,
        Fault::BreakWatches,
        Fault::StoreDown,
        Fault::LeaseEnds,
        Fault::SystemdAway,
        Fault::UnitDies,
        Fault::ClockJump,
        Fault::WipedStore,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::CrashAtPoint => "crash-at-point",
            Fault::CrashLeader => "crash-leader",
            Fault::CrashAll => "crash-all",
            Fault::Upgrade => "upgrade",
            Fault::PowerCut => "power-cut",
            Fault::PowerCutAll => "power-cut-all",
            Fault::Cut => "cut-one",
            Fault::CutLeader => "cut-leader",
            Fault::CutAll => "cut-all",
            Fault::Loss => "loss",
            Fault::Slow => "slow",
            Fault::Compact => "compact",
            Fault::BreakWatches => "break-watches",
            Fault::StoreDown => "store-down",
            Fault::LeaseEnds => "lease-ends",
            Fault::SystemdAway => "systemd-away",
            Fault::UnitDies => "unit-dies",
            Fault::ClockJump => "clock-jump",
            Fault::WipedStore => "wiped-store",
        }
    }
}

/// One simulation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub machines: usize,
    pub units: usize,
    /// Users ask about this often at most.
    pub busy_ms: usize,
    /// How long faults go on.
    pub time: Duration,
    pub fault_every_ms: usize,
    /// One of these at a time, by chance.
    pub faults: Vec<Fault>,
    /// And these, each at its time and on its machine.
    pub script: Vec<(Duration, Fault, usize)>,
}

impl Scenario {
    /// What a seed stands for.
    pub fn of(seed: u64) -> Scenario {
        // Another stream than the one of the simulation itself.
        let mut rng = Rng::new(seed ^ 0x5ce0_a710);
        let n_faults = 1 + rng.below(6);
        Scenario {
            seed,
            machines: 1 + rng.below(5),
            units: 3 + rng.below(9),
            busy_ms: [2_000, 6_000, 20_000][rng.below(3)],
            time: Duration::from_secs(20 + rng.below(60) as u64),
            fault_every_ms: [1_000, 4_000, 12_000][rng.below(3)],
            faults: (0..n_faults)
                .map(|_| Fault::ALL[rng.below(Fault::ALL.len())])
                .collect(),
            script: Vec::new(),
        }
    }
}
