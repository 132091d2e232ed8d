use super::*;

fn nothing() -> std::iter::Empty<UnitName> {
    std::iter::empty()
}

/// Without any orders in the store.
fn judge(
    hold: &mut Hold,
    cluster: Option<&str>,
    revision: Revision,
    mark: Option<Revision>,
    here: impl Iterator<Item = UnitName>,
) {
    hold.judge(Found {
        cluster,
        revision,
        mark,
        orders: BTreeMap::new(),
        here: here.map(|unit| (unit, None)).collect(),
    });
}

#[test]
fn a_foreign_wiped_or_older_store_is_not_obeyed_and_the_right_one_is_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster");
    let mut hold = Hold::open(file.clone());
    judge(&mut hold, None, 3, None, nothing());
    assert!(
        !hold.is_holding(),
        "a machine that has seen no cluster has nothing to lose"
    );
    judge(&mut hold, Some("a"), 10, None, nothing());
    hold.acted_on(20);

    let mut hold = Hold::open(file);
    for (cluster, revision, holding) in [
        (Some("a"), 20, false),
        (Some("b"), 30, true),
        (Some("a"), 19, true),
        (None, 1, true),
        (Some("a"), 21, false),
    ] {
        judge(&mut hold, cluster, revision, None, nothing());
        assert_eq!(hold.is_holding(), holding, "{cluster:?} at {revision}");
    }
}

#[test]
fn what_cannot_be_read_is_not_taken_for_a_machine_that_has_seen_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster");
    std::fs::write(&file, "half a li").unwrap();
    let mut hold = Hold::open(file.clone());
    judge(&mut hold, Some("a"), 10, None, nothing());
    assert!(hold.is_holding());
    assert!(hold.accept(11, Some("a"), false));
    let mut hold = Hold::open(file);
    judge(&mut hold, Some("a"), 12, None, nothing());
    assert!(!hold.is_holding());
}

#[test]
fn another_store_is_believed_when_somebody_says_so_after_it_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster");
    let mut hold = Hold::open(file.clone());
    judge(&mut hold, Some("a"), 10, None, nothing());
    assert!(
        !hold.accept(11, Some("a"), false),
        "there is nothing to accept"
    );
    judge(&mut hold, Some("b"), 30, None, nothing());
    assert!(!hold.accept(31, None, false), "it could not be known again");
    assert!(
        !hold.accept(30, Some("b"), false),
        "that was said of an older copy"
    );
    assert!(hold.is_holding());
    assert!(hold.accept(31, Some("b"), false));
    assert!(!hold.is_holding());
    // It lasts, and the one before is a foreign one now.
    let mut hold = Hold::open(file);
    judge(&mut hold, Some("b"), 32, None, nothing());
    assert!(!hold.is_holding());
    judge(&mut hold, Some("a"), 40, None, nothing());
    assert!(hold.is_holding());
}

#[test]
fn what_a_store_that_is_not_believed_has_numbered_is_looked_for_when_the_right_one_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster");
    let mut hold = Hold::open(file.clone());
    judge(&mut hold, Some("a"), 10, None, nothing());
    assert!(!hold.leaves_above());
    judge(&mut hold, Some("b"), 900, None, nothing());
    assert!(
        !hold.leaves_above(),
        "not as long as the other one is there"
    );
    judge(&mut hold, Some("a"), 12, None, nothing());
    assert!(hold.leaves_above());
    // By the next fleetd, too, until it is done.
    let mut hold = Hold::open(file.clone());
    judge(&mut hold, Some("a"), 13, None, nothing());
    assert!(hold.leaves_above());
    hold.all_is_brought_down();
    let mut hold = Hold::open(file);
    judge(&mut hold, Some("a"), 14, None, nothing());
    assert!(!hold.leaves_above());
}

#[test]
fn what_a_store_that_is_not_believed_may_still_stop() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster");
    let unit = |name: &str| UnitName::parse(name).unwrap();
    let (ours, theirs) = (unit("ours.service"), unit("theirs.service"));
    let mut hold = Hold::open(file);
    judge(&mut hold, Some("a"), 50, None, nothing());
    hold.acted_on(60);
    assert!(!hold.protects(&ours, 1, 50));
    // An older copy: what was asked for since it is in view counts.
    judge(&mut hold, Some("a"), 20, None, [ours.clone()].into_iter());
    assert!(hold.protects(&ours, 20, 22) && !hold.protects(&ours, 21, 22));
    // No user has asked for what is numbered above the copy itself.
    assert!(hold.protects(&ours, 60, 22));
    assert!(!hold.protects(&theirs, 10, 22) && !hold.is_foreign());
    // It is read again, with a unit that was started on its word.
    judge(
        &mut hold,
        Some("a"),
        25,
        None,
        [ours.clone(), theirs.clone()].into_iter(),
    );
    assert!(!hold.protects(&ours, 21, 22) && !hold.protects(&theirs, 10, 22));
    // Somebody else's: they may ask for whatever they like.
    judge(&mut hold, Some("b"), 500, None, [ours.clone()].into_iter());
    assert!(hold.is_foreign() && hold.protects(&ours, 501, 502));
    assert!(!hold.protects(&theirs, 501, 502));
    judge(&mut hold, Some("a"), 60, None, nothing());
    assert!(!hold.protects(&ours, 1, 61));
}

#[test]
fn an_older_copy_is_known_by_its_mark_whatever_its_revision() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster");
    let unit = UnitName::parse("a.service").unwrap();
    let mut hold = Hold::open(file.clone());
    judge(&mut hold, Some("a"), 10, None, nothing());
    hold.marked(55);
    // It is remembered by the next fleetd, with the revision that it proves.
    for (revision, mark, holding) in [
        (100, Some(18), true),
        (100, Some(55), false),
        // The answer to the last write was lost.
        (100, Some(60), false),
        // It was copied before the first mark was left.
        (100, None, true),
        (54, Some(55), true),
        (54, None, true),
    ] {
        let mut hold = Hold::open(file.clone());
        judge(&mut hold, Some("a"), revision, mark, nothing());
        assert_eq!(hold.is_holding(), holding, "{mark:?} at {revision}");
    }
    let mut hold = Hold::open(file.clone());
    judge(
        &mut hold,
        Some("a"),
        100,
        Some(18),
        [unit.clone()].into_iter(),
    );
    // What users have asked for while it was out of sight is no word to this machine.
    assert!(hold.protects(&unit, 80, 90) && !hold.protects(&unit, 101, 102));
    // It is no right one when it is read again, further on.
    judge(
        &mut hold,
        Some("a"),
        120,
        Some(18),
        [unit.clone()].into_iter(),
    );
    assert!(hold.is_holding() && !hold.protects(&unit, 101, 102));
    hold.marked(121);
    judge(&mut hold, Some("a"), 122, Some(18), nothing());
    assert!(hold.is_holding(), "no mark is left in it");
    // Whoever accepted it did so after it was copied, as far as its mark tells when that was.
    assert!(!hold.is_meant(18) && hold.is_meant(30));
    assert!(hold.accept(30, Some("a"), false));
    let mut hold = Hold::open(file);
    judge(&mut hold, Some("a"), 130, Some(18), nothing());
    assert!(!hold.is_holding());
    hold.marked(131);
    judge(&mut hold, Some("a"), 140, Some(18), nothing());
    assert!(hold.is_holding());
}

#[test]
fn an_older_copy_is_known_by_an_order_below_what_was_done_though_no_mark_tells() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster");
    let unit = |name: &str| UnitName::parse(name).unwrap();
    let decision = |generation: u64| Decision {
        generation,
        seq: generation + 1,
    };
    let units = |all: &[(&str, u64)]| -> BTreeMap<UnitName, Decision> {
        let all = all.iter().copied();
        all.map(|(name, generation)| (unit(name), decision(generation)))
            .collect()
    };
    // The mark stands where it was left for certain, whatever store it is.
    let judge = |hold: &mut Hold, revision, orders: &[(&str, u64)], done: &[(&str, u64)]| {
        let done = units(done).into_iter();
        hold.judge(Found {
            cluster: Some("a"),
            revision,
            mark: Some(12),
            orders: units(orders),
            here: done.map(|(unit, done)| (unit, Some(done))).collect(),
        });
        hold.is_holding()
    };
    let done = [("a.service", 30), ("b.service", 20)];
    let mut hold = Hold::open(file.clone());
    assert!(!judge(&mut hold, 11, &[], &[]));
    hold.marked(12);
    hold.acted_on(31);
    let right = [("a.service", 30), ("b.service", 20)];
    assert!(!judge(&mut hold, 32, &right, &done));
    assert!(
        !judge(&mut hold, 33, &[("b.service", 20)], &done),
        "what has vanished is no order"
    );
    // It has been written on; what it has started is above all that the right one will give.
    let copy = [("a.service", 10), ("b.service", 20), ("c.service", 90)];
    assert!(judge(&mut hold, 91, &copy, &done));
    let done = [("a.service", 30), ("b.service", 20), ("c.service", 90)];
    assert!(judge(&mut hold, 92, &copy, &done));
    assert!(hold.protects(&unit("a.service"), 10, 11));
    // The next fleetd knows it again, and the right one.
    let mut next = Hold::open(file.clone());
    assert!(judge(&mut next, 93, &copy, &done));
    let mut next = Hold::open(file.clone());
    let right = [("a.service", 30), ("b.service", 20), ("c.service", 25)];
    assert!(!judge(&mut next, 94, &right, &done) && next.leaves_above());
    // Or it is believed, when somebody says so.
    let mut next = Hold::open(file.clone());
    assert!(judge(&mut next, 95, &copy, &done));
    assert!(next.accept(96, Some("a"), false));
    let done = [("a.service", 10), ("b.service", 20), ("c.service", 90)];
    assert!(!judge(&mut next, 97, &copy, &done));
    let mut next = Hold::open(file);
    assert!(!judge(&mut next, 98, &copy, &done));
}
