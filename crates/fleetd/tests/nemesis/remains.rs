//! What is there in the end: exactly what is wanted, on machines as in etcd, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Cluster;
use crate::users::{Goal, Want, is_global};

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

/// How many leases etcd has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leases(pub(crate) usize);

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
        if here
            .iter()
            .any(|(_, is_active)| *is_active != (want.goal == Goal::Launched))
        {
            wrong.push(format!("{unit} ({want:?}) is active or not on {here:?}"));
        }
    }
    keys(cluster, wants, templates, &ids, &pairs, &mut wrong)?;
    if let Some(leases) = leases {
        let now = self::leases(cluster)?;
        if now != *leases {
            wrong.push(format!("etcd has {now:?}, in the beginning {leases:?}"));
        }
    }
    Ok(wrong)
}

/// How many leases there are.
pub(crate) fn leases(cluster: &Cluster) -> Result<Leases, String> {
    let args = ["--command-timeout=3s", "lease", "list"];
    let text = cluster
        .sandbox
        .etcd(0)
        .etcdctl(&args)
        .map_err(|e| e.to_string())?;
    // "found N leases", then a line each.
    Ok(Leases(text.lines().count().saturating_sub(1)))
}

/// Compares etcd's keys with the wants and with what is on the machines.
fn keys(
    cluster: &Cluster,
    wants: &BTreeMap<String, Want>,
    templates: &[&str],
    ids: &[String],
    pairs: &BTreeSet<(&str, String)>,
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
    expect("units", names);
    let machines: BTreeSet<String> = ids.iter().cloned().collect();
    expect("machines", machines.clone());
    expect("members", machines);
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
    for lone in ["cluster", "leader", "accept-store", "machine-wishes"] {
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
