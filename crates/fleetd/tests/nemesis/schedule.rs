//! Which fault strikes whom and when: follows from the seed alone.
//!
//! Each host, the store and the operator have a lane: in one lane one thing comes after the other,
//! lanes go on beside each other. So faults of different machines, of the store and drains overlap,
//! and none of them undoes another.

use std::time::Duration;

use fleet_sandbox::Loss;

use crate::chance::Chance;

/// Who does or suffers something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Lane {
    Host(usize),
    Store,
    Operator,
}

/// What is done, at the beginning of its time; what is undone at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// `kill -9`, so many times.
    KillFleetd(usize),
    /// SIGSTOP · SIGCONT
    PauseFleetd,
    /// `systemctl stop fleet` · `start`
    StopFleetd,
    /// Another build is put in place, and fleetd is restarted.
    Upgrade,
    /// Power cut · boot
    CutPower,
    /// Cable out · in
    CutCable,
    /// The link stays up, and nothing arrives, one way or both · it does
    LoseFrames(Loss),
    /// SIGSTOP, and nothing arrives in either direction: nobody there can stop anything, except
    /// systemd · all is well
    Strand,
    /// `kill -9` of a member of etcd · start
    KillMember(usize),
    /// SIGSTOP · SIGCONT
    PauseMember(usize),
    /// Cable out · in
    CutMember(usize),
    /// Two of three members are killed at once · started
    LoseQuorum(usize),
    /// A snapshot is saved; later etcd is restored from it; the end: `fleetctl accept-store`.
    Restore,
    /// `fleetctl drain` · `uncordon`
    Drain(usize),
}

impl Fault {
    /// Units may be started elsewhere for it.
    pub(crate) fn may_move_units(self) -> bool {
        match self {
            Fault::PauseFleetd
            | Fault::CutPower
            | Fault::CutCable
            | Fault::LoseFrames(_)
            | Fault::Strand
            | Fault::Drain(_) => true,
            Fault::KillFleetd(_)
            | Fault::StopFleetd
            | Fault::Upgrade
            | Fault::KillMember(_)
            | Fault::PauseMember(_)
            | Fault::CutMember(_)
            | Fault::LoseQuorum(_)
            | Fault::Restore => false,
        }
    }
}

/// A fault and its time, from the beginning of the round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) lane: Lane,
    pub(crate) fault: Fault,
    pub(crate) at: Duration,
    pub(crate) until: Duration,
}

/// What takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) n_hosts: usize,
    pub(crate) n_members: usize,
    pub(crate) length: Duration,
}

/// The faults of one round, in the order of their times. All are undone at its end.
pub(crate) fn plan(seed: u64, round: usize, extent: Extent) -> Vec<Step> {
    let lanes = (0..extent.n_hosts)
        .map(Lane::Host)
        .chain([Lane::Store, Lane::Operator]);
    let mut steps: Vec<Step> = lanes
        .flat_map(|lane| plan_lane(seed, round, lane, extent))
        .collect();
    steps.sort_by_key(|step| (step.at, step.lane));
    steps
}

fn plan_lane(seed: u64, round: usize, lane: Lane, extent: Extent) -> Vec<Step> {
    let mut rng = Chance::of(seed, &format!("{round} {lane:?}"));
    let mut steps = Vec::new();
    let mut now = Duration::ZERO;
    // At most one restore in a round: an operator looks what became of the first.
    let mut restored = false;
    loop {
        // With five hosts a fault begins every two seconds, and most of the time one is under way.
        now += match lane {
            Lane::Host(_) => rng.between(2_000, 12_000),
            Lane::Store => rng.between(3_000, 8_000),
            Lane::Operator => rng.between(3_000, 10_000),
        };
        let (fault, lasts) = match lane {
            Lane::Host(_) => host_fault(&mut rng),
            Lane::Store => store_fault(&mut rng, extent.n_members, &mut restored),
            Lane::Operator => {
                let host = rng.below(extent.n_hosts);
                (Fault::Drain(host), rng.between(3_000, 9_000))
            }
        };
        let until = now + lasts;
        if until > extent.length {
            return steps;
        }
        steps.push(Step {
            lane,
            fault,
            at: now,
            until,
        });
        now = until;
    }
}

fn host_fault(rng: &mut Chance) -> (Fault, Duration) {
    match rng.below(13) {
        0 | 1 => (
            Fault::KillFleetd(1 + rng.below(3)),
            rng.between(1_000, 2_000),
        ),
        // Half of the pauses are shorter than the time to lost.
        2 => (Fault::PauseFleetd, rng.between(500, 3_000)),
        3 => (Fault::PauseFleetd, rng.between(4_000, 12_000)),
        4 => (Fault::StopFleetd, rng.between(500, 5_000)),
        5 | 6 => (Fault::Upgrade, rng.between(500, 1_000)),
        7 | 8 => (Fault::CutPower, rng.between(500, 12_000)),
        9 => (Fault::CutCable, rng.between(500, 3_000)),
        10 => (Fault::CutCable, rng.between(4_000, 14_000)),
        // Long enough for units with Exclusive=yes to be started elsewhere.
        11 => (Fault::Strand, rng.between(22_000, 30_000)),
        _ => {
            let loss = [Loss::To, Loss::From, Loss::Both][rng.below(3)];
            (Fault::LoseFrames(loss), rng.between(1_000, 14_000))
        }
    }
}

fn store_fault(rng: &mut Chance, n_members: usize, restored: &mut bool) -> (Fault, Duration) {
    let member = rng.below(n_members);
    match rng.below(6) {
        0 => (Fault::KillMember(member), rng.between(1_000, 6_000)),
        1 => (Fault::PauseMember(member), rng.between(1_000, 8_000)),
        2 => (Fault::CutMember(member), rng.between(1_000, 8_000)),
        3 => (Fault::LoseQuorum(member), rng.between(1_000, 7_000)),
        _ if *restored => (Fault::KillMember(member), rng.between(1_000, 6_000)),
        _ => {
            *restored = true;
            (Fault::Restore, rng.between(8_000, 16_000))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent {
        n_hosts: 5,
        n_members: 3,
        length: Duration::from_secs(60),
    };

    #[test]
    fn the_schedule_follows_from_the_seed() {
        // SplitMix64's own numbers: seeds that are written down mean the same for ever.
        let mut chance = Chance::new(0);
        assert_eq!(chance.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(chance.next(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(plan(7, 0, EXTENT), plan(7, 0, EXTENT));
        assert_ne!(plan(7, 0, EXTENT), plan(8, 0, EXTENT));
        assert_ne!(plan(7, 0, EXTENT), plan(7, 1, EXTENT));
    }

    #[test]
    fn faults_overlap_and_those_of_a_lane_do_not_and_all_end_with_the_round() {
        for seed in 0..50 {
            let steps = plan(seed, 0, EXTENT);
            let mut overlaps = 0;
            for (idx, a) in steps.iter().enumerate() {
                assert!(a.at < a.until && a.until <= EXTENT.length, "{a:?}");
                for b in &steps[idx + 1..] {
                    let overlap = a.at < b.until && b.at < a.until;
                    assert!(!overlap || a.lane != b.lane, "seed {seed}: {a:?} {b:?}");
                    overlaps += usize::from(overlap);
                }
            }
            assert!(overlaps > 5, "seed {seed}: {overlaps}");
        }
    }
}
