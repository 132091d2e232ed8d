//! What is to happen in a simulation: drawn from its seed, or written as text.

use std::time::Duration;

use fleetd::config;

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
    Silence,
    Loss,
    Slow,
    Compact,
    BreakWatches,
    StoreDown,
    LeaseEnds,
    SystemdAway,
    UnitDies,
    BadMachine,
    ClockJump,
    WipedStore,
    StandStill,
    StopInOrder,
    ShutDown,
    Damage,
    ForeignStore,
    OldBackup,
}

impl Fault {
    /// What a seed draws from. An old backup is for scenarios of its own.
    pub const ALL: [Fault; 27] = [
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
        Fault::Silence,
        Fault::Loss,
        Fault::Slow,
        Fault::Compact,
        Fault::BreakWatches,
        Fault::StoreDown,
        Fault::LeaseEnds,
        Fault::SystemdAway,
        Fault::UnitDies,
        Fault::BadMachine,
        Fault::ClockJump,
        Fault::WipedStore,
        Fault::StandStill,
        Fault::StopInOrder,
        Fault::ShutDown,
        Fault::Damage,
        Fault::ForeignStore,
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
            Fault::Silence => "silence",
            Fault::Loss => "loss",
            Fault::Slow => "slow",
            Fault::Compact => "compact",
            Fault::BreakWatches => "break-watches",
            Fault::StoreDown => "store-down",
            Fault::LeaseEnds => "lease-ends",
            Fault::SystemdAway => "systemd-away",
            Fault::UnitDies => "unit-dies",
            Fault::BadMachine => "bad-machine",
            Fault::ClockJump => "clock-jump",
            Fault::WipedStore => "wiped-store",
            Fault::StandStill => "stand-still",
            Fault::StopInOrder => "stop-in-order",
            Fault::ShutDown => "shut-down",
            Fault::Damage => "damage",
            Fault::ForeignStore => "foreign-store",
            Fault::OldBackup => "old-backup",
        }
    }
}

/// How long the cluster waits before it gives a machine up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Graces {
    pub lost_after: Duration,
    pub unsupervised: Duration,
    pub freeze_for: Duration,
}

impl Graces {
    pub const DEFAULT: Graces = Graces {
        lost_after: config::DEFAULT_LOST_AFTER,
        unsupervised: config::DEFAULT_UNSUPERVISED_GRACE,
        freeze_for: config::DEFAULT_FREEZE_FOR,
    };

    /// So short that they end while others are away.
    const SHORT: Graces = Graces {
        unsupervised: Duration::from_secs(10),
        freeze_for: Duration::from_secs(8),
        ..Graces::DEFAULT
    };
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
    pub graces: Graces,
    /// Somebody drains machines, labels them, and ends freezes.
    pub operated: bool,
    /// And these, each at its time and on its machine.
    pub script: Vec<(Duration, Fault, usize)>,
}

impl Scenario {
    /// Machines are cut off for long, and fleetd is killed on some of them meanwhile.
    pub fn of_silence(seed: u64) -> Scenario {
        Scenario {
            machines: 3,
            units: 9,
            busy_ms: 20_000,
            time: Duration::from_secs(120),
            fault_every_ms: 12_000,
            faults: vec![Fault::Cut, Fault::Silence],
            operated: false,
            ..Scenario::of(seed)
        }
    }

    /// Users change their minds before a unit is down.
    pub fn of_haste(seed: u64) -> Scenario {
        Scenario {
            machines: 3,
            units: 9,
            busy_ms: 2_000,
            ..Scenario::of(seed)
        }
    }

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
            graces: [Graces::DEFAULT, Graces::SHORT][rng.below(2)],
            operated: rng.below(2) == 0,
            script: Vec::new(),
        }
    }
}
