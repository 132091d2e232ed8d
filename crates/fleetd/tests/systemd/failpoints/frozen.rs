//! Too many machines have vanished at once, and somebody says that they are to be given up.

use std::collections::{BTreeMap, VecDeque};

use fleet_api::v2::MachineListing;
use fleet_core::records::{MemberRecord, MemberStatus};
use fleetd::store::codec::Document;
use fleetd::store::embedded::EmbeddedStore;
use fleetd::store::{Op, Store, Txn, keys};

use super::{Manager, STEADY, Walk, reached};
use crate::rig::run;

const GHOSTS: [&str; 2] = [
    "11111111111111111111111111111111",
    "22222222222222222222222222222222",
];

/// Machines that were there when the last leader looked, and are not any more.
async fn leave_ghosts(manager: &Manager) {
    let store = EmbeddedStore::open(manager.path("state/fleet/store.redb")).unwrap();
    let ghost = |id: &&str| {
        let record = MemberRecord {
            status: MemberStatus::Present,
            since_ms: 1,
            first_seen_ms: 1,
            public_ip: "192.0.2.1".to_owned(),
            metadata: BTreeMap::new(),
            reason: "it joined".to_owned(),
            avoided: None,
        };
        Op::Put {
            key: keys::member(id),
            value: record.encode(),
            lease: None,
        }
    };
    let txn = Txn {
        ops: GHOSTS.iter().map(ghost).collect(),
        ..Txn::default()
    };
    store.commit(txn).await.unwrap();
}

/// Until as many machines as there are ghosts are as they should be.
async fn all_ghosts(walk: &mut Walk<'_>, what: &str, are: impl Fn(&str, bool) -> bool) {
    let is_well = |listing: &MachineListing| {
        let machines = listing.machines.iter();
        let so = machines
            .filter(|machine| GHOSTS.contains(&machine.id.as_str()))
            .filter(|machine| are(&machine.status, machine.frozen))
            .count();
        match so == GHOSTS.len() {
            true => Ok(()),
            false => Err(format!("{listing:?}")),
        }
    };
    walk.ask(what, async |c| c.machine_views().await, is_well)
        .await;
}

#[test]
fn a_crash_while_frozen_machines_are_given_up_loses_no_word_of_it() {
    run(async {
        let manager = Manager::boot();
        reached(&manager).await;
        let mut walk = Walk::begin(&manager, VecDeque::new());
        walk.launch("steady.service", STEADY, "launched").await;
        let invocation = manager.show("steady.service", "InvocationID");
        for mode in ["crash-before", "crash-after"] {
            assert!(walk.stop().await);
            leave_ghosts(&manager).await;
            walk.queue.push_back(("store.commit.thaw".to_owned(), mode));
            walk.next();
            all_ghosts(&mut walk, "frozen", |_, frozen| frozen).await;
            walk.ask("thaw", async |c| c.thaw().await, |_| Ok(())).await;
            all_ghosts(&mut walk, "given up", |status, _| status == "lost").await;
            assert_eq!(manager.show("steady.service", "InvocationID"), invocation);
        }
        assert_eq!(walk.n_crashes, 2);
    });
}
