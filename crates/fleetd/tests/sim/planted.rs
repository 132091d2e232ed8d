//! Bugs that are planted in fleet on purpose: each is found.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::scenario::Kind;
use crate::{simulate, simulate_with};

/// The promises of SPECIFICATION.md, "It never stops what runs fine", each with bugs that break it
/// (`planted!` in the code), and the kind of scenario whose fixed seeds find it. Without it the same
/// seeds hold in the same run.
const PLANTED: [(u8, &str, Kind); 36] = [
    (1, "adopted units are restarted", Kind::Any),
    (1, "a farewell is a loss", Kind::Any),
    (2, "a broken watch goes on from now", Kind::Any),
    (2, "a running unit is unloaded", Kind::Any),
    (2, "a vanished assignment is a stop", Kind::Any),
    (2, "any store is believed", Kind::Any),
    (
        2,
        "an older copy that was written on is believed",
        Kind::StaleCopy,
    ),
    (3, "LostAfter is not waited for", Kind::Any),
    (3, "a failure of most machines is believed", Kind::Any),
    (3, "a thaw is not heard", Kind::Freeze),
    (3, "a thaw lasts for ever", Kind::Freeze),
    (3, "the first machine back gets everything", Kind::Any),
    (3, "who is back is given up", Kind::Blink),
    (4, "a cut is not noticed", Kind::Any),
    (4, "starts without presence", Kind::Any),
    (
        5,
        "an exclusive unit moves when its machine is lost",
        Kind::Any,
    ),
    (5, "the lease is prolonged without an answer", Kind::Silence),
    (6, "a move stops the old copy first", Kind::Any),
    (6, "the old copy stops first", Kind::Any),
    (7, "a repeated request counts twice", Kind::Any),
    (7, "a stale leader commits", Kind::Any),
    (7, "an unknown write is taken for done", Kind::Any),
    (7, "states are written without presence", Kind::Any),
    (7, "what is late is written", Kind::Any),
    (8, "a stop is not remembered", Kind::Haste),
    (8, "the generation is forgotten", Kind::Any),
    (8, "tombstones are left", Kind::Any),
    (9, "a failed unit has lost its machine", Kind::Any),
    (9, "a machine that breaks units is not avoided", Kind::Any),
    (9, "moves are not counted", Kind::Any),
    (
        9,
        "systemd's own restarts are not waited for",
        Kind::Restarts,
    ),
    (9, "the back-off is not waited for", Kind::Any),
    (9, "what has failed is started again", Kind::Any),
    (10, "garbage ends a freeze", Kind::Freeze),
    (10, "garbage ends fleetd", Kind::Any),
    (
        10,
        "garbage in an assignment is an order to leave",
        Kind::Any,
    ),
];

/// So many seeds must find each bug: what a single one finds, the next change of anything may hide.
const FINDERS: usize = 3;

/// Where they are looked for: among the fixed seeds of a kind, and then among some that come after
/// them, since any change of fleet makes other seeds meet a bug that few meet.
fn seeds(kind: Kind) -> RangeInclusive<u64> {
    *kind.fixed().start()..=*kind.fixed().end() * 4
}

#[test]
fn bugs_that_were_planted_are_found() {
    let next = AtomicUsize::new(0);
    let look = || {
        let mut missed = Vec::new();
        while let Some((promise, bug, kind)) = PLANTED.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = seeds(*kind).filter_map(|seed| {
                let scenario = kind.scenario(seed);
                let why = simulate_with(&scenario, Some(bug), false).failure?;
                // Nobody has seen yet that the others hold without it.
                let is_it = kind.fixed().contains(&seed) || simulate(&scenario).failure.is_none();
                is_it.then_some((seed, why))
            });
            let found: Vec<(u64, String)> = found.take(FINDERS).collect();
            let by: Vec<u64> = found.iter().map(|(seed, _)| *seed).collect();
            let why = found.first().map_or("", |(_, why)| why);
            println!("{promise:>2} {bug}: seeds {by:?}: {why:.150}");
            if found.len() < FINDERS {
                missed.push((promise, bug));
            }
        }
        missed
    };
    let missed = std::thread::scope(|scope| {
        let other = scope.spawn(look);
        let mut missed = look();
        missed.extend(other.join().unwrap());
        missed
    });
    assert!(
        missed.is_empty(),
        "not found by {FINDERS} seeds: {missed:?}"
    );
}
