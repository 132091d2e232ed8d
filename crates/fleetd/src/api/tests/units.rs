//! `/units/{name}`: each row of the tables of PUT, GET and DELETE.

use super::*;

const OTHER: &[(&str, &str, &str)] = &[("Service", "ExecStart", "/bin/other")];

/// Status and message of a PUT (`""` for none).
async fn put(cluster: &Cluster, unit: &str, body: &str) -> (u16, String) {
    let got = cluster.put(unit, body).await;
    match got.status {
        201 | 204 => {
            assert_eq!(got.body, "");
            assert!(!got.headers.contains_key("content-type"));
            assert_eq!(got.headers["server"], "fleetd/v1.2.3");
            (got.status, String::new())
        }
        status => {
            let body: serde_json::Value = serde_json::from_str(&got.body).unwrap();
            assert_eq!(body["error"]["code"], status);
            (
                status,
                body["error"]["message"].as_str().unwrap().to_owned(),
            )
        }
    }
}

async fn check_put(cluster: &Cluster, unit: &str, body: &str, status: u16, message: &str) {
    let got = put(cluster, unit, body).await;
    assert_eq!(got, (status, message.to_owned()), "PUT {unit} {body}");
}

#[tokio::test]
async fn content_type_is_checked_first() {
    let cluster = Cluster::new();
    let none = "expected 1 Content-Type, got 0";
    let two = "expected 1 Content-Type, got 2";
    let other = "only acceptable Content-Type is application/json";
    let json = ("Content-Type", "application/json");
    for (headers, expected) in [
        (&[][..], error(415, none)),
        (&[json, json][..], error(415, two)),
        (&[("Content-Type", "text/plain")][..], error(415, other)),
        (
            &[("Content-Type", "application/jsonx")][..],
            error(415, other),
        ),
        (&[json][..], error(400, "unable to decode body: EOF")),
        (
            &[("Content-Type", "application/json; charset=utf-8")][..],
            error(400, "unable to decode body: EOF"),
        ),
    ] {
        let got = cluster
            .call("PUT", "/fleet/v1/units/no%20such%20name", headers, "")
            .await;
        assert_eq!((got.status, got.body), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn bodies_and_names_are_checked_in_the_originals_order() {
    let cluster = Cluster::new();
    let differs = r#"name in URL "a.service" differs from unit name in request body "b.service""#;
    for (unit, body, message) in [
        ("a.service", "{", "unable to decode body: unexpected EOF"),
        (
            "a.service",
            "[]",
            "unable to decode body: json: cannot unmarshal array into Go value of type schema.Unit",
        ),
        ("a.service", r#"{"name":"b.service"}"#, differs),
        ("a.bogus", "{}", r#"invalid unit type: "bogus""#),
        ("a", "{}", r#"unit name must contain ".""#),
        ("a.", "{}", r#"unit name cannot end in ".""#),
        (
            "a@1.mount",
            "{}",
            r#"invalid unit type for template: "mount""#,
        ),
        ("a%20b.service", "{}", "invalid character ' ' in unit name"),
        ("%C3%A9.service", "{}", "invalid character 'é' in unit name"),
        ("@a.service", "{}", r#"unit name cannot start in "@""#),
    ] {
        check_put(&cluster, unit, body, 400, message).await;
    }
}

#[tokio::test]
async fn a_unit_that_does_not_exist() {
    let cluster = Cluster::new();
    let empty = "unit does not exist and options field empty";
    check_put(&cluster, "a.service", "{}", 409, empty).await;
    check_put(
        &cluster,
        "a.service",
        r#"{"desiredState":"launched"}"#,
        409,
        empty,
    )
    .await;
    check_put(
        &cluster,
        "a.service",
        r#"{"desiredState":"bogus"}"#,
        409,
        empty,
    )
    .await;
    check_put(&cluster, "a.service", "null", 409, empty).await;

    check_put(&cluster, "a.service", SLEEP, 201, "").await;
    let record = cluster.wish("a.service").await;
    assert_eq!(&*record.text, SLEEP_TEXT);
    assert_eq!(record.desired, DesiredState::Inactive);
    assert!(!record.request_id.is_empty());

    for (unit, desired) in [
        ("i.service", DesiredState::Inactive),
        ("l.service", DesiredState::Loaded),
        ("r.service", DesiredState::Launched),
    ] {
        check_put(&cluster, unit, &body(OTHER, desired.as_str()), 201, "").await;
        assert_eq!(cluster.wish(unit).await.desired, desired);
    }
    for word in ["bogus", "destroyed", "Launched"] {
        let message =
            format!(r#"invalid desiredState "{word}": use "inactive", "loaded" or "launched""#);
        check_put(&cluster, "b.service", &body(OTHER, word), 400, &message).await;
    }
    assert_eq!(cluster.get("/fleet/v1/units/b.service").await.status, 404);
}

#[tokio::test]
async fn an_existing_unit() {
    let cluster = Cluster::new();
    cluster.put("a.service", &body(OTHER, "loaded")).await;
    let must = "must provide DesiredState to update existing unit";
    check_put(&cluster, "a.service", "{}", 409, must).await;
    check_put(&cluster, "a.service", &body(OTHER, ""), 409, must).await;

    // The desired state alone; the same options count as none.
    check_put(
        &cluster,
        "a.service",
        r#"{"desiredState":"launched"}"#,
        204,
        "",
    )
    .await;
    assert_eq!(
        cluster.wish("a.service").await.desired,
        DesiredState::Launched
    );
    check_put(&cluster, "a.service", &body(OTHER, "inactive"), 204, "").await;
    assert_eq!(
        cluster.wish("a.service").await.desired,
        DesiredState::Inactive
    );

    // An unknown word is refused, and the unit stays as it is.
    let message = r#"invalid desiredState "x": use "inactive", "loaded" or "launched""#;
    check_put(
        &cluster,
        "a.service",
        r#"{"desiredState":"x"}"#,
        400,
        message,
    )
    .await;
    assert_eq!(
        cluster.wish("a.service").await.desired,
        DesiredState::Inactive
    );

    // Other contents keep the desired state.
    check_put(
        &cluster,
        "a.service",
        r#"{"desiredState":"launched"}"#,
        204,
        "",
    )
    .await;
    check_put(&cluster, "a.service", SLEEP, 201, "").await;
    let record = cluster.wish("a.service").await;
    assert_eq!(&*record.text, SLEEP_TEXT);
    assert_eq!(record.desired, DesiredState::Launched);

    // The original's fleetctl waits for `inactive` then, and asks for the state afterwards.
    let go = [
        ("Content-Type", "application/json"),
        ("User-Agent", "google-api-go-client/0.5"),
    ];
    let new = body(&[("Service", "ExecStart", "/new")], "");
    let path = "/fleet/v1/units/a.service?alt=json";
    assert_eq!(cluster.call("PUT", path, &go, &new).await.status, 201);
    let desired = cluster.wish("a.service").await.desired;
    assert_eq!(desired, DesiredState::Inactive);

    // Other contents and another state.
    check_put(&cluster, "a.service", &body(OTHER, "inactive"), 201, "").await;
    let record = cluster.wish("a.service").await;
    assert_eq!(&*record.text, "[Service]\nExecStart=/bin/other\n");
    assert_eq!(record.desired, DesiredState::Inactive);
}

#[tokio::test]
async fn a_start_asked_for_again_is_a_new_generation_and_nothing_else_is() {
    let cluster = Cluster::new();
    cluster.put("a.service", &body(OTHER, "loaded")).await;
    let before = cluster.generation("a.service").await;
    cluster
        .put("a.service", r#"{"desiredState":"loaded"}"#)
        .await;
    assert_eq!(cluster.generation("a.service").await, before);
    cluster
        .put("a.service", r#"{"desiredState":"launched"}"#)
        .await;
    let launched = cluster.generation("a.service").await;
    assert!(launched > before);
    cluster
        .put("a.service", r#"{"desiredState":"launched"}"#)
        .await;
    assert!(cluster.generation("a.service").await > launched);
}

#[tokio::test]
async fn options_are_validated_on_create_and_on_replace() {
    let cluster = Cluster::new();
    cluster.put("old.service", SLEEP).await;
    let fleet = |pairs: &[(&str, &str)]| {
        let mut options = vec![("Service", "ExecStart", "/bin/true")];
        options.extend(pairs.iter().map(|(name, value)| ("X-Fleet", *name, *value)));
        body(&options, "launched")
    };
    for (body, message) in [
        (
            fleet(&[("MachineID", "a"), ("Global", "true")]),
            "MachineID cannot be used with Global",
        ),
        (
            fleet(&[("MachineID", "a"), ("MachineOf", "b.service")]),
            "MachineID cannot be used with Peers",
        ),
        (
            fleet(&[("Global", "true"), ("MachineOf", "b.service")]),
            "Global cannot be used with Peers",
        ),
        (
            fleet(&[("Conflicts", "b.*"), ("MachineOf", "b.service")]),
            r#"unresolvable requirements: peer "b.service" matches conflict "b.*""#,
        ),
        (
            body(&[("Service", "ExecStart", &"x".repeat(2048))], ""),
            "line too long (max 2048 bytes)",
        ),
    ] {
        for unit in ["new.service", "old.service"] {
            check_put(&cluster, unit, &body, 400, message).await;
        }
    }
    // Metadata that the original ignored, so that the unit ran anywhere.
    let (status, message) = put(
        &cluster,
        "old.service",
        &fleet(&[("MachineMetadata", "a=b=c")]),
    )
    .await;
    assert_eq!(status, 400);
    assert!(message.contains("MachineMetadata=\"a=b=c\""), "{message}");
    assert_eq!(&*cluster.wish("old.service").await.text, SLEEP_TEXT);
    assert_eq!(cluster.get("/fleet/v1/units/new.service").await.status, 404);
}

#[tokio::test]
async fn unknown_keys_are_accepted_with_a_warning() {
    let cluster = Cluster::new();
    let unit = body(
        &[("X-Fleet", "Bogus", "1"), ("Service", "ExecStart", "/a")],
        "",
    );
    let got = cluster.put("a.service", &unit).await;
    assert_eq!(got.status, 201);
    let warning = got.headers["warning"].to_str().unwrap();
    assert!(
        warning.starts_with("199 fleet \"Unit a.service: "),
        "{warning}"
    );
    assert!(warning.contains("Bogus"), "{warning}");
    assert!(
        !cluster
            .put("b.service", SLEEP)
            .await
            .headers
            .contains_key("warning")
    );
}

#[tokio::test]
async fn a_type_that_systemd_loads_from_no_file_is_taken_with_the_reason_and_the_cure() {
    let cluster = Cluster::new();
    for unit in ["a.scope", "a.device", "a.busname", "a.snapshot"] {
        let got = cluster.put(unit, &body(OTHER, "launched")).await;
        assert_eq!(got.status, 201, "{unit}: as the original");
        let warning = got.headers["warning"].to_str().unwrap();
        assert!(
            warning.contains("systemd loads no") && warning.contains("(use a "),
            "{warning}"
        );
    }
}

#[tokio::test]
async fn a_unit_that_waits_for_a_machine_says_why_in_a_header() {
    let cluster = Cluster::new();
    cluster.put("a.service", &body(OTHER, "launched")).await;
    let path = "/fleet/v1/units/a.service";
    let put = async |machine: Option<&str>| {
        let record = PlacementRecord {
            reason: "no machine may run it: MachineID m9".into(),
            ..placement(machine)
        };
        let key = keys::placement("a.service");
        cluster.write(key, record.encode()).await;
        cluster.get(path).await
    };
    let got = put(None).await;
    assert_eq!(got.status, 200);
    assert_eq!(
        got.headers["warning"].to_str().unwrap(),
        "199 fleet \"Unit a.service: no machine may run it: MachineID m9\""
    );
    assert!(!put(Some("m1")).await.headers.contains_key("warning"));
    // Who is not wanted anywhere does not wait.
    put(None).await;
    let inactive = r#"{"desiredState":"inactive"}"#;
    cluster.put("a.service", inactive).await;
    assert!(!cluster.get(path).await.headers.contains_key("warning"));
}

#[tokio::test]
async fn replacing_or_destroying_a_template_leaves_its_instances_alone() {
    let cluster = Cluster::new();
    cluster.put("t@.service", SLEEP).await;
    let launched = r#"{"options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 100"}],"desiredState":"launched"}"#;
    cluster.put("t@1.service", launched).await;
    let before = cluster.generation("t@1.service").await;
    cluster.put("t@.service", &body(OTHER, "")).await;
    assert_eq!(cluster.generation("t@1.service").await, before);
    let got = cluster
        .call("DELETE", "/fleet/v1/units/t@.service", &[], "")
        .await;
    assert_eq!(got.status, 204);
    assert_eq!(cluster.generation("t@1.service").await, before);
    let instance = cluster.wish("t@1.service").await;
    assert_eq!(&*instance.text, SLEEP_TEXT);
    assert_eq!(instance.desired, DesiredState::Launched);
}

#[tokio::test]
async fn a_template_can_only_be_inactive_on_every_path() {
    let cluster = Cluster::new();
    let message = r#"cannot activate template "t@.service""#;
    for desired in ["loaded", "launched"] {
        check_put(&cluster, "t@.service", &body(OTHER, desired), 400, message).await;
    }
    check_put(&cluster, "t@.service", &body(OTHER, "inactive"), 201, "").await;
    for desired in ["loaded", "launched"] {
        let state = format!(r#"{{"desiredState":"{desired}"}}"#);
        check_put(&cluster, "t@.service", &state, 400, message).await;
        let both = body(&[("Service", "ExecStart", "/new")], desired);
        check_put(&cluster, "t@.service", &both, 400, message).await;
    }
    check_put(&cluster, "t@1.service", &body(OTHER, "launched"), 201, "").await;
    let wish = cluster.wish("t@.service").await;
    assert_eq!(wish.desired, DesiredState::Inactive);
}

#[tokio::test]
async fn a_unit_is_shown_with_its_states() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    let path = "/fleet/v1/units/a.service";
    let shown = |current: &str, desired: &str, machine: &str| {
        let machine = match machine {
            "" => String::new(),
            id => format!(r#""machineID":"{id}","#),
        };
        let body = format!(
            r#"{{"currentState":"{current}","desiredState":"{desired}",{machine}"name":"a.service",{SLEEP_OPTIONS}}}"#
        );
        (200, body)
    };
    assert_eq!(cluster.shown(path).await, shown("inactive", "inactive", ""));
    cluster
        .put("a.service", r#"{"desiredState":"launched"}"#)
        .await;
    cluster.place("a.service", None).await;
    assert_eq!(cluster.shown(path).await, shown("inactive", "launched", ""));
    let decision = cluster.place("a.service", Some("m1")).await;
    assert_eq!(
        cluster.shown(path).await,
        shown("inactive", "launched", "m1")
    );
    for (reached, systemd, current) in [
        (Reached::Working, "", "inactive"),
        (Reached::Working, "loaded/inactive/dead", "loaded"),
        (Reached::Working, "loaded/activating/start-pre", "launched"),
        (Reached::Launched, "loaded/active/running", "launched"),
        (Reached::Launched, "loaded/failed/failed", "launched"),
        // Finished, or stopped by hand.
        (Reached::Launched, "loaded/inactive/dead", "launched"),
        (Reached::Working, "loaded/deactivating/stop", "launched"),
        (Reached::Loaded, "loaded/inactive/dead", "loaded"),
        (Reached::Refused, "", "inactive"),
        (Reached::Gone, "", "inactive"),
    ] {
        let record = state(decision, reached, systemd);
        cluster.report("a.service", "m1", record).await;
        let expected = shown(current, "launched", "m1");
        assert_eq!(cluster.shown(path).await, expected, "{reached:?} {systemd}");
    }
    // Another machine's report says nothing about it.
    let running = state(decision, Reached::Launched, "loaded/active/running");
    cluster.report("a.service", "m2", running.clone()).await;
    assert_eq!(
        cluster.shown(path).await,
        shown("inactive", "launched", "m1")
    );
    // Nor does that of a machine that is given up.
    cluster.report("a.service", "m1", running).await;
    cluster.member("m1", MemberStatus::Suspect).await;
    assert_eq!(
        cluster.shown(path).await,
        shown("launched", "launched", "m1")
    );
    cluster.member("m1", MemberStatus::Lost).await;
    assert_eq!(
        cluster.shown(path).await,
        shown("inactive", "launched", "m1")
    );
}

#[tokio::test]
async fn a_unit_is_inactive_when_it_has_stopped_where_it_was() {
    let cluster = Cluster::new();
    cluster.put("a.service", &body(OTHER, "launched")).await;
    let decision = cluster.place("a.service", Some("m1")).await;
    let running = state(decision, Reached::Launched, "loaded/active/running");
    cluster.report("a.service", "m1", running).await;
    cluster
        .put("a.service", r#"{"desiredState":"inactive"}"#)
        .await;
    let leaving = PlacementRecord {
        leaving: Some(MachineId::new("m1")),
        ..placement(None)
    };
    cluster
        .write(keys::placement("a.service"), leaving.encode())
        .await;
    let current = async || {
        let (_, v1) = cluster.shown("/fleet/v1/units/a.service").await;
        let (_, v2) = cluster.shown("/fleet/v2/units/a.service").await;
        let (v1, v2): (serde_json::Value, serde_json::Value) = (
            serde_json::from_str(&v1).unwrap(),
            serde_json::from_str(&v2).unwrap(),
        );
        assert_eq!(v1["currentState"], v2["currentState"]);
        assert_eq!(v1.get("machineID"), None, "it is placed nowhere");
        v1["currentState"].as_str().unwrap().to_owned()
    };
    assert_eq!(current().await, "launched");
    cluster.member("m1", MemberStatus::Lost).await;
    assert_eq!(current().await, "inactive");
    cluster.member("m1", MemberStatus::Present).await;
    let stopping = state(decision, Reached::Working, "loaded/deactivating/stop");
    cluster.report("a.service", "m1", stopping).await;
    assert_eq!(current().await, "launched");
    let gone = state(decision, Reached::Gone, "not-found/inactive/dead");
    cluster.report("a.service", "m1", gone).await;
    assert_eq!(current().await, "inactive");
}

#[tokio::test]
async fn a_global_unit_has_no_current_state_and_no_machine_wherever_it_is_shown() {
    let cluster = Cluster::new();
    let unit = body(&[("X-Fleet", "Global", "true")], "launched");
    cluster.put("g.service", &unit).await;
    cluster.place("g.service", None).await;
    let entity = r#"{"desiredState":"launched","name":"g.service","options":[{"name":"Global","section":"X-Fleet","value":"true"}]}"#;
    assert_eq!(
        cluster.shown("/fleet/v1/units/g.service").await,
        (200, entity.to_owned())
    );
    assert_eq!(
        cluster.shown("/fleet/v1/units").await,
        (200, format!(r#"{{"units":[{entity}]}}"#))
    );
}

#[tokio::test]
async fn a_destroyed_unit_does_not_exist_and_can_be_created_anew() {
    let cluster = Cluster::new();
    cluster.put("a.service", &body(OTHER, "launched")).await;
    let before = cluster.generation("a.service").await;
    let path = "/fleet/v1/units/a.service";
    let got = cluster.call("DELETE", path, &[], "").await;
    assert_eq!((got.status, got.body.as_str()), (204, ""));
    let record = cluster.wish("a.service").await;
    assert_eq!(
        (record.desired, &*record.text),
        (DesiredState::Destroyed, "")
    );
    let gone = error(404, "unit does not exist");
    assert_eq!(cluster.shown(path).await, gone);
    assert_eq!(cluster.shown("/fleet/v1/units").await, (200, "{}".into()));
    let got = cluster.call("DELETE", path, &[], "").await;
    assert_eq!((got.status, got.body), gone);
    let empty = "unit does not exist and options field empty";
    check_put(
        &cluster,
        "a.service",
        r#"{"desiredState":"launched"}"#,
        409,
        empty,
    )
    .await;
    check_put(&cluster, "a.service", SLEEP, 201, "").await;
    let record = cluster.wish("a.service").await;
    assert_eq!(record.desired, DesiredState::Inactive);
    assert!(cluster.generation("a.service").await > before);
}

#[tokio::test]
async fn a_damaged_unit_is_named_hides_nothing_and_can_be_replaced_and_destroyed() {
    let cluster = Cluster::new();
    cluster.put("a.service", SLEEP).await;
    cluster
        .write(keys::unit("b.service"), b"{damaged".to_vec())
        .await;
    cluster.put("c.service", SLEEP).await;
    let got = cluster.get("/fleet/v1/units").await;
    let page: fleet_api::v1::UnitPage = serde_json::from_str(&got.body).unwrap();
    let names: Vec<_> = page.units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(names, ["a.service", "c.service"]);
    let warning = got.headers["warning"].to_str().unwrap();
    assert!(warning.contains("units/b.service is damaged"), "{warning}");
    let (status, shown) = cluster.shown("/fleet/v1/units/b.service").await;
    assert_eq!(status, 500);
    assert!(shown.contains("units/b.service is damaged"), "{shown}");
    let (status, message) = put(&cluster, "b.service", r#"{"desiredState":"loaded"}"#).await;
    assert_eq!(status, 500);
    assert!(message.contains("damaged"), "{message}");
    let got = cluster
        .call("DELETE", "/fleet/v1/units/b.service", &[], "")
        .await;
    assert_eq!(got.status, 204);
    cluster
        .write(keys::unit("b.service"), b"{damaged".to_vec())
        .await;
    // What was wanted of it nobody knows: who does not say it would stop what runs.
    let (status, message) = put(&cluster, "b.service", SLEEP).await;
    assert_eq!(status, 500);
    assert!(message.contains("damaged"), "{message}");
    let launched = body(
        &[("Service", "ExecStart", "/bin/sleep infinity")],
        "launched",
    );
    check_put(&cluster, "b.service", &launched, 201, "").await;
}

#[tokio::test]
async fn values_that_html_would_mind_are_escaped_as_by_the_original() {
    let cluster = Cluster::new();
    let unit = body(&[("Service", "ExecStart", "/bin/sh -c 'a <b && c'")], "");
    cluster.put("a.service", &unit).await;
    let (_, body) = cluster.shown("/fleet/v1/units/a.service").await;
    assert!(body.contains(r"a \u003cb \u0026\u0026 c"), "{body}");
}

#[tokio::test]
async fn concurrent_writers_all_succeed() {
    let cluster = Arc::new(Cluster::new());
    cluster.put("a.service", SLEEP).await;
    let writers = (0..8).map(|_| {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move {
            cluster
                .put("a.service", r#"{"desiredState":"launched"}"#)
                .await
                .status
        })
    });
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 204);
    }
}
