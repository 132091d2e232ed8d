//! What the loop does with its store, its presence and systemd.

use super::*;

mod rig;

use fleet_core::agent::Working;

use crate::access::trust::tests::{public_key, sign};
use crate::store::memory::MemoryStore;
use crate::store::{LeaseId, RESUME_WITHIN};
use rig::{MACHINE, Rig, decision, running};

const TEXT: &str = "[Service]\nExecStart=/bin/a\n";
const EXCLUSIVE: &str = "[Service]\nExecStart=/bin/a\n[X-Fleet]\nExclusive=yes\n";

/// While a machine was given up, its units may have gone elsewhere: what it read before starts
/// nothing, also when the watch could go on from where it broke.
#[tokio::test(start_paused = true)]
async fn what_was_read_before_the_machine_was_registered_anew_starts_nothing() {
    let rig = Rig::new().await;
    rig.doubt_presence();
    rig.assign("a.service", Order::Launched, 1, EXCLUSIVE).await;
    rig.until_wanted("a.service", "launched").await;
    assert!(rig.tasks("a.service").is_empty());

    rig.lose_store().await;
    rig.assign("a.service", Order::Gone, 2, "").await;
    rig.register().await;
    rig.bring_store_back();
    rig.until_said("a.service", Reached::Gone).await;
    assert_eq!(rig.tasks("a.service"), Vec::<&str>::new());

    // A break of the store alone does not keep it from its work.
    rig.lose_store().await;
    rig.assign("b.service", Order::Launched, 3, TEXT).await;
    rig.bring_store_back();
    rig.until("it is started", || {
        rig.tasks("b.service").contains(&"start")
    })
    .await;
}

/// A machine that was out of sight for long asks for no history: it reads what is its own, by which it learns
/// all that it has missed, and watches from there. After a short while its watch goes on.
#[tokio::test(start_paused = true)]
async fn a_machine_that_was_away_for_long_reads_what_is_its_own_instead_of_the_history() {
    for (revisions, reads) in [(10, false), (RESUME_WITHIN + 10, true)] {
        let rig = Rig::new().await;
        for unit in ["kept.service", "removed.service", "gone.service"] {
            rig.run(unit, 1, TEXT).await;
            rig.until_said(unit, Reached::Launched).await;
        }
        let seen = rig.inner().read_keys(&[]).await.unwrap().revision;
        rig.lose_store().await;
        rig.assign("gone.service", Order::Gone, 2, "").await;
        rig.assign("new.service", Order::Launched, 2, TEXT).await;
        // Absence is no order, also when it is found by comparing.
        rig.remove(keys::assignment(MACHINE, "removed.service"))
            .await;
        let mut newest = 0;
        for _ in 0..revisions {
            newest = rig.put("units/other.service".to_owned(), Vec::new()).await;
        }
        rig.bring_store_back();
        rig.until("what it has missed is done", || {
            rig.tasks("new.service").contains(&"start") && rig.tasks("gone.service") == ["stop"]
        })
        .await;
        let after = rig.watched_after();
        assert_eq!(after >= newest, reads, "watched after {after} of {newest}");
        assert_eq!(after < newest, after <= seen + 1, "{after}, {seen}");
        for unit in ["kept.service", "removed.service"] {
            assert_eq!(rig.tasks(unit), Vec::<&str>::new(), "{unit} runs on");
        }
        // Nothing is missed after that either.
        rig.assign("late.service", Order::Launched, 3, TEXT).await;
        rig.until("what comes next is done", || {
            rig.tasks("late.service").contains(&"start")
        })
        .await;
    }
}

/// Who has a unit and is shown another cluster's store, or an older copy of its own, starts
/// nothing on its word that may run elsewhere and must not run twice.
#[tokio::test(start_paused = true)]
async fn a_machine_in_doubt_starts_exclusive_units_only_when_its_store_is_believed() {
    let rig = Rig::new().await;
    rig.run("mine.service", 1, TEXT).await;
    rig.until_said("mine.service", Reached::Launched).await;

    rig.lose_store().await;
    rig.name_cluster("b").await;
    rig.bring_store_back();
    rig.until("it doubts the store", || rig.remark().is_some())
        .await;
    rig.assign("a.service", Order::Launched, 2, TEXT).await;
    rig.assign("once.service", Order::Launched, 2, EXCLUSIVE)
        .await;
    rig.until("the other one is started", || {
        rig.tasks("a.service").contains(&"start")
    })
    .await;
    // Garbage is nobody's word.
    rig.put(keys::ACCEPT_STORE.to_owned(), Vec::new()).await;
    rig.until_said("once.service", Reached::Working).await;
    tokio::time::sleep(WORD_EVERY * 2).await;
    let why = rig.state("once.service").await.unwrap().why.unwrap();
    assert!(why.contains("fleetctl accept-store"), "{why}");
    assert_eq!(rig.tasks("once.service"), Vec::<&str>::new());

    rig.accept_store().await;
    rig.until("it is started by itself", || {
        rig.tasks("once.service") == ["load", "start"]
    })
    .await;
    assert_eq!(rig.remark(), None);
}

/// A start without an end keeps nobody from believing a store. When it is over, also if fleetd has died
/// meanwhile, what the store says of the unit counts.
#[tokio::test(start_paused = true)]
async fn a_start_without_an_end_does_not_keep_a_machine_from_believing_its_store() {
    for dies in [false, true] {
        let mut rig = Rig::new().await;
        rig.run("mine.service", 1, TEXT).await;
        rig.until_said("mine.service", Reached::Launched).await;
        let mut hanging = running(900, TEXT);
        hanging.working = Some(Working::Starting);
        rig.is_here("hangs.service", hanging.clone());
        rig.lose_store().await;
        rig.name_cluster("b").await;
        rig.assign("hangs.service", Order::Launched, 2, TEXT).await;
        rig.bring_store_back();
        rig.until("it doubts the store", || rig.remark().is_some())
            .await;

        let said = Instant::now();
        rig.accept_store().await;
        rig.until("it believes the store", || rig.remark().is_none())
            .await;
        assert!(said.elapsed() < WORD_EVERY + Duration::from_secs(2));
        rig.assign("other.service", Order::Launched, 3, TEXT).await;
        rig.until("all else goes on", || {
            rig.tasks("other.service").contains(&"start")
        })
        .await;
        assert_eq!(rig.done("hangs.service"), Some(decision(900)));
        assert!(rig.remembered().contains("above=yes"));

        if dies {
            rig.kill().await;
        }
        rig.is_here("hangs.service", running(900, TEXT));
        if dies {
            rig.begin();
        }
        rig.until("what the store says of it counts", || {
            rig.done("hangs.service") == Some(decision(2))
        })
        .await;
        rig.until("nothing is left", || !rig.remembered().contains("above"))
            .await;
    }
}

/// An older copy of the store has come further than this machine while that was out of sight. It is
/// known by the machine's mark; nothing is written there, and nothing stopped, until it is believed.
#[tokio::test(start_paused = true)]
async fn an_older_copy_that_has_been_written_on_is_known_by_its_mark() {
    let mut rig = Rig::new().await;
    rig.run("a.service", 1, TEXT).await;
    rig.until_said("a.service", Reached::Launched).await;
    let copy = rig.inner().copy(LeaseId(900));
    let mark = rig.entry(keys::mark(MACHINE)).await.unwrap();
    assert!(mark.value.is_empty());

    rig.run("b.service", 2, TEXT).await;
    rig.until_said("b.service", Reached::Launched).await;
    rig.kill().await;
    let newest = rig.inner().read_keys(&[]).await.unwrap().revision;
    rig.exchange(copy);
    // Others write on; what is ordered to go was asked for before this machine is back.
    let mut revision = 0;
    while revision <= newest {
        revision = rig.put("units/other.service".to_owned(), Vec::new()).await;
    }
    rig.assign("b.service", Order::Gone, revision, "").await;
    rig.begin();
    rig.until("it doubts the store", || rig.remark().is_some())
        .await;
    rig.assign("c.service", Order::Launched, revision + 1, TEXT)
        .await;
    rig.until_said("b.service", Reached::Working).await;
    rig.until("others are started", || {
        rig.tasks("c.service").contains(&"start")
    })
    .await;
    assert_eq!(rig.tasks("b.service"), Vec::<&str>::new());
    assert_eq!(
        rig.entry(keys::mark(MACHINE)).await,
        Some(mark),
        "a mark would make it the right one"
    );

    rig.accept_store().await;
    rig.until("it is told to go", || rig.tasks("b.service") == ["stop"])
        .await;
    // It is this machine's store from now on.
    rig.run("d.service", revision + 2, TEXT).await;
    rig.until_said("d.service", Reached::Launched).await;
    rig.kill().await;
    rig.begin();
    rig.run("e.service", revision + 3, TEXT).await;
    rig.until_said("e.service", Reached::Launched).await;
    assert_eq!(rig.remark(), None);
}

/// The machine has heard of no mark since it did what the older copy knows nothing of: it may have been
/// left, or not. The copy has an order below what was done, and no right store has.
#[tokio::test(start_paused = true)]
async fn an_older_copy_that_has_been_written_on_is_known_by_its_orders_where_no_mark_tells() {
    let mut rig = Rig::new().await;
    rig.run("a.service", 1, "old").await;
    rig.until_said("a.service", Reached::Launched).await;
    let copy = rig.inner().copy(LeaseId(900));
    let newest = rig.inner().read_keys(&[]).await.unwrap().revision;

    rig.kill().await;
    // It was given other contents, and fleetd died before it could say so.
    rig.is_here("a.service", running(2, "new"));
    rig.exchange(copy);
    while rig.put("units/other.service".to_owned(), Vec::new()).await <= newest {}
    for _ in 0..2 {
        rig.begin();
        rig.until("it doubts the store", || rig.remark().is_some())
            .await;
        rig.kill().await;
    }
    assert_eq!(rig.tasks("a.service"), Vec::<&str>::new());

    rig.begin();
    rig.until("it doubts the store", || rig.remark().is_some())
        .await;
    rig.accept_store().await;
    rig.until("it is as the store has it", || {
        rig.tasks("a.service").contains(&"stop")
    })
    .await;
    assert_eq!(rig.tasks("a.service")[0], "remember");
}

/// A store that takes the place of another one within a moment is not written to, as if it were that.
#[tokio::test(start_paused = true)]
async fn what_was_meant_for_one_store_is_not_written_to_an_older_copy_of_it() {
    let rig = Rig::new().await;
    rig.run("a.service", 1, TEXT).await;
    rig.until_said("a.service", Reached::Launched).await;
    let copy = rig.inner().copy(LeaseId(900));
    rig.run("b.service", 2, TEXT).await;
    rig.until_said("b.service", Reached::Launched).await;
    // No watch breaks; presence stands in the copy as it did.
    rig.exchange(copy);
    let mut failed = running(2, TEXT);
    failed.active = "failed".to_owned();
    rig.is_here("b.service", failed);
    rig.until_renewed().await;
    assert_eq!(rig.state("b.service").await, None);
    rig.register().await;
    rig.until("it doubts the store", || rig.remark().is_some())
        .await;
}

/// Another store starts what is down, and numbers it as it likes. When the right one is back its orders
/// count again, and what is as it has it is not touched.
#[tokio::test(start_paused = true)]
async fn what_another_store_has_started_obeys_the_right_one_when_it_is_back() {
    for dies in [false, true] {
        let mut rig = Rig::new().await;
        rig.run("mine.service", 1, TEXT).await;
        let down = Observed {
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
            ..running(2, TEXT)
        };
        rig.is_here("down.service", down);
        rig.assign("down.service", Order::Launched, 2, TEXT).await;
        rig.until_said("down.service", Reached::Launched).await;

        rig.lose_store().await;
        let right = rig.inner();
        rig.exchange(MemoryStore::new());
        rig.name_cluster("b").await;
        rig.assign("down.service", Order::Launched, 900, TEXT).await;
        rig.register().await;
        rig.bring_store_back();
        rig.until("it is started", || rig.tasks("down.service") == ["start"])
            .await;
        rig.is_here("down.service", running(900, TEXT));

        rig.lose_store().await;
        if dies {
            rig.kill().await;
        }
        rig.exchange(right);
        rig.register().await;
        rig.bring_store_back();
        if dies {
            rig.begin();
        }
        rig.until("it is numbered as the right one has it", || {
            rig.done("down.service") == Some(decision(2))
        })
        .await;
        rig.until("nothing is left", || !rig.remembered().contains("above"))
            .await;
        assert_eq!(rig.tasks("down.service"), ["start", "remember"]);
        assert_eq!(rig.tasks("mine.service"), Vec::<&str>::new());
        rig.assign("down.service", Order::Loaded, 5, TEXT).await;
        rig.until("it obeys", || {
            rig.tasks("down.service").ends_with(&["stop"])
        })
        .await;
    }
}

/// Whoever has the store writes orders as he likes: what nobody with a key has signed starts nothing, and
/// what runs goes on running, signed or not.
#[tokio::test(start_paused = true)]
async fn a_tampered_order_starts_nothing_and_stops_nothing() {
    let rig = Rig::new().await;
    rig.trust_only(Trust::only(vec![public_key(1)]));
    let (mine, evil) = (
        sign(TEXT, "a.service", 1),
        TEXT.replace("/bin/a", "/bin/evil"),
    );
    // Runs from before signatures were demanded.
    rig.run("old.service", 1, TEXT).await;
    rig.until_said("old.service", Reached::Launched).await;
    rig.assign("a.service", Order::Launched, 1, &mine).await;
    rig.until("what is signed is started", || {
        rig.tasks("a.service").contains(&"start")
    })
    .await;
    rig.is_here("a.service", running(1, &mine));

    let tampered = mine.replace("/bin/a", "/bin/evil");
    for (unit, text) in [
        ("unsigned.service", evil.as_str()),
        ("tampered.service", &tampered),
        // Signed for another name.
        ("swapped.service", &mine),
        ("wrong-key.service", &sign(&evil, "wrong-key.service", 9)),
    ] {
        rig.assign(unit, Order::Launched, 2, text).await;
        rig.until_said(unit, Reached::Refused).await;
        assert_eq!(rig.tasks(unit), Vec::<&str>::new(), "{unit}");
        let why = rig.state(unit).await.and_then(|state| state.why).unwrap();
        assert!(why.contains("require_signed_units"), "{why}");
    }
    // Other contents for what runs: it is not stopped to make room for them.
    let before = rig.tasks("a.service");
    for unit in ["a.service", "old.service"] {
        rig.assign(unit, Order::Launched, 3, &tampered).await;
        rig.until_said(unit, Reached::Working).await;
        let why = rig.state(unit).await.and_then(|state| state.why).unwrap();
        assert!(why.contains("require_signed_units"), "{why}");
    }
    assert_eq!(rig.tasks("a.service"), before);
    assert_eq!(rig.tasks("old.service"), Vec::<&str>::new());
    // Orders are carried out all the same.
    rig.assign("old.service", Order::Gone, 4, "").await;
    rig.until("it is stopped on order", || {
        rig.tasks("old.service") == ["stop"]
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_started_when_its_key_is_trusted() {
    let rig = Rig::new().await;
    rig.trust_only(Trust::only(Vec::new()));
    let text = sign(TEXT, "a.service", 1);
    rig.assign("a.service", Order::Launched, 1, &text).await;
    rig.until_said("a.service", Reached::Refused).await;
    rig.trust_only(Trust::only(vec![public_key(1)]));
    rig.until("it is started", || {
        rig.tasks("a.service").contains(&"start")
    })
    .await;
}
