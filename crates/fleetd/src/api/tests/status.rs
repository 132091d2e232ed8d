//! A unit as its machines' systemds say, over real connections between fleetds.

use fleet_api::v2::{UnitOnMachine, UnitStatus};

use super::machine::Machines;
use super::*;

async fn status(machines: &Machines, asked: &str, unit: &str) -> UnitStatus {
    let client = machines.client(asked);
    client.unit_status(unit, 2).await.unwrap().unwrap()
}

fn about<'a>(status: &'a UnitStatus, id: &str) -> &'a UnitOnMachine {
    let mut machines = status.machines.iter();
    machines.find(|machine| machine.machine_id == id).unwrap()
}

#[tokio::test]
async fn each_machine_is_asked_by_whichever_fleetd_is() {
    let machines = Machines::up(&["m1", "m2"]).await;
    machines.unit("a.service", &["m2"]).await;
    for (at, message) in [(1, "one"), (2, "two"), (3, "three")] {
        machines.machine("m2").says(at, "a.service", message);
    }
    for asked in ["m1", "m2"] {
        let status = status(&machines, asked, "a.service").await;
        assert_eq!(status.unit.desired_state, "inactive", "{asked}");
        assert_eq!(
            (status.unit.generation > 0, &status.unit.text),
            (true, &None)
        );
        let on = about(&status, "m2");
        assert_eq!(on.error, "", "{asked}");
        assert_eq!(
            (&*on.machine_status, &*on.primary_ip),
            ("present", "127.0.0.1")
        );
        let systemd = on.systemd.as_ref().unwrap();
        assert_eq!((&*systemd.active, systemd.main_pid), ("active", 42));
        assert_eq!(systemd.memory, Some(1_024));
        let lines = on
            .lines
            .iter()
            .map(|line| (line.machine_id.as_str(), line.message.as_str()));
        assert_eq!(lines.collect::<Vec<_>>(), [("m2", "two"), ("m2", "three")]);
    }
    let nothing = machines.client("m1").unit_status("nope.service", 2).await;
    assert_eq!(nothing.unwrap(), None);
}

#[tokio::test]
async fn a_machine_that_does_not_answer_is_said_and_holds_up_nobody() {
    let mut machines = Machines::up(&["m1", "m2", "m3", "m4", "m5"]).await;
    machines
        .unit("g.service", &["m1", "m2", "m3", "m4", "m5"])
        .await;
    // Its power is gone: presence, too.
    machines.cluster.remove(keys::machine("m2")).await;
    machines.cluster.member("m2", MemberStatus::Lost).await;
    // An older fleetd, or one that serves nobody.
    machines.cluster.machine("m3", &[]).await;
    // One whose fleetd does not listen.
    machines.stop("m4");
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = free.local_addr().unwrap().to_string();
    drop(free);
    machines.is_at("m4", &closed).await;
    // One whose systemd does not answer.
    machines.machine("m5").units.lock().unwrap().clear();
    let status = status(&machines, "m1", "g.service").await;
    assert!(about(&status, "m1").systemd.is_some());
    for (id, why, cure) in [
        ("m2", "is not present", "fleetctl why"),
        ("m3", "says nowhere", "api_listen="),
        (
            "m4",
            &*format!("at {closed}: no connection"),
            "does fleetd run there",
        ),
        ("m5", "systemd cannot be reached", ""),
    ] {
        let on = about(&status, id);
        assert!(on.systemd.is_none(), "{id}");
        assert!(
            on.error.contains(id) && on.error.contains(why),
            "{id}: {}",
            on.error
        );
        assert!(on.hint.contains(cure), "{id}: {}", on.hint);
        // The last report is kept.
        assert!(
            status
                .unit
                .states
                .iter()
                .any(|state| state.machine_id == id)
        );
    }
    assert_eq!(about(&status, "m2").machine_status, "lost");
}

#[tokio::test]
async fn what_was_passed_on_is_not_passed_on_again() {
    let machines = Machines::up(&["m1", "m2"]).await;
    machines.unit("a.service", &["m2"]).await;
    let path = |id| format!("/fleet/v2/machines/{id}/units/a.service?lines=1");
    let mut cluster = Cluster::over(Arc::clone(&machines.cluster.store), 100);
    let manager = Arc::clone(&machines.machines["m1"]);
    let way = Arc::new(crate::peer::Plaintext);
    let state = ApiState::new(Arc::clone(&cluster.store), 100, "1.2.3");
    cluster.state = state.with_units(MachineId::new("m1"), manager, way);
    let hop = [(fleet_api::HOP_HEADER, "m3")];
    let got = cluster.call("GET", &path("m2"), &hop, "").await;
    assert_eq!(got.status, 421, "{}", got.body);
    assert!(
        got.body.contains("this is machine m1, not m2"),
        "{}",
        got.body
    );
    let journal = "/fleet/v2/journal?unit=a.service&machine=m2";
    assert_eq!(cluster.call("GET", journal, &hop, "").await.status, 421);
    assert_eq!(cluster.call("GET", &path("m2"), &[], "").await.status, 200);
    assert_eq!(cluster.call("GET", &path("m1"), &hop, "").await.status, 200);
    assert_eq!(cluster.get(&path("m9")).await.status, 404);
    for path in [
        "/fleet/v2/units/a.service/status?lines=x",
        "/fleet/v2/machines/m1/units/nonsense?lines=1",
    ] {
        assert_eq!(cluster.get(path).await.status, 400, "{path}");
    }
    // Who asks is told.
    assert_eq!(cluster.call("PUT", &path("m1"), &[], "").await.status, 405);
}
