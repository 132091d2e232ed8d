//! `GET` and `PATCH /machines`.

use super::*;

async fn patch(cluster: &Cluster, body: &str) -> Got {
    cluster.call("PATCH", "/fleet/v1/machines", &[], body).await
}

/// What `GET /machines` shows of the metadata of `m1`.
async fn metadata(cluster: &Cluster) -> BTreeMap<String, String> {
    let (_, body) = cluster.shown("/fleet/v1/machines").await;
    let page: fleet_api::v1::MachinePage = serde_json::from_str(&body).unwrap();
    page.machines.into_iter().next().unwrap().metadata
}

fn op(op: &str, path: &str, value: &str) -> String {
    match value {
        "" => format!(r#"[{{"op":"{op}","path":"{path}"}}]"#),
        value => format!(r#"[{{"op":"{op}","path":"{path}","value":{value}}}]"#),
    }
}

#[tokio::test]
async fn present_machines_are_shown_with_merged_metadata() {
    let cluster = Cluster::new();
    cluster.machine("m2x", &[("hostname", "h2")]).await;
    cluster.machine("m1", &[]).await;
    cluster.member("absent", MemberStatus::Suspect).await;
    let wish = MachineWish {
        metadata: map(&[("zone", "z1"), ("hostname", "")]),
        ..MachineWish::default()
    };
    cluster
        .write(keys::machine_wish("m2x"), wish.encode())
        .await;
    assert_eq!(
        cluster.shown("/fleet/v1/machines?alt=json").await,
        (
            200,
            r#"{"machines":[{"id":"m1","primaryIP":"10.0.0.2"},{"id":"m2x","metadata":{"zone":"z1"},"primaryIP":"10.0.0.3"}]}"#.into()
        )
    );
}

#[tokio::test]
async fn both_forms_of_a_value_are_taken() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[("rack", "r1")]).await;
    for (value, expected) in [(r#"{"value":"z1"}"#, "z1"), (r#""z2""#, "z2")] {
        for name in ["add", "replace"] {
            let got = patch(&cluster, &op(name, "/m1/metadata/zone", value)).await;
            assert_eq!((got.status, got.body.as_str()), (204, ""));
            assert_eq!(got.headers["content-type"], "application/json");
            let expected = map(&[("rack", "r1"), ("zone", expected)]);
            assert_eq!(metadata(&cluster).await, expected);
        }
    }
    assert_eq!(patch(&cluster, "[]").await.status, 204);
    // The machine may be unknown, which is said: a short id would be a machine of its own.
    let got = patch(&cluster, &op("add", "/nobody/metadata/a.b_c-D9", r#""x""#)).await;
    assert_eq!(got.status, 204);
    let warning = got.headers["warning"].to_str().unwrap();
    assert!(
        warning.contains("no machine nobody has ever been here"),
        "{warning}"
    );
    for id in ["m1", "was"] {
        cluster.member("was", MemberStatus::Lost).await;
        let path = format!("/{id}/metadata/zone");
        let got = patch(&cluster, &op("add", &path, r#""z2""#)).await;
        assert_eq!(
            (got.status, got.headers.get("warning")),
            (204, None),
            "{id}"
        );
    }
}

#[tokio::test]
async fn what_is_no_patch_is_refused_before_anything_is_done() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    let invalid_op = "invalid op: expect add, remove, or replace";
    let invalid_path = "machine metadata path invalid";
    let no_value = "invalid value: add and replace require a value";
    let mut cases = vec![
        (String::new(), "EOF"),
        (
            "garbage".to_owned(),
            "invalid character 'g' looking for beginning of value",
        ),
        (
            "{}".to_owned(),
            "json: cannot unmarshal object into Go value of type []api.machineMetadataOp",
        ),
        (op("move", "/m1/metadata/a", ""), invalid_op),
        (op("", "/m1/metadata/a", ""), invalid_op),
        (op("add", "/m1/metadata/a", ""), no_value),
        (op("replace", "/m1/metadata/a", r#""""#), no_value),
        (op("add", "/m1/metadata/a", r#"{"value":""}"#), no_value),
        (op("add", "/m1/metadata/a", "{}"), no_value),
        (op("add", "/m1/overrides/a", r#""x""#), invalid_path),
    ];
    for path in [
        "",
        "/",
        "m1/metadata/a",
        "/m1/metadata",
        "/m1/metadata/",
        "/m1/metadata/a/b",
        "/m1/metadata/a b",
        "/m1/metadata/é",
        "//metadata/a",
        "/m1/Metadata/a",
    ] {
        cases.push((op("remove", path, ""), invalid_path));
    }
    for (body, message) in cases {
        let got = patch(&cluster, &body).await;
        assert_eq!((got.status, got.body), error(400, message), "{body}");
    }
    let both = r#"[{"op":"add","path":"/m1/metadata/a","value":"x"},{"op":"bad"}]"#;
    assert_eq!(patch(&cluster, both).await.status, 400);
    assert_eq!(metadata(&cluster).await, map(&[]));
    assert_eq!(
        cluster.read::<MachineWish>(keys::machine_wish("m1")).await,
        None
    );
}

#[tokio::test]
async fn a_removed_key_is_hidden_or_really_removed() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[("rack", "r1")]).await;
    let wished = async || {
        let wish: Option<MachineWish> = cluster.read(keys::machine_wish("m1")).await;
        wish.unwrap_or_default().metadata
    };
    // Of the configuration: hidden, until the override itself is removed.
    patch(&cluster, &op("remove", "/m1/metadata/rack", "")).await;
    assert_eq!(metadata(&cluster).await, map(&[]));
    assert_eq!(wished().await, map(&[("rack", "")]));
    patch(&cluster, &op("remove", "/m1/overrides/rack", "")).await;
    assert_eq!(metadata(&cluster).await, map(&[("rack", "r1")]));
    assert_eq!(wished().await, map(&[]));
    // Set at run time: nothing is left of it.
    patch(&cluster, &op("add", "/m1/metadata/zone", r#""z""#)).await;
    patch(&cluster, &op("remove", "/m1/metadata/zone", "")).await;
    assert_eq!(wished().await, map(&[]));
}

#[tokio::test]
async fn operations_are_done_in_order_and_other_wishes_stay() {
    let cluster = Cluster::new();
    let wish = MachineWish {
        cordon: true,
        ..MachineWish::default()
    };
    cluster.write(keys::machine_wish("m1"), wish.encode()).await;
    let body = r#"[{"op":"add","path":"/m1/metadata/a","value":"1"},
        {"op":"add","path":"/m2/metadata/a","value":"1"},
        {"op":"replace","path":"/m1/metadata/a","value":"2"}]"#;
    assert_eq!(patch(&cluster, body).await.status, 204);
    let wish: MachineWish = cluster.read(keys::machine_wish("m1")).await.unwrap();
    assert_eq!((wish.cordon, wish.metadata), (true, map(&[("a", "2")])));
    let wish: MachineWish = cluster.read(keys::machine_wish("m2")).await.unwrap();
    assert_eq!(wish.metadata, map(&[("a", "1")]));
    // Nothing to do writes nothing.
    let before = cluster.revision().await;
    patch(&cluster, &op("add", "/m2/metadata/a", r#""1""#)).await;
    assert_eq!(cluster.revision().await, before);
}

#[tokio::test]
async fn many_machines_are_patched_in_one_request() {
    let cluster = Cluster::new();
    let ops: Vec<_> = (0..300)
        .map(|n| serde_json::json!({"op":"add","path":format!("/m{n}/metadata/a"),"value":"1"}))
        .collect();
    let body = serde_json::to_string(&ops).unwrap();
    assert_eq!(patch(&cluster, &body).await.status, 204);
    let wishes = Range {
        prefix: keys::MACHINE_WISHES.into(),
        ..Range::default()
    };
    assert_eq!(cluster.store.read(wishes).await.unwrap().entries.len(), 300);
}

#[tokio::test]
async fn metadata_of_a_machine_is_bounded() {
    let cluster = Cluster::new();
    cluster.machine("m1", &[]).await;
    let long = |n: usize| format!("\"{}\"", "x".repeat(n));
    let fits = op("add", "/m1/metadata/a", &long(60_000));
    assert_eq!(patch(&cluster, &fits).await.status, 204);
    let got = patch(&cluster, &op("add", "/m1/metadata/b", &long(6_000))).await;
    let message = "metadata of machine m1 too large (max 65536 bytes): remove some first";
    assert_eq!((got.status, got.body), error(400, message));
    patch(&cluster, &op("remove", "/m1/metadata/a", "")).await;
    let got = patch(&cluster, &op("add", "/m1/metadata/b", &long(6_000))).await;
    assert_eq!(got.status, 204);
}
