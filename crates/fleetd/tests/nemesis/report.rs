//! What a run says: in a line when all is well, with everything that convicts when not.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use crate::clock::{Micros, seconds};
use crate::cluster::Cluster;
use crate::judge::{Case, Judgement};

/// Before and after a conviction, what is shown of journals.
const AROUND: Micros = 20_000_000;
/// Lines of one excerpt.
const LINES_MAX: usize = 200;

pub(crate) fn summary(round: usize, case: &Case<'_>, judgement: &Judgement) -> String {
    format!(
        "round {round}: {} faults, {} things asked, {} copies of units; stops accounted for: {:?}; \
         longest overlap after everything was undone {:.1} s",
        case.faults.len(),
        case.acts.len(),
        judgement.n_copies,
        judgement.stops,
        judgement.overlap as f64 / 1e6,
    )
}

/// Seed, schedule and journals. Whole journals are kept beside.
pub(crate) fn failure(
    seed: u64,
    round: usize,
    cluster: &Cluster,
    case: &Case<'_>,
    judgement: &Judgement,
    settled: Result<(), String>,
    kept: &Path,
) -> String {
    let mut text = format!("seed {seed}, round {round}: again with FLEET_NEMESIS_SEED={seed}\n");
    let at = |micros: Micros| seconds(case.begun, micros);
    let _ = writeln!(text, "faults, in seconds from the beginning of the round:");
    let mut faults: Vec<_> = case.faults.iter().collect();
    faults.sort_by_key(|done| done.begun);
    for done in faults {
        let _ = writeln!(
            text,
            "  {:6.1} to {:6.1}  {:?} {:?} (in effect {:.1})",
            at(done.begun),
            at(done.ended),
            done.lane,
            done.fault,
            at(done.struck)
        );
    }
    if let Err(why) = &settled {
        let _ = writeln!(text, "it did not settle: {why}");
    }
    let mut units: BTreeSet<&str> = BTreeSet::new();
    for found in &judgement.convictions {
        units.insert(&found.unit);
        let _ = writeln!(
            text,
            "at {:.1}: {} {}",
            at(found.at),
            found.unit,
            found.what
        );
    }
    for unit in units {
        let _ = writeln!(text, "-- {unit}: asked");
        for act in case.acts.iter().filter(|act| act.unit == unit) {
            let _ = writeln!(text, "  {:6.1} {}", at(act.begun), act.what);
        }
        let _ = writeln!(text, "-- {unit}: copies");
        for copy in case.copies.iter().filter(|copy| copy.unit == unit) {
            let (from, until) = (at(copy.from), at(copy.until));
            let _ = writeln!(
                text,
                "  host {} {from:.1} to {until:.1} {:?}",
                copy.host + 1,
                copy.end
            );
        }
    }
    for found in &judgement.convictions {
        for host in &found.hosts {
            text += &excerpt(cluster, *host, &found.unit, found.at, case.begun);
        }
    }
    let directory = kept.join(format!("nemesis-{seed}-{round}"));
    keep(cluster, &directory);
    let _ = writeln!(
        text,
        "journals of the hosts and logs of etcd: {}",
        directory.display()
    );
    text
}

/// What systemd and fleetd of a host said about a unit around a point.
fn excerpt(cluster: &Cluster, host: usize, unit: &str, at: Micros, begun: Micros) -> String {
    let since = format!("--since=@{}", (at - AROUND).div_euclid(1_000_000));
    let until = format!("--until=@{}", (at + AROUND).div_euclid(1_000_000));
    let args = ["-o", "short-unix", &since, &until];
    let journal = cluster.host(host).journal(&args).unwrap_or_default();
    let is_said = |line: &&str| line.contains(unit) || line.contains("fleet");
    let lines: Vec<&str> = journal.lines().filter(is_said).collect();
    let mut text = format!(
        "-- journal of host {} around {:.1} s\n",
        host + 1,
        seconds(begun, at)
    );
    for line in lines.iter().take(LINES_MAX) {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// The sandbox goes with the test: what is needed to understand it stays.
fn keep(cluster: &Cluster, directory: &Path) {
    let _ = std::fs::create_dir_all(directory);
    for host in cluster.sandbox.hosts() {
        let journal = host.journal(&["-o", "short-precise"]).unwrap_or_default();
        let _ = std::fs::write(directory.join(host.name()), journal);
    }
    for member in cluster.sandbox.members() {
        if let Ok(record) = member.record() {
            let _ = std::fs::copy(&record.log, directory.join(&record.name));
        }
    }
    let keys = ["get", "--prefix", "/_coreos.com/fleet/"];
    let keys = cluster.sandbox.etcd(0).etcdctl(&keys).unwrap_or_default();
    let _ = std::fs::write(directory.join("keys"), keys);
}
