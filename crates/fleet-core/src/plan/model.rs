//! A store, agents and a clock in a few lines, for tests: scripts go in, plans come out as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::{Now, Plan, Subject, Write};
use crate::check::check;
use crate::cluster::{Assigned, Cluster, Fact, Reported, Settings, Wish};
use crate::hash::UnitHash;
use crate::name::UnitName;
use crate::records::*;

/// All records, as the store would hold them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Model {
    pub(crate) cluster: Cluster,
    pub(crate) now_ms: u64,
    pub(crate) revision: u64,
    pub(crate) units: BTreeMap<UnitName, (UnitRecord, u64)>,
    pub(crate) presences: BTreeMap<MachineId, MachineRecord>,
    pub(crate) members: BTreeMap<MachineId, MemberRecord>,
    pub(crate) wishes: BTreeMap<MachineId, MachineWish>,
    pub(crate) placements: BTreeMap<UnitName, PlacementRecord>,
    pub(crate) assignments: BTreeMap<(MachineId, UnitName), AssignmentRecord>,
    pub(crate) states: BTreeMap<(UnitName, MachineId), StateRecord>,
}

impl Model {
    pub(crate) fn now(&self) -> Now {
        Now {
            monotonic_ms: self.now_ms,
            unix_ms: 1_000_000 + self.now_ms,
        }
    }

    fn tell(&mut self, fact: Fact) {
        self.revision += 1;
        self.cluster.observe(self.revision);
        self.cluster.apply(fact);
    }

    pub(crate) fn set_unit(&mut self, name: &UnitName, record: UnitRecord) {
        let generation = self.revision + 1;
        let wish = Wish::read(name, &record, generation).unwrap();
        self.units.insert(name.clone(), (record, generation));
        self.tell(Fact::Unit(name.clone(), Some(wish)));
    }

    pub(crate) fn set_desired(&mut self, name: &UnitName, desired: DesiredState) {
        let Some((record, _)) = self.units.get(name) else {
            return;
        };
        let mut record = record.clone();
        record.desired = desired;
        if desired == DesiredState::Destroyed {
            record.text = Arc::from("");
        }
        self.set_unit(name, record);
    }

    pub(crate) fn set_presence(&mut self, id: &MachineId, record: Option<MachineRecord>) {
        match record.clone() {
            Some(record) => self.presences.insert(id.clone(), record),
            None => self.presences.remove(id),
        };
        self.tell(Fact::Presence(id.clone(), record));
    }

    pub(crate) fn set_wish(&mut self, id: &MachineId, wish: MachineWish) {
        self.wishes.insert(id.clone(), wish.clone());
        self.tell(Fact::MachineWish(id.clone(), Some(wish)));
    }

    pub(crate) fn report(
        &mut self,
        unit: &UnitName,
        id: &MachineId,
        reached: Reached,
        why: Option<&str>,
    ) {
        self.report_as(unit, id, reached, "active", why);
    }

    /// systemd has started the unit and given it up.
    pub(crate) fn fail(&mut self, unit: &UnitName, id: &MachineId, why: &str) {
        self.report_as(unit, id, Reached::Launched, "failed", Some(why));
    }

    fn report_as(
        &mut self,
        unit: &UnitName,
        id: &MachineId,
        reached: Reached,
        active: &str,
        why: Option<&str>,
    ) {
        let key = (id.clone(), unit.clone());
        let Some(assignment) = self.assignments.get(&key) else {
            return;
        };
        let record = StateRecord {
            load: "loaded".into(),
            active: active.into(),
            sub: "running".into(),
            hash: assignment.hash,
            decision: assignment.decision,
            reached,
            invocation_id: String::new(),
            description: String::new(),
            why: why.map(str::to_owned),
            leased_ms: assignment.text.contains("Exclusive=yes").then_some(3_000),
            log: Vec::new(),
        };
        let reported = Reported::from(&record);
        self.states.insert((unit.clone(), id.clone()), record);
        self.tell(Fact::State(unit.clone(), id.clone(), Some(reported)));
    }

    /// What a machine has said of a unit stands, but for the lease that it is bound to.
    pub(crate) fn report_leased(&mut self, unit: &UnitName, id: &MachineId, ms: Option<u64>) {
        let Some(record) = self.states.get_mut(&(unit.clone(), id.clone())) else {
            return;
        };
        record.leased_ms = ms;
        let reported = Reported::from(&*record);
        self.tell(Fact::State(unit.clone(), id.clone(), Some(reported)));
    }

    /// A machine has a unit that it has no order about.
    pub(crate) fn stray(&mut self, unit: &UnitName, id: &MachineId, generation: u64) {
        let record = StateRecord {
            load: "loaded".into(),
            active: "active".into(),
            sub: "running".into(),
            hash: UnitHash::of(b""),
            decision: Decision {
                generation,
                seq: generation,
            },
            reached: Reached::Launched,
            invocation_id: String::new(),
            description: String::new(),
            why: None,
            leased_ms: None,
            log: Vec::new(),
        };
        let reported = Reported::from(&record);
        self.states.insert((unit.clone(), id.clone()), record);
        self.tell(Fact::State(unit.clone(), id.clone(), Some(reported)));
    }

    /// A present machine carries out all that it was assigned.
    pub(crate) fn run_agent(&mut self, id: &MachineId) {
        if !self.presences.contains_key(id) {
            return;
        }
        let assigned: Vec<_> = self
            .assignments
            .iter()
            .filter(|((machine, _), _)| machine == id)
            .map(|((_, unit), record)| (unit.clone(), record.clone()))
            .collect();
        for (unit, record) in assigned {
            let reached = match record.order {
                Order::Gone => Reached::Gone,
                Order::Loaded => Reached::Loaded,
                Order::Launched => Reached::Launched,
            };
            let known = self.states.get(&(unit.clone(), id.clone()));
            let same = known.is_some_and(|state| {
                // An order that is older than what was done is passed over.
                state.decision > record.decision
                    || state.decision == record.decision
                        && (state.reached == reached || state.reached == Reached::Refused)
            });
            if !same {
                self.report(&unit, id, reached, None);
            }
        }
        let gone: Vec<_> = self
            .states
            .iter()
            .filter(|((unit, machine), state)| {
                // What is here without an order is kept, and goes on being said.
                let is_here = matches!(state.reached, Reached::Loaded | Reached::Launched);
                let key = (id.clone(), unit.clone());
                machine == id && !is_here && !self.assignments.contains_key(&key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for (unit, machine) in gone {
            self.states.remove(&(unit.clone(), machine.clone()));
            self.tell(Fact::State(unit, machine, None));
        }
    }

    pub(crate) fn run_agents(&mut self) {
        for id in self.presences.keys().cloned().collect::<Vec<_>>() {
            self.run_agent(&id);
        }
    }

    /// Plans, and writes the plan to the records.
    pub(crate) fn plan(&mut self) -> Plan {
        let plan = self.cluster.plan(self.now());
        assert_eq!(self.cluster.roll, self.cluster.roll_of_all());
        self.write(&plan);
        plan
    }

    pub(crate) fn write(&mut self, plan: &Plan) {
        for change in &plan.changes {
            self.revision += 1;
            for write in &change.writes {
                match write.clone() {
                    Write::Placement(unit, Some(record)) => {
                        self.placements.insert(unit, record);
                    }
                    Write::Placement(unit, None) => {
                        self.placements.remove(&unit);
                    }
                    Write::Assignment(id, unit, Some(record)) => {
                        self.assignments.insert((id, unit), record);
                    }
                    Write::Assignment(id, unit, None) => {
                        self.assignments.remove(&(id, unit));
                    }
                    Write::DeleteUnit(unit, generation) => {
                        let removed = self.units.remove(&unit);
                        assert_eq!(removed.map(|(_, at)| at), Some(generation), "{unit}");
                    }
                    Write::Member(id, record) => {
                        self.members.insert(id, record);
                    }
                }
            }
        }
        self.cluster.observe(self.revision);
    }

    /// A cluster that a new leader makes of the records.
    pub(crate) fn restarted(&self, settings: Settings) -> Cluster {
        let mut cluster = Cluster::new(settings);
        cluster.observe(self.revision);
        for (name, (record, generation)) in &self.units {
            let wish = Wish::read(name, record, *generation).unwrap();
            cluster.apply(Fact::Unit(name.clone(), Some(wish)));
        }
        for (id, record) in &self.presences {
            cluster.apply(Fact::Presence(id.clone(), Some(record.clone())));
        }
        for (id, record) in &self.members {
            cluster.apply(Fact::Member(id.clone(), Some(record.clone())));
        }
        for (id, wish) in &self.wishes {
            cluster.apply(Fact::MachineWish(id.clone(), Some(wish.clone())));
        }
        for (name, record) in &self.placements {
            cluster.apply(Fact::Placement(name.clone(), Some(record.clone())));
        }
        for ((id, name), record) in &self.assignments {
            let assigned = Some(Assigned::from(record));
            cluster.apply(Fact::Assignment(id.clone(), name.clone(), assigned));
        }
        for ((name, id), record) in &self.states {
            let reported = Some(Reported::from(record));
            cluster.apply(Fact::State(name.clone(), id.clone(), reported));
        }
        cluster
    }
}

/// A wish with these lines in its `[X-Fleet]` section; those that begin with `+` are of its
/// `[Service]` section.
pub(crate) fn unit_record(desired: DesiredState, lines: &[&str]) -> UnitRecord {
    let mut text = String::from("[Service]\nExecStart=/bin/true\n");
    let (service, lines): (Vec<&str>, Vec<&str>) =
        lines.iter().partition(|line| line.starts_with('+'));
    for line in service {
        text.push_str(&line[1..]);
        text.push('\n');
    }
    if !lines.is_empty() {
        text.push_str("\n[X-Fleet]\n");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
    }
    UnitRecord {
        hash: UnitHash::of(text.as_bytes()),
        text: Arc::from(text),
        desired,
        restarts: 0,
        prefer: None,
        request_id: String::new(),
        earlier_requests: Vec::new(),
        buried: false,
        changed_by: String::new(),
        changed_ms: 0,
    }
}

pub(crate) fn name(text: &str) -> UnitName {
    UnitName::parse(text).unwrap()
}

/// Runs a script, one step a line; returns what each `plan`, `agents` and `wait` wrote.
pub(crate) fn run(script: &str) -> String {
    run_showing(script, show)
}

/// As [`run`]; returns the events.
pub(crate) fn tell(script: &str) -> String {
    run_showing(script, show_events)
}

fn run_showing(script: &str, show: fn(&Plan, &mut String)) -> String {
    let settings = Settings {
        lost_after_ms: 5_000,
        ..Settings::default()
    };
    let mut model = Model {
        cluster: Cluster::new(settings),
        ..Model::default()
    };
    let mut out = String::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let words: Vec<_> = line.split_whitespace().collect();
        let (verb, rest) = (words[0], &words[1..]);
        let id = || MachineId::new(rest[0]);
        let pairs = |words: &[&str]| -> BTreeMap<String, String> {
            let pair = |word: &&str| {
                let (key, value) = word.split_once('=').unwrap();
                (key.to_owned(), value.to_owned())
            };
            words.iter().map(pair).collect()
        };
        let plans = match verb {
            "machine" => {
                let record = MachineRecord {
                    metadata: pairs(&rest[1..]),
                    ..MachineRecord::default()
                };
                model.set_presence(&id(), Some(record));
                false
            }
            "unit" => {
                let desired = DesiredState::parse(rest[1]).unwrap();
                let (prefer, lines) = match rest.get(2).and_then(|word| word.strip_prefix('@')) {
                    Some(id) => (Some(MachineId::new(id)), &rest[3..]),
                    None => (None, &rest[2..]),
                };
                let record = UnitRecord {
                    prefer,
                    ..unit_record(desired, lines)
                };
                model.set_unit(&name(rest[0]), record);
                false
            }
            "stray" => {
                let generation = rest[2].parse().unwrap();
                model.stray(&name(rest[0]), &MachineId::new(rest[1]), generation);
                false
            }
            "want" => {
                model.set_desired(&name(rest[0]), DesiredState::parse(rest[1]).unwrap());
                false
            }
            "cut" => {
                model.set_presence(&id(), None);
                false
            }
            "doubt" => {
                let record = MachineRecord {
                    remark: Some("it does not believe this store".to_owned()),
                    ..MachineRecord::default()
                };
                model.set_presence(&id(), Some(record));
                false
            }
            "shut-down" => {
                let record = MachineRecord {
                    trouble: Some(MachineRecord::SHUTTING_DOWN.to_owned()),
                    ..MachineRecord::default()
                };
                model.set_presence(&id(), Some(record));
                false
            }
            "leave" => {
                let record = MachineRecord {
                    trouble: Some(MachineRecord::STOPPED_IN_ORDER.to_owned()),
                    ..MachineRecord::default()
                };
                model.set_presence(&id(), Some(record));
                false
            }
            "stop" => {
                let record = MachineRecord {
                    trouble: Some(MachineRecord::STOPPED_IN_ORDER.to_owned()),
                    ..MachineRecord::default()
                };
                model.set_presence(&id(), Some(record));
                model.set_presence(&id(), None);
                false
            }
            "trouble" => {
                let record = MachineRecord {
                    trouble: Some(rest[1..].join(" ")),
                    ..MachineRecord::default()
                };
                model.set_presence(&id(), Some(record));
                false
            }
            "drain" | "cordon" | "open" => {
                let known = model.cluster.machines.get(&id());
                let opened = known.map_or(0, |machine| {
                    machine.wish.opened + u64::from(verb == "open" && machine.avoided.is_some())
                });
                let wish = MachineWish {
                    opened,
                    drain: verb == "drain",
                    cordon: verb == "cordon",
                    max_parallel: rest.get(1).map_or(0, |n| n.parse().unwrap()),
                    ..MachineWish::default()
                };
                model.set_wish(&id(), wish);
                false
            }
            "patch" => {
                let wish = MachineWish {
                    metadata: pairs(&rest[1..]),
                    ..MachineWish::default()
                };
                model.set_wish(&id(), wish);
                false
            }
            "refuse" => {
                let why = rest[2..].join(" ");
                let id = MachineId::new(rest[1]);
                model.report(&name(rest[0]), &id, Reached::Refused, Some(&why));
                false
            }
            "fail" => {
                let why = rest[2..].join(" ");
                model.fail(&name(rest[0]), &MachineId::new(rest[1]), &why);
                false
            }
            "starting" => {
                let id = MachineId::new(rest[1]);
                model.report(&name(rest[0]), &id, Reached::Working, None);
                false
            }
            "well" => {
                let id = MachineId::new(rest[1]);
                model.report(&name(rest[0]), &id, Reached::Launched, None);
                false
            }
            "leased" => {
                let (unit, id) = (name(rest[0]), MachineId::new(rest[1]));
                model.report_leased(&unit, &id, rest.get(2).map(|ms| ms.parse().unwrap()));
                false
            }
            "restarting" => {
                let (unit, id) = (name(rest[0]), MachineId::new(rest[1]));
                model.report_as(&unit, &id, Reached::Launched, "activating", None);
                false
            }
            "thaw" => {
                model.cluster.thaw();
                false
            }
            "damage" => {
                let place = Fact::Unit(name(rest[0]), None).place();
                model.tell(Fact::Damaged(place));
                false
            }
            "lose-wish" => {
                model.units.remove(&name(rest[0]));
                model.tell(Fact::Unit(name(rest[0]), None));
                false
            }
            "lose-assignment" => {
                let key = (MachineId::new(rest[0]), name(rest[1]));
                model.assignments.remove(&key);
                model.tell(Fact::Assignment(key.0, key.1, None));
                false
            }
            "wait" => {
                model.now_ms += match rest[0].strip_suffix("ms") {
                    Some(ms) => ms.parse().unwrap(),
                    None => rest[0].trim_end_matches('s').parse::<u64>().unwrap() * 1000,
                };
                true
            }
            "agent" => {
                model.run_agent(&id());
                true
            }
            "agents" => {
                model.run_agents();
                true
            }
            "leader" => {
                let settings = model.cluster.settings.clone();
                model.cluster = model.restarted(settings);
                true
            }
            "plan" => true,
            _ => panic!("what is {line:?}?"),
        };
        if plans {
            let plan = model.plan();
            writeln!(out, "{line}:").unwrap();
            show(&plan, &mut out);
            assert_sound(&mut model);
        }
    }
    out
}

/// What must hold after every plan: nothing is violated, and nothing is left to do.
#[track_caller]
pub(crate) fn assert_sound(model: &mut Model) {
    let violations = check(&model.cluster);
    assert!(
        violations.is_empty(),
        "{violations:?}\n{:#?}",
        model.placements
    );
    let again = model.cluster.plan(model.now());
    assert!(again.changes.is_empty(), "planned again: {again:#?}");
}

fn show_events(plan: &Plan, out: &mut String) {
    for event in plan.changes.iter().flat_map(|change| &change.events) {
        let unit = event.unit.as_ref().map(|unit| format!(" {unit}"));
        let machine = event.machine.as_ref().map(|id| format!(" on {id}"));
        let from = event.from.as_ref().map(|id| format!(" from {id}"));
        let about = [unit, from, machine].into_iter().flatten();
        let about: String = about.collect();
        let kind = event.kind.as_str();
        writeln!(out, "  {kind}{about}: {}", event.why).unwrap();
    }
}

fn show(plan: &Plan, out: &mut String) {
    for change in &plan.changes {
        let mut orders = Vec::new();
        let mut placed = String::new();
        for write in &change.writes {
            match write {
                Write::Assignment(id, _, Some(record)) => {
                    orders.push(format!("{}@{id}", record.order.as_str()));
                }
                Write::Assignment(id, _, None) => orders.push(format!("-@{id}")),
                Write::DeleteUnit(..) => orders.push("tombstone removed".to_owned()),
                Write::Placement(_, None) => orders.push("placement removed".to_owned()),
                Write::Placement(_, Some(record)) => {
                    placed = match (&record.machine, &record.leaving) {
                        (Some(id), None) => format!("on {id}: "),
                        (Some(id), Some(from)) => format!("on {id}, leaving {from}: "),
                        (None, Some(from)) => format!("leaving {from}: "),
                        (None, None) if record.assigned > 0 => {
                            format!("on {} of {}: ", record.assigned, record.considered)
                        }
                        (None, None) => "pending: ".to_owned(),
                    };
                    for refusal in &record.refusals {
                        orders.push(format!("{}×{}", refusal.machines, refusal.requirement));
                    }
                }
                Write::Member(..) => {}
            }
        }
        let subject = match &change.subject {
            Subject::Unit(unit) => unit.to_string(),
            Subject::Machine(id) => format!("machine {id}"),
        };
        let orders = match orders.is_empty() {
            true => String::new(),
            false => format!(" [{}]", orders.join(", ")),
        };
        writeln!(out, "  {subject} {placed}{}{orders}", change.reason).unwrap();
    }
}
