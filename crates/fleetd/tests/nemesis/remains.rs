//! What is there in the end: exactly what is wanted, on machines as in etcd, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Cluster;
use crate::users::{Goal, Want};
use crate::workload::{self, is_global};

/// fleet's keys in etcd.
const PREFIX: &str = "/_coreos.com/fleet/";

/// Files of fleet and units of its names on a host, and how they are. The first word says what it is.
const LOOK: &str = r"
cd /run/fleet/units 2>/dev/null && for f in $(ls -A); do
    echo file $f $(sed -n 's/^Description=.* //p' $f)
done
cd /run/systemd/system && for f in *; do
    [ -L $f ] && case $(readlink $f) in /run/fleet/*) echo link $f;; esac
done
cd /run/fleet/launched 2>/dev/null && for f in $(ls -A); do
    echo record $f
done
systemctl list-units --all --plain --no-legend --type=service | while read unit load active sub more; do
    echo unit $unit $load $active
done
";

/// Tombstones of destroyed units rest under leases that are granted for about two minutes, and that
/// nobody renews; all others are much shorter here.
const GRAVE_AT_LEAST_S: u64 = 60;

/// How many leases etcd has that somebody renews.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leases(pub(crate) usize);

/// The leases under which tombstones rest, and what rests.
#[derive(Default, Debug)]
struct Graves {
    n_leases: usize,
    /// Keys below [`PREFIX`].
    keys: BTreeSet<String>,
}

/// Everything that is not as it should be, in words. Nothing: the cluster has reached what is wanted.
pub(crate) fn differences(
    cluster: &Cluster,
    wants: &BTreeMap<String, Want>,
    templates: &[&str],
    leases: Option<&Leases>,
) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    let mut hosts: BTreeMap<&str, Vec<(usize, bool)>> = BTreeMap::new();
    let mut pairs = BTreeSet::new();
    let ids: Vec<String> = (0..cluster.sandbox.hosts().len())
        .map(|host| cluster.host(host).machine_id().unwrap())
        .collect();
    for (host, id) in ids.iter().enumerate() {
        let out = cluster
            .host(host)
            .exec(&["sh", "-c", LOOK])
            .map_err(|e| e.to_string())?;
        let seen = Seen::parse(&out.stdout);
        for (unit, text) in &seen.files {
            pairs.insert((id.as_str(), unit.clone()));
            match wants.get_key_value(unit.as_str()) {
                Some((name, want)) if want.goal >= Goal::Loaded => {
                    let is_active = seen.active.contains(unit.as_str());
                    hosts.entry(name).or_default().push((host, is_active));
                    if *text != want.text.to_string() {
                        let n = host + 1;
                        wrong.push(format!(
                            "host {n} has version {text} of {unit}, not {}",
                            want.text
                        ));
                    }
                }
                _ => wrong.push(format!("host {} has the file of {unit}", host + 1)),
            }
        }
        let files: BTreeSet<&String> = seen.files.keys().collect();
        for (what, names) in [("link", &seen.links), ("record", &seen.records)] {
            let names: BTreeSet<&String> = names.iter().collect();
            if names != files {
                let n = host + 1;
                wrong.push(format!(
                    "host {n}: a {what} each for {names:?}, files {files:?}"
                ));
            }
        }
        for unit in &seen.known {
            if wants.contains_key(unit) && !seen.files.contains_key(unit) {
                wrong.push(format!(
                    "host {}: systemd knows {unit} without a file",
                    host + 1
                ));
            }
        }
    }
    for (unit, want) in wants {
        let here = hosts.get(unit.as_str()).cloned().unwrap_or_default();
        let n_wanted = match want.goal {
            Goal::Absent | Goal::Inactive => 0,
            _ if is_global(unit) => ids.len(),
            Goal::Loaded | Goal::Launched => 1,
        };
        if here.len() != n_wanted {
            wrong.push(format!("{unit} ({want:?}) is on hosts (from 0) {here:?}"));
        }
        let is_to_run = |host: usize| {
            let fails = workload::unit(unit).is_some_and(|unit| unit.fails_on(host));
            want.goal == Goal::Launched && !fails
        };
        if here
            .iter()
            .any(|(host, is_active)| *is_active != is_to_run(*host))
        {
            wrong.push(format!("{unit} ({want:?}) is active or not on {here:?}"));
        }
    }
    misplaced(&hosts, &mut wrong);
    let (now, graves) = self::leases(cluster)?;
    keys(cluster, wants, templates, &ids, &pairs, &graves, &mut wrong)?;
    if leases.is_some_and(|leases| *leases != now) {
        wrong.push(format!("etcd has {now:?}, in the beginning {leases:?}"));
    }
    Ok(wrong)
}

/// Units that are together, or apart, or on machines that do not have what they ask for.
fn misplaced(hosts: &BTreeMap<&str, Vec<(usize, bool)>>, wrong: &mut Vec<String>) {
    let on = |name: &str| {
        hosts
            .get(name)
            .map(|here| here.iter().map(|(host, _)| *host))
    };
    for unit in workload::all() {
        for host in on(unit.name).into_iter().flatten() {
            if !unit.may_be_on(host) {
                wrong.push(format!("{} is on host {}", unit.name, host + 1));
            }
            if let Some(leader) = unit.follows()
                && !on(leader).is_some_and(|mut there| there.any(|there| there == host))
            {
                wrong.push(format!("{} is not beside {leader}", unit.name));
            }
            for other in workload::all().filter(|other| unit.is_apart(other)) {
                if on(other.name).is_some_and(|mut there| there.any(|there| there == host)) {
                    wrong.push(format!("{} is beside {}", unit.name, other.name));
                }
            }
        }
    }
}

/// The leases that somebody renews.
pub(crate) fn renewed_leases(cluster: &Cluster) -> Result<Leases, String> {
    Ok(leases(cluster)?.0)
}

/// The leases that are renewed, and the graves.
fn leases(cluster: &Cluster) -> Result<(Leases, Graves), String> {
    let etcdctl = |args: &[&str]| {
        let args = [&["--command-timeout=3s", "lease"], args].concat();
        let text = cluster.sandbox.etcd(0).etcdctl(&args);
        text.map_err(|e| e.to_string())
    };
    let mut graves = Graves::default();
    let mut n_renewed = 0;
    // "found N leases", then a line each.
    for id in etcdctl(&["list"])?.lines().skip(1) {
        match Lease::parse(&etcdctl(&["timetolive", id, "--keys"])?) {
            Some(lease) if lease.granted_s >= GRAVE_AT_LEAST_S => {
                graves.n_leases += 1;
                graves.keys.extend(lease.keys);
            }
            Some(_) => n_renewed += 1,
            // It has ended meanwhile.
            None => {}
        }
    }
    Ok((Leases(n_renewed), graves))
}

/// What etcdctl says of a lease.
#[derive(PartialEq, Eq, Debug)]
struct Lease {
    granted_s: u64,
    /// Below [`PREFIX`].
    keys: Vec<String>,
}

impl Lease {
    /// "lease 694d granted with TTL(130s), remaining(99s), attached keys([/a /b])"; of one that has
    /// ended: "lease 694d already expired".
    fn parse(text: &str) -> Option<Lease> {
        let (_, rest) = text.split_once("TTL(")?;
        let (granted, rest) = rest.split_once("s)")?;
        let (_, keys) = rest.split_once("keys([")?;
        let (keys, _) = keys.split_once("])")?;
        let keys = keys.split_whitespace();
        Some(Lease {
            granted_s: granted.parse().ok()?,
            keys: keys
                .map(|key| key.strip_prefix(PREFIX).unwrap_or(key).to_owned())
                .collect(),
        })
    }
}

/// What of destroyed units is left, in words. Nothing: nothing.
pub(crate) fn graves(cluster: &Cluster) -> Result<Option<String>, String> {
    let (_, graves) = leases(cluster)?;
    Ok((graves.n_leases > 0).then(|| format!("{graves:?}")))
}

/// Compares etcd's keys with the wants and with what is on the machines.
fn keys(
    cluster: &Cluster,
    wants: &BTreeMap<String, Want>,
    templates: &[&str],
    ids: &[String],
    pairs: &BTreeSet<(&str, String)>,
    graves: &Graves,
    wrong: &mut Vec<String>,
) -> Result<(), String> {
    let args = [
        "--command-timeout=3s",
        "get",
        "--prefix",
        "--keys-only",
        PREFIX,
    ];
    let text = cluster
        .sandbox
        .etcd(0)
        .etcdctl(&args)
        .map_err(|e| e.to_string())?;
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for key in text.lines().filter_map(|line| line.strip_prefix(PREFIX)) {
        let (role, rest) = key.split_once('/').unwrap_or((key, ""));
        found.entry(role).or_default().insert(rest.to_owned());
    }
    let mut early = Vec::new();
    let mut expect = |role: &str, wanted: BTreeSet<String>| {
        let there = found.remove(role).unwrap_or_default();
        let left: Vec<&String> = there.difference(&wanted).collect();
        let missing: Vec<&String> = wanted.difference(&there).collect();
        if !left.is_empty() || !missing.is_empty() {
            wrong.push(format!(
                "etcd, {role}: too much {left:?}, missing {missing:?}"
            ));
        }
    };
    let is_there = |want: &Want| want.goal != Goal::Absent;
    let units = wants.iter().filter(|(_, want)| is_there(want));
    let mut names: BTreeSet<String> = units.map(|(unit, _)| unit.clone()).collect();
    names.extend(templates.iter().map(|name| (*name).to_owned()));
    // What rests goes by itself; no unit that is wanted does.
    let resting = graves.keys.iter().map(|key| match key.split_once('/') {
        Some(("units", name)) if !names.contains(name) => Ok(name.to_owned()),
        _ => Err(format!("{key} will end with a lease of tombstones")),
    });
    let resting: Result<Vec<String>, String> = resting.collect();
    match resting {
        Ok(resting) => names.extend(resting),
        Err(why) => early.push(why),
    }
    expect("units", names);
    let machines: BTreeSet<String> = ids.iter().cloned().collect();
    expect("machines", machines.clone());
    expect("members", machines.clone());
    expect(
        "assignments",
        pairs
            .iter()
            .map(|(id, unit)| format!("{id}/{unit}"))
            .collect(),
    );
    expect(
        "states",
        pairs
            .iter()
            .map(|(id, unit)| format!("{unit}/{id}"))
            .collect(),
    );
    let placed = wants.iter().filter(|(_, want)| want.goal >= Goal::Loaded);
    expect("placements", placed.map(|(unit, _)| unit.clone()).collect());
    wrong.append(&mut early);
    // A machine that has not said anything to this store has no mark in it.
    let marks = found.remove("marks").unwrap_or_default();
    let strange: Vec<&String> = marks.difference(&machines).collect();
    if !strange.is_empty() {
        wrong.push(format!("etcd, marks: too much {strange:?}"));
    }
    for lone in [
        "cluster",
        "leader",
        "accept-store",
        "machine-wishes",
        "events",
    ] {
        found.remove(lone);
    }
    if !found.is_empty() {
        wrong.push(format!("etcd has keys that nobody knows: {found:?}"));
    }
    Ok(())
}

#[derive(Default)]
struct Seen {
    files: BTreeMap<String, String>,
    links: Vec<String>,
    records: Vec<String>,
    known: Vec<String>,
    active: BTreeSet<String>,
}

impl Seen {
    fn parse(text: &str) -> Seen {
        let mut seen = Seen::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["file", unit, rest @ ..] => {
                    seen.files.insert((*unit).to_owned(), rest.join(" "));
                }
                ["link", unit] => seen.links.push((*unit).to_owned()),
                ["record", unit] => seen.records.push((*unit).to_owned()),
                ["unit", unit, load, active] => {
                    if *load != "not-found" {
                        seen.known.push((*unit).to_owned());
                    }
                    if *active == "active" {
                        seen.active.insert((*unit).to_owned());
                    }
                }
                _ => {}
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_read_as_etcdctl_prints_them() {
        let text = "lease 694d granted with TTL(130s), remaining(99s), \
                    attached keys([/_coreos.com/fleet/units/a.service /other])\n";
        let lease = Lease::parse(text).unwrap();
        assert_eq!(lease.granted_s, 130);
        assert_eq!(lease.keys, ["units/a.service", "/other"]);
        assert_eq!(Lease::parse("lease 694d already expired\n"), None);
    }
}
