//! What the loop does with its store, its presence and systemd.

use super::*;

mod rig;

use rig::Rig;

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
    rig.until_said("once.service", Reached::Working).await;
    let why = rig.state("once.service").await.unwrap().why.unwrap();
    assert!(why.contains("fleetctl accept-store"), "{why}");
    assert_eq!(rig.tasks("once.service"), Vec::<&str>::new());

    rig.put(keys::ACCEPT_STORE.to_owned(), Vec::new()).await;
    rig.until("it is started by itself", || {
        rig.tasks("once.service") == ["load", "start"]
    })
    .await;
    assert_eq!(rig.remark(), None);
}
