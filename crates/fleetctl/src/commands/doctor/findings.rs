//! What is wrong with a cluster, of what is known of it. Pure: it asks nobody.

use std::collections::BTreeMap;

use fleet_api::v2::{ClusterView, MachineView, UnitView};
use fleet_core::name::UnitName;

use super::Finding;
use crate::commands::listing::PRESENT;
use crate::commands::why;
use crate::report::legend;
use crate::when;

/// All that the doctor looks at.
pub(super) struct Known<'a> {
    pub(super) cluster: &'a ClusterView,
    pub(super) machines: &'a [MachineView],
    pub(super) units: &'a [UnitView],
}

impl Known<'_> {
    /// `2 of 3 machines present, 5 of 7 units active, 63d22e36.../172.30.1.2 leads`
    pub(super) fn in_numbers(&self) -> String {
        let present = self.machines.iter().filter(|m| m.status == PRESENT);
        // A machine that was retired is not missed.
        let members = self.machines.iter().filter(|m| m.status != "retired");
        let active = |unit: &&UnitView| unit.states.iter().any(|state| state.active == "active");
        let wanted = self.units.iter().filter(|unit| is_wanted(unit));
        let leader = match &self.cluster.leader {
            Some(leader) => format!("{} leads", self.shown(&leader.machine_id)),
            None => "nobody leads".to_owned(),
        };
        format!(
            "{} of {} machines present, {} of {} launched units active, {leader}",
            present.count(),
            members.count(),
            wanted.clone().filter(active).count(),
            wanted.count(),
        )
    }

    fn shown(&self, id: &str) -> String {
        let machine = self.machines.iter().find(|machine| machine.id == id);
        let present = machine.filter(|machine| machine.status == PRESENT);
        legend(id, present.map_or("", |machine| &machine.primary_ip), false)
    }
}

/// What is wrong first, then what is merely unusual.
pub(super) fn findings(known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(leader(known));
    findings.extend(records(known));
    findings.extend(machines(known));
    findings.extend(units(known));
    findings.extend(versions(known));
    findings.sort_by_key(|finding| finding.remark);
    findings
}

fn leader(known: &Known<'_>) -> Option<Finding> {
    known.cluster.leader.is_none().then(|| Finding {
        about: "leader",
        what: "Nobody leads: what runs goes on, and nothing new is decided".to_owned(),
        cures: vec![
            "have fleetd run on a machine without disable_engine=true; its journal (journalctl -u \
             fleet) says why it does not lead"
                .to_owned(),
        ],
        ..Finding::default()
    })
}

fn records<'a>(known: &'a Known<'_>) -> impl Iterator<Item = Finding> + 'a {
    known.cluster.damaged.iter().map(|damage| Finding {
        about: "record",
        name: damage.key.clone(),
        what: format!(
            "Record {} of the store cannot be read, so what it is about is left as it is: {}",
            damage.key, damage.why
        ),
        cures: vec![match damage.key.split_once('/') {
            Some(("units", unit)) => {
                format!(
                    "hand the unit in anew: fleetctl start --replace {unit}, with its file here"
                )
            }
            _ => "find who else writes below etcd_key_prefix; a backup of etcd may have it whole"
                .to_owned(),
        }],
        ..Finding::default()
    })
}

fn machines(known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if known
        .machines
        .iter()
        .all(|machine| machine.status != PRESENT)
    {
        findings.push(Finding {
            about: "cluster",
            what: "No machine is present".to_owned(),
            cures: vec!["have fleetd run: systemctl start fleet".to_owned()],
            ..Finding::default()
        });
    }
    for machine in known.machines {
        let name = known.shown(&machine.id);
        let since = match machine.since_ms {
            0 => String::new(),
            ms => format!(" since {}", when::since(ms)),
        };
        let (what, remark) = match (machine.status.as_str(), &machine.trouble) {
            ("retired", _) => continue,
            (PRESENT, Some(trouble)) => (format!("Machine {name}: {trouble}"), false),
            (PRESENT, None) => match &machine.avoided {
                Some(why) => (format!("Machine {name} gets new units last: {why}"), false),
                None if machine.draining => (format!("Machine {name} is being drained"), true),
                None if machine.cordoned => (format!("Machine {name} is cordoned"), true),
                None => continue,
            },
            (status, _) => (
                format!("Machine {name} is {status}{since}: {}", machine.reason),
                false,
            ),
        };
        findings.push(Finding {
            about: "machine",
            name: machine.id.clone(),
            remark,
            what: what.trim_end_matches(": ").to_owned(),
            cures: why::cures_of_machine(machine),
        });
    }
    findings
}

fn units(known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for unit in known.units.iter().filter(|unit| is_wanted(unit)) {
        let Some(what) = wrong_with(known, unit) else {
            continue;
        };
        findings.push(Finding {
            about: "unit",
            name: unit.name.clone(),
            what,
            cures: why::cures_of_unit(unit),
            ..Finding::default()
        });
    }
    findings
}

/// What is wrong with a unit that shall run; None: nothing that its machine does not explain.
fn wrong_with(known: &Known<'_>, unit: &UnitView) -> Option<String> {
    let name = &unit.name;
    let on = |id: &str| known.shown(id);
    let why = |why: &Option<String>| why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    if let Some(state) = unit.states.iter().find(|state| state.reached == "refused") {
        let at = on(&state.machine_id);
        return Some(format!(
            "Unit {name} was refused by {at}{}",
            why(&state.why)
        ));
    }
    if let Some(state) = unit.states.iter().find(|state| state.active == "failed") {
        let at = on(&state.machine_id);
        return Some(format!("Unit {name} failed on {at}{}", why(&state.why)));
    }
    // What a machine said before it vanished is no second copy.
    let fresh = unit.states.iter().filter(|state| !state.stale);
    let active = fresh.filter(|state| state.active == "active");
    if !unit.global && active.clone().count() > 1 {
        let at: Vec<String> = active.map(|state| on(&state.machine_id)).collect();
        let moves = match unit.leaving_id.is_some() {
            true => ", while it is handed over",
            false => "",
        };
        return Some(format!(
            "Unit {name} runs on {}{moves}",
            at.join(" and on ")
        ));
    }
    if unit.machine_id.is_none() && !unit.global {
        let reason = match unit.reason.as_str() {
            "" => "nobody has decided yet",
            reason => reason,
        };
        return Some(format!("Unit {name} is pending: {reason}"));
    }
    None
}

/// It shall run, and is no template.
fn is_wanted(unit: &UnitView) -> bool {
    let is_template = UnitName::parse(&unit.name).is_ok_and(|name| name.is_template());
    unit.desired_state == "launched" && !is_template
}

/// Several versions at once are usual while a cluster is upgraded.
fn versions(known: &Known<'_>) -> Option<Finding> {
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    let present = known.machines.iter().filter(|m| m.status == PRESENT);
    for machine in present {
        *versions.entry(&machine.version).or_default() += 1;
    }
    if versions.len() < 2 {
        return None;
    }
    let counted = versions
        .iter()
        .map(|(version, n)| format!("{version} ({n})"));
    Some(Finding {
        about: "cluster",
        remark: true,
        what: format!(
            "Machines run several versions of fleetd: {}",
            counted.collect::<Vec<_>>().join(", ")
        ),
        ..Finding::default()
    })
}

#[cfg(test)]
mod tests {
    use fleet_api::v2::{DamageView, LeaderView, StateView};

    use super::*;

    fn machine(id: &str, status: &str) -> MachineView {
        MachineView {
            id: id.to_owned(),
            status: status.to_owned(),
            version: "1.0.0".to_owned(),
            ..MachineView::default()
        }
    }

    fn unit(name: &str, machine: Option<&str>, actives: &[&str]) -> UnitView {
        let state = |(at, active): (usize, &&str)| StateView {
            machine_id: format!("m{}", at + 1),
            active: (*active).to_owned(),
            ..StateView::default()
        };
        UnitView {
            name: name.to_owned(),
            desired_state: "launched".to_owned(),
            machine_id: machine.map(str::to_owned),
            reason: "so".to_owned(),
            states: actives.iter().enumerate().map(state).collect(),
            ..UnitView::default()
        }
    }

    /// What is found: `!` in front of what is wrong.
    fn found(cluster: &ClusterView, machines: &[MachineView], units: &[UnitView]) -> Vec<String> {
        let known = Known {
            cluster,
            machines,
            units,
        };
        let findings = findings(&known).into_iter();
        let shown = findings.map(|finding| {
            let mark = if finding.remark { "" } else { "!" };
            format!("{mark}{}: {}", finding.about, finding.what)
        });
        shown.collect()
    }

    fn led() -> ClusterView {
        ClusterView {
            leader: Some(LeaderView {
                machine_id: "m1".to_owned(),
                ..LeaderView::default()
            }),
            ..ClusterView::default()
        }
    }

    #[test]
    fn a_cluster_that_is_well_has_no_finding() {
        let machines = [machine("m1", PRESENT), machine("old", "retired")];
        let mut template = unit("t@.service", None, &[]);
        template.reason.clear();
        let idle = UnitView {
            desired_state: "inactive".to_owned(),
            ..unit("idle.service", None, &[])
        };
        let units = [unit("a.service", Some("m1"), &["active"]), template, idle];
        assert_eq!(found(&led(), &machines, &units), [""; 0]);
        let known = Known {
            cluster: &led(),
            machines: &machines,
            units: &units,
        };
        assert_eq!(
            known.in_numbers(),
            "1 of 1 machines present, 1 of 1 launched units active, m1 leads"
        );
    }

    #[test]
    fn each_kind_of_trouble_is_found() {
        let cluster = ClusterView {
            damaged: vec![DamageView {
                key: "units/a.service".to_owned(),
                why: "it ends in the middle".to_owned(),
            }],
            ..ClusterView::default()
        };
        let lost = MachineView {
            reason: "it was away for 4 s".to_owned(),
            ..machine("m2", "lost")
        };
        let trouble = MachineView {
            trouble: Some("systemd cannot be reached: no bus".to_owned()),
            ..machine("m3", PRESENT)
        };
        let avoided = MachineView {
            avoided: Some("3 of the last 5 units failed there".to_owned()),
            ..machine("m4", PRESENT)
        };
        let drained = MachineView {
            cordoned: true,
            draining: true,
            version: "1.1.0".to_owned(),
            ..machine("m5", PRESENT)
        };
        let mut refused = unit("refused.service", Some("m1"), &[""]);
        refused.states[0].reached = "refused".to_owned();
        refused.states[0].why = Some("it is the machine's own".to_owned());
        let mut moving = unit("moving.service", Some("m1"), &["active", "active"]);
        moving.leaving_id = Some("m2".to_owned());
        let mut moved = unit("moved.service", Some("m1"), &["active", "active"]);
        moved.states[1].stale = true;
        let mut undecided = unit("new.service", None, &[]);
        undecided.reason.clear();
        let units = [
            unit("failed.service", Some("m1"), &["failed"]),
            refused,
            unit("twice.service", Some("m1"), &["active", "active"]),
            moving,
            unit("pending.service", None, &[]),
            undecided,
            moved,
        ];
        let machines = [lost, trouble, avoided, drained];
        assert_eq!(
            found(&cluster, &machines, &units),
            [
                "!leader: Nobody leads: what runs goes on, and nothing new is decided",
                "!record: Record units/a.service of the store cannot be read, so what it is about is \
                 left as it is: it ends in the middle",
                "!machine: Machine m2 is lost: it was away for 4 s",
                "!machine: Machine m3: systemd cannot be reached: no bus",
                "!machine: Machine m4 gets new units last: 3 of the last 5 units failed there",
                "!unit: Unit failed.service failed on m1",
                "!unit: Unit refused.service was refused by m1: it is the machine's own",
                "!unit: Unit twice.service runs on m1 and on m2",
                "!unit: Unit moving.service runs on m1 and on m2, while it is handed over",
                "!unit: Unit pending.service is pending: so",
                "!unit: Unit new.service is pending: nobody has decided yet",
                "machine: Machine m5 is being drained",
                "cluster: Machines run several versions of fleetd: 1.0.0 (2), 1.1.0 (1)",
            ]
        );
        let nobody = found(&led(), &[machine("m1", "suspect")], &[]);
        assert_eq!(
            nobody,
            [
                "!cluster: No machine is present",
                "!machine: Machine m1 is suspect"
            ]
        );
    }
}
