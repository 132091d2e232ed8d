//! What is to happen in a simulation: drawn from its seed, or written as text.

use std::ops::RangeInclusive;
use std::time::Duration;

use fleetd::config;

use crate::stream::Chance;

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
    /// It takes the place of the store while a machine is cut off, which comes back when it has been
    /// written on.
    OldBackupUnseen,
    /// A machine is away for a moment, and meanwhile the leader stands still.
    Blink,
    /// Most machines are cut off at once; somebody says that they are gone, or writes garbage where
    /// that is said.
    Outage,
}

impl Fault {
    /// What a seed draws from. The others are for scenarios of their own ([`Kind`]).
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
            Fault::OldBackupUnseen => "old-backup-unseen",
            Fault::Blink => "blink",
            Fault::Outage => "outage",
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

/// What befalls a cluster in general.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Whatever a seed draws.
    Any,
    /// Machines are cut off for long, and fleetd is killed on some of them meanwhile.
    Silence,
    /// An old backup takes the place of the store.
    OldBackup,
    /// It does so while machines are cut off, and is written on before they see it.
    StaleCopy,
    /// The leader stands still while machines come and go.
    Blink,
    /// Most machines are out of reach at once.
    Freeze,
    /// Units die again and again, and systemd takes its time to restart them.
    Restarts,
    /// Exclusive units, which stop slowly, are to leave machines that are then open to them again.
    TurnBack,
    /// Users change their minds before a unit is down, while fleetd loses sight of what it does.
    Haste,
    /// Twenty machines.
    Crowd,
}

impl Kind {
    pub const ALL: [Kind; 10] = [
        Kind::Any,
        Kind::Silence,
        Kind::OldBackup,
        Kind::StaleCopy,
        Kind::Blink,
        Kind::Freeze,
        Kind::Restarts,
        Kind::TurnBack,
        Kind::Haste,
        Kind::Crowd,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Any => "any",
            Kind::Silence => "silence",
            Kind::OldBackup => "old-backup",
            Kind::StaleCopy => "stale-copy",
            Kind::Blink => "blink",
            Kind::Freeze => "freeze",
            Kind::Restarts => "restarts",
            Kind::TurnBack => "turn-back",
            Kind::Haste => "haste",
            Kind::Crowd => "crowd",
        }
    }

    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The seeds that everybody runs, and that are to find the bugs planted for this kind.
    pub fn fixed(self) -> RangeInclusive<u64> {
        match self {
            Kind::Any => 1..=250,
            Kind::Haste | Kind::Silence => 1..=60,
            Kind::StaleCopy => 1..=40,
            Kind::TurnBack | Kind::Freeze => 1..=30,
            Kind::OldBackup | Kind::Blink | Kind::Restarts => 1..=20,
            Kind::Crowd => 20..=20,
        }
    }

    /// What the seed stands for in this kind.
    pub fn scenario(self, seed: u64) -> Scenario {
        let any = Scenario::of(seed);
        match self {
            Kind::Any => any,
            Kind::Silence => Scenario {
                kind: self,
                machines: 3,
                units: 9,
                busy_ms: 20_000,
                time: Duration::from_secs(120),
                fault_every_ms: 12_000,
                faults: vec![Fault::Cut, Fault::Silence],
                operated: false,
                ..any
            },
            Kind::OldBackup => Scenario {
                kind: self,
                faults: vec![Fault::OldBackup, Fault::Cut],
                operated: false,
                ..any
            },
            Kind::StaleCopy => Scenario {
                kind: self,
                machines: 3,
                busy_ms: 2_000,
                time: Duration::from_secs(90),
                fault_every_ms: 4_000,
                faults: vec![Fault::OldBackupUnseen, Fault::Cut, Fault::Crash],
                operated: false,
                ..any
            },
            Kind::Blink => Scenario {
                kind: self,
                machines: 4,
                units: 9,
                time: Duration::from_secs(60),
                fault_every_ms: 6_000,
                faults: vec![Fault::Blink, Fault::Cut],
                operated: false,
                ..any
            },
            Kind::Freeze => Scenario {
                kind: self,
                machines: 5,
                units: 7,
                busy_ms: 6_000,
                time: Duration::from_secs(150),
                fault_every_ms: 12_000,
                faults: vec![Fault::Outage],
                graces: Graces::DEFAULT,
                operated: false,
                ..any
            },
            Kind::Restarts => Scenario {
                kind: self,
                machines: 3,
                units: 7,
                busy_ms: 20_000,
                time: Duration::from_secs(60),
                fault_every_ms: 12_000,
                faults: vec![Fault::UnitDies, Fault::Crash, Fault::CrashLeader],
                operated: false,
                ..any
            },
            Kind::TurnBack => Scenario {
                kind: self,
                machines: 2,
                units: 9,
                busy_ms: 20_000,
                time: Duration::from_secs(90),
                fault_every_ms: 4_000,
                faults: vec![
                    Fault::Loss,
                    Fault::Slow,
                    Fault::CrashLeader,
                    Fault::CutLeader,
                    Fault::CrashAtPoint,
                ],
                operated: true,
                ..any
            },
            Kind::Haste => Scenario {
                kind: self,
                machines: 3,
                units: 9,
                busy_ms: 2_000,
                time: Duration::from_secs(40),
                fault_every_ms: 1_000,
                // What was being done is forgotten by whoever did it.
                faults: vec![Fault::SystemdAway, Fault::Crash, Fault::Upgrade],
                operated: false,
                ..any
            },
            Kind::Crowd => Scenario {
                kind: self,
                machines: 20,
                units: 40,
                busy_ms: 120_000,
                time: Duration::from_secs(600),
                fault_every_ms: 60_000,
                faults: vec![Fault::Crash, Fault::PowerCut, Fault::Cut],
                operated: false,
                ..any
            },
        }
    }
}

/// One simulation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenario {
    pub kind: Kind,
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
    /// The command that tells its story.
    pub fn replay(&self) -> String {
        let kind = match self.kind {
            Kind::Any => String::new(),
            kind => format!("FLEET_SIM_KIND={} ", kind.name()),
        };
        format!("FLEET_SIM_SEED={} {kind}scripts/sim.sh replay", self.seed)
    }

    /// What a fresh seed stands for: now and then another kind.
    pub fn drawn(seed: u64) -> Scenario {
        let kind = match seed % 32 {
            0 | 16 => Kind::Silence,
            1 => Kind::Restarts,
            3 => Kind::Freeze,
            5 | 21 => Kind::TurnBack,
            7 => Kind::StaleCopy,
            9 => Kind::Blink,
            10 | 26 => Kind::OldBackup,
            13 => Kind::Haste,
            _ => Kind::Any,
        };
        kind.scenario(seed)
    }

    /// What a seed stands for.
    pub fn of(seed: u64) -> Scenario {
        // Another stream than the one of the simulation itself.
        let mut rng = Chance::new(seed ^ 0x5ce0_a710);
        let n_faults = 1 + rng.below(6);
        Scenario {
            kind: Kind::Any,
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
