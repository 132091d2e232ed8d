//! Machines in v2: who there is, and what is asked of them.

use std::collections::{BTreeMap, BTreeSet};

use fleet_api::v2::{
    BASE, MachineChange, MachineListing, MachineUnit, MachineUnitListing, MachineView,
};
use fleet_core::events;
use fleet_core::records::{
    AssignmentRecord, Avoided, MachineId, MachineRecord, MachineWish, MemberRecord, MemberStatus,
};

use hyper::StatusCode;

use super::{json, refusals};
use crate::access::{Object, Verb};
use crate::api::Api;
use crate::api::failure::Failure;
use crate::api::read::{Reading, machine_status};
use crate::api::request::{Answer, Call, MAX_V2_BODY, Reply, RequestBody};
use crate::clock;
use crate::store::codec::Document;
use crate::store::keys::{self, Key};
use crate::store::{self, AskedRecord, Compare, Op, Revision, Txn};

/// Others may change the same machine at the same time so often; then the client is told.
const MAX_ATTEMPTS: usize = 8;

pub(super) async fn list(state: &Api, call: &Call) -> Answer {
    let mut reading = Reading::new(&*state.store);
    let members = Members::read(&mut reading, None).await?;
    let wishes = reading.range(keys::MACHINE_WISHES, None).await?;
    let mut wished: BTreeMap<String, MachineWish> = BTreeMap::new();
    for entry in &wishes.entries {
        if let Key::MachineWish(id) = keys::parse(&entry.key)
            && let Some(wish) = reading.decode(entry)
        {
            wished.insert(id.to_owned(), wish);
        }
    }
    let ids: BTreeSet<&String> = members.present.keys().chain(members.known.keys()).collect();
    let machines = ids
        .into_iter()
        .map(|id| members.view(id, wished.get(id)))
        .filter(|view| {
            let machine = Object::Machine(&view.id, &view.metadata);
            call.permit.shows(Verb::MachineRead, machine)
        })
        .collect();
    Ok(Reply::json(&MachineListing { machines }).with_warnings(reading.into_warnings()))
}

pub(super) async fn get(state: &Api, call: &Call, id: &str) -> Answer {
    let mut reading = Reading::new(&*state.store);
    let members = Members::read(&mut reading, None).await?;
    if !members.knows(id) {
        return Err(unknown(id));
    }
    let wish = match reading.key(keys::machine_wish(id)).await? {
        Some(entry) => reading.decode(&entry),
        None => None,
    };
    let view = members.view(id, wish.as_ref());
    let machine = Object::Machine(id, &view.metadata);
    call.permit.check(Verb::MachineRead, machine)?;
    Ok(Reply::json(&view).with_warnings(reading.into_warnings()))
}

/// Changes what is asked of a machine. It may be asked twice.
pub(super) async fn change(state: &Api, call: &Call, id: &str, body: &mut RequestBody) -> Answer {
    let change: MachineChange = json(&body.read(MAX_V2_BODY).await?)?;
    let mut last = store::Error::Conflict;
    for _ in 0..MAX_ATTEMPTS {
        let mut reading = Reading::new(&*state.store);
        let members = Members::read(&mut reading, None).await?;
        if !members.knows(id) {
            return Err(unknown(id));
        }
        let key = keys::machine_wish(id);
        let entry = reading.key(key.clone()).await?;
        let before = match &entry {
            Some(entry) => MachineWish::decode(&entry.key, &entry.value)?,
            None => MachineWish::default(),
        };
        let metadata = members.view(id, Some(&before)).metadata;
        let machine = Object::Machine(id, &metadata);
        call.permit.check(Verb::MachineDrain, machine)?;
        let wish = changed(&before, &change, members.avoided(id));
        if wish == before {
            return Ok(Reply::json(&members.view(id, Some(&wish))));
        }
        let value = match &entry {
            Some(entry) => wish.encode_over(&entry.value),
            None => wish.encode(),
        };
        let txn = Txn {
            compares: vec![match &entry {
                Some(entry) => Compare::ModRevision(key.clone(), entry.mod_revision),
                None => Compare::Absent(key.clone()),
            }],
            ops: vec![Op::Put {
                key,
                value,
                lease: None,
            }],
        };
        let told = events::of_machine_wish(&MachineId::new(id), &before, &wish);
        match state.commit(txn, &call.permit.who(), vec![told]).await {
            Ok(_) => return Ok(Reply::json(&members.view(id, Some(&wish)))),
            Err(error @ (store::Error::Conflict | store::Error::OutcomeUnknown(_))) => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.into())
}

fn changed(before: &MachineWish, change: &MachineChange, avoided: Option<&Avoided>) -> MachineWish {
    // Asked twice, it counts once.
    let opens = change.cordoned == Some(false)
        && avoided.is_some_and(|avoided| avoided.opened == before.opened);
    let drain = change.draining.unwrap_or(before.drain);
    MachineWish {
        cordon: change.cordoned.unwrap_or(before.cordon),
        drain,
        max_parallel: match drain {
            true => change.max_parallel.unwrap_or(before.max_parallel),
            // It belongs to the drain.
            false => 0,
        },
        opened: before.opened + u64::from(opens),
        ..before.clone()
    }
}

pub(super) async fn units(state: &Api, call: &Call, id: &str) -> Answer {
    let mut reading = Reading::new(&*state.store);
    let members = Members::read(&mut reading, None).await?;
    if !members.knows(id) {
        return Err(unknown(id));
    }
    if !call.permit.allows_all(Verb::MachineRead) {
        let wish = reading.key(keys::machine_wish(id)).await?;
        let wish = wish.and_then(|entry| reading.decode(&entry));
        let metadata = members.view(id, wish.as_ref()).metadata;
        let machine = Object::Machine(id, &metadata);
        call.permit.check(Verb::MachineRead, machine)?;
    }
    let snapshot = reading.range(&keys::assignments_of(id), None).await?;
    let mut assigned: BTreeMap<String, AssignmentRecord> = BTreeMap::new();
    for entry in &snapshot.entries {
        if let Key::Assignment(_, unit) = keys::parse(&entry.key)
            && call.permit.shows(Verb::UnitRead, Object::Unit(unit))
            && let Some(record) = reading.decode(entry)
        {
            assigned.insert(unit.to_owned(), record);
        }
    }
    let mut placements = reading
        .placements(assigned.keys().map(String::as_str))
        .await?;
    let units = assigned
        .into_iter()
        .map(|(name, record)| {
            let placement = placements.remove(&name);
            // An ordinary unit that is here is placed here, or is leaving.
            let global = placement
                .as_ref()
                .is_some_and(|p| p.machine.is_none() && p.leaving.is_none());
            let placement = placement.filter(|_| !global);
            MachineUnit {
                name,
                order: record.order.as_str().to_owned(),
                machine_id: placement
                    .as_ref()
                    .and_then(|p| p.machine.as_ref())
                    .map(ToString::to_string),
                global,
                refusals: placement
                    .as_ref()
                    .map(|p| refusals(&p.refusals))
                    .unwrap_or_default(),
                reason: placement.map_or(record.reason, |p| p.reason),
            }
        })
        .collect();
    Ok(Reply::json(&MachineUnitListing { units }).with_warnings(reading.into_warnings()))
}

/// Ends a freeze: the machines that are away are given up. Answers with them.
pub(super) async fn thaw(state: &Api, call: &Call) -> Answer {
    let mut reading = Reading::new(&*state.store);
    let members = Members::read(&mut reading, None).await?;
    let frozen = members
        .known
        .iter()
        .filter(|(id, member)| member.is_frozen() && !members.present.contains_key(*id));
    let machines: Vec<MachineView> = frozen.map(|(id, _)| members.view(id, None)).collect();
    if !machines.is_empty() {
        let ids = machines.iter().map(|machine| MachineId::new(&machine.id));
        let why = "the machines that are away are to be given up";
        ask(state, call, keys::THAW, ids.collect(), why).await?;
    }
    Ok(Reply::json(&MachineListing { machines }).with_warnings(reading.into_warnings()))
}

/// Machines that do not believe this store are told to.
pub(super) async fn accept_store(state: &Api, call: &Call) -> Answer {
    let why = "machines are to believe this store";
    ask(state, call, keys::ACCEPT_STORE, Vec::new(), why).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

/// Writes down that somebody asks for something, who, and when.
async fn ask(
    state: &Api,
    call: &Call,
    key: &str,
    machines: Vec<MachineId>,
    why: &str,
) -> Result<(), Failure> {
    let record = AskedRecord {
        by: call.permit.who(),
        at_ms: clock::unix_ms(),
        machines,
    };
    let txn = Txn {
        ops: vec![Op::Put {
            key: key.to_owned(),
            value: record.encode(),
            lease: None,
        }],
        ..Txn::default()
    };
    let told = vec![events::of_cluster_wish(why)];
    state.commit(txn, &call.permit.who(), told).await?;
    Ok(())
}

fn unknown(id: &str) -> Failure {
    Failure::new(
        404,
        format!("machine {id} is not known: GET {BASE}/machines lists those that are"),
    )
}

/// The machines: who is present, and who has ever been.
pub(crate) struct Members {
    present: BTreeMap<String, MachineRecord>,
    known: BTreeMap<String, MemberRecord>,
}

impl Members {
    pub(super) async fn read(
        reading: &mut Reading<'_>,
        revision: Option<Revision>,
    ) -> Result<Members, store::Error> {
        let machines = reading.range(keys::MACHINES, revision).await?;
        let known = reading.range(keys::MEMBERS, revision).await?;
        let mut members = Members {
            present: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        for entry in &machines.entries {
            if let Key::Machine(id) = keys::parse(&entry.key)
                && let Some(record) = reading.decode(entry)
            {
                members.present.insert(id.to_owned(), record);
            }
        }
        for entry in &known.entries {
            if let Key::Member(id) = keys::parse(&entry.key)
                && let Some(record) = reading.decode(entry)
            {
                members.known.insert(id.to_owned(), record);
            }
        }
        Ok(members)
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.present.contains_key(id) || self.known.contains_key(id)
    }

    fn avoided(&self, id: &str) -> Option<&Avoided> {
        self.known.get(id)?.avoided.as_ref()
    }

    pub(super) fn status(&self, id: &str) -> MemberStatus {
        let known = self.known.get(id).map(|member| member.status);
        machine_status(self.present.contains_key(id), known)
    }

    pub(super) fn view(&self, id: &str, wish: Option<&MachineWish>) -> MachineView {
        let present = self.present.get(id);
        let known = self.known.get(id);
        let own = present
            .map(|record| &record.metadata)
            .or(known.map(|member| &member.metadata));
        let nothing = BTreeMap::new();
        let own = own.unwrap_or(&nothing);
        let trouble =
            present.and_then(|record| record.trouble.clone().or_else(|| record.remark.clone()));
        let reason = match (present, known) {
            (None, Some(known)) if known.status == self.status(id) => known.reason.clone(),
            _ => String::new(),
        };
        let asked = wish.cloned().unwrap_or_default();
        MachineView {
            id: id.to_owned(),
            primary_ip: present
                .map(|record| record.public_ip.clone())
                .or(known.map(|member| member.public_ip.clone()))
                .unwrap_or_default(),
            metadata: match wish {
                Some(wish) => wish.merged(own),
                None => own.clone(),
            },
            status: self.status(id).as_str().to_owned(),
            reason,
            since_ms: known
                .filter(|known| known.status == self.status(id))
                .map_or(0, |known| known.since_ms),
            first_seen_ms: known.map_or(0, |known| known.first_seen_ms),
            frozen: present.is_none() && known.is_some_and(MemberRecord::is_frozen),
            trouble,
            avoided: self
                .avoided(id)
                .filter(|avoided| avoided.opened == asked.opened)
                .map(|avoided| avoided.why.clone()),
            cordoned: asked.cordon || asked.drain,
            draining: asked.drain,
            max_parallel: asked.max_parallel,
            version: present
                .map(|record| record.version.clone())
                .unwrap_or_default(),
        }
    }
}
