//! Who may do what, through the whole API.

use fleet_core::records::DesiredState;
use fleet_core::unit_file::UnitFile;

use super::*;

use crate::access::trust::tests::{public_key, sign};
use crate::access::{Access, BEHALF_HEADER, Caller, Identity, Policy, Trust, load};

/// alice (1000) has `web`; bob (1001) is an operator, carol (1002) a viewer, and dave (1003) nothing.
const POLICY: &str = "[Role web]
Allow=*:read unit:start unit:stop machine:drain machine:metadata
Units=web-*
Machines=region=eu
[Role submitter]
Allow=unit:submit
Units=new-*
[Grant web]
To=uid:1000
[Grant submitter]
To=uid:1000
[Grant operator]
To=uid:1001
[Grant viewer]
To=uid:1002
";

const ALICE: u32 = 1000;
const BOB: u32 = 1001;
const CAROL: u32 = 1002;
const DAVE: u32 = 1003;

pub(super) fn policy(text: &str) -> Policy {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.conf"), text).unwrap();
    let accounts = load::Accounts::of_this_machine();
    let owner = rustix::process::getuid().as_raw();
    load::load(directory.path(), owner, &accounts)
        .unwrap()
        .policy
}

impl Cluster {
    pub(super) fn under(policy: Policy) -> Cluster {
        let mut cluster = Cluster::new();
        let state = cluster.state.on(MachineId::new("m0"));
        cluster.state = state.under(Access::new(policy));
        cluster
    }

    pub(super) async fn ask(&self, caller: &Caller, method: &str, path: &str, body: &str) -> Got {
        self.ask_with(caller, method, path, &[], body).await
    }

    async fn ask_with(
        &self,
        caller: &Caller,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Got {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", "application/json")
            .extension(caller.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.send(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Puts a unit as root would.
    async fn has(&self, unit: &str, region: &str, desired: DesiredState) {
        let text = format!(
            "[Service]\nExecStart=/bin/sleep 9\n\n[X-Fleet]\nMachineMetadata=region={region}\n"
        );
        self.write(keys::unit(unit), wish(&text, desired).encode())
            .await;
    }

    async fn desired(&self, unit: &str) -> DesiredState {
        self.wish(unit).await.desired
    }
}

fn uid(uid: u32) -> Caller {
    Caller::Unix {
        uid,
        gid: 100,
        pid: None,
    }
}

/// Every resource with every method that it knows; a body that it understands.
const REQUESTS: &[(&str, &str, &str)] = &[
    ("GET", "/metrics", ""),
    ("GET", "/fleet/v1/machines", ""),
    (
        "PATCH",
        "/fleet/v1/machines",
        r#"[{"op":"remove","path":"/m1/metadata/a"}]"#,
    ),
    ("GET", "/fleet/v1/units", ""),
    ("GET", "/fleet/v1/units/web-1.service", ""),
    (
        "PUT",
        "/fleet/v1/units/web-1.service",
        r#"{"desiredState":"launched"}"#,
    ),
    ("DELETE", "/fleet/v1/units/web-1.service", ""),
    ("GET", "/fleet/v1/state", ""),
    ("GET", "/v1-alpha/state/web-1.service", ""),
    ("GET", "/fleet/v2/units", ""),
    ("GET", "/fleet/v2/units?fields=hash", ""),
    ("POST", "/fleet/v2/units", r#"{"units":[]}"#),
    ("GET", "/fleet/v2/units/web-1.service", ""),
    ("GET", "/fleet/v2/machines", ""),
    ("GET", "/fleet/v2/machines/m1", ""),
    ("POST", "/fleet/v2/machines/m1", "{}"),
    ("GET", "/fleet/v2/machines/m1/units", ""),
    ("POST", "/fleet/v2/wait", r#"{"units":[]}"#),
    ("GET", "/fleet/v2/cluster", ""),
    ("GET", "/fleet/v2/events", ""),
    // It would go on for ever; this revision is one that never comes.
    ("GET", "/fleet/v2/watch/units?revision=99999999", ""),
    ("POST", "/fleet/v2/thaw", ""),
    ("POST", "/fleet/v2/accept-store", ""),
    ("POST", "/fleet/v2/join-tokens", r#"{"role":"machine"}"#),
    ("POST", "/fleet/v2/certificates", "{}"),
    ("GET", "/fleet/v2/revocations", ""),
    ("POST", "/fleet/v2/revocations", r#"{"name":"user:x"}"#),
    // Methods that are not known.
    ("BREW", "/fleet/v1/units", ""),
    ("DELETE", "/fleet/v2/machines/m1", ""),
];

#[tokio::test]
async fn whoever_has_no_role_gets_nothing_but_what_the_documentation_says() {
    let cluster = Cluster::under(policy(POLICY));
    cluster.machine("m1", &[("region", "eu")]).await;
    cluster
        .has("web-1.service", "eu", DesiredState::Inactive)
        .await;
    for (method, path, body) in REQUESTS {
        let got = cluster.ask(&uid(DAVE), method, path, body).await;
        assert_eq!(got.status, 403, "{method} {path}: {}", got.body);
        let said = r#"uid 1003 may not"#;
        assert!(
            got.body.contains(said) && got.body.contains("would allow it"),
            "{}",
            got.body
        );
        // v1's shape, and v2's, which has the id of the request.
        let error: serde_json::Value = serde_json::from_str(&got.body).unwrap();
        assert_eq!(error["error"]["code"], 403, "{path}");
        let root = cluster.ask(&uid(0), method, path, body).await;
        assert_ne!(root.status, 403, "{method} {path}");
    }
    for path in ["/fleet/v1/discovery", "/fleet/v2/openapi.json"] {
        assert_eq!(cluster.ask(&uid(DAVE), "GET", path, "").await.status, 200);
    }
    for path in ["/nowhere", "/fleet/v2/nowhere"] {
        assert_eq!(cluster.ask(&uid(DAVE), "GET", path, "").await.status, 404);
    }
}

#[tokio::test]
async fn a_viewer_changes_nothing_and_an_operator_does_not_accept_a_store() {
    for (method, path, body) in REQUESTS {
        // Each on its own: some of them destroy.
        let cluster = Cluster::under(policy(POLICY));
        cluster.machine("m1", &[("region", "eu")]).await;
        cluster
            .has("web-1.service", "eu", DesiredState::Inactive)
            .await;
        let got = cluster.ask(&uid(CAROL), method, path, body).await;
        // Of a batch each unit is answered for, and this one has none.
        let reads = *method == "GET" || body.contains(r#""units":[]"#);
        assert_eq!(got.status == 403, !reads, "{method} {path}: {}", got.body);
        assert!(reads || cluster.wish("web-1.service").await.request_id == "before");
        let got = cluster.ask(&uid(BOB), method, path, body).await;
        let is_identity = ["join-tokens", "certificates", "revocations"];
        let is_admins = path.ends_with("accept-store")
            || *method == "POST" && is_identity.iter().any(|end| path.ends_with(end))
            || matches!(*method, "BREW" | "DELETE") && path.ends_with(['s', '1']);
        assert_eq!(
            got.status == 403,
            is_admins,
            "{method} {path}: {}",
            got.body
        );
    }
}

#[tokio::test]
async fn listings_show_only_what_the_caller_may_see() {
    let cluster = Cluster::under(policy(POLICY));
    cluster.machine("m1", &[("region", "eu")]).await;
    cluster.machine("m2", &[("region", "us")]).await;
    for unit in ["db.service", "web-1.service", "web-2.service"] {
        cluster.has(unit, "eu", DesiredState::Launched).await;
        let decision = cluster.place(unit, Some("m1")).await;
        let running = state(decision, Reached::Launched, "loaded/active/running");
        cluster.report(unit, "m1", running).await;
    }
    for path in [
        "/fleet/v1/units",
        "/fleet/v1/state",
        "/fleet/v2/units",
        "/fleet/v2/units?limit=1",
        "/fleet/v2/units?fields=hash,states",
        // Now from what is kept.
        "/fleet/v2/units?fields=hash,states",
        "/fleet/v1/machines",
        "/fleet/v2/machines",
    ] {
        let seen = cluster.ask(&uid(ALICE), "GET", path, "").await;
        let all = cluster.ask(&uid(CAROL), "GET", path, "").await;
        assert_eq!((seen.status, all.status), (200, 200), "{path}");
        let (mine, others) = match path.ends_with("machines") {
            true => ("m1", "m2"),
            false => ("web-1.service", "db.service"),
        };
        assert!(seen.body.contains(mine), "{path}: {}", seen.body);
        assert!(!seen.body.contains(others), "{path}: {}", seen.body);
        assert!(all.body.contains(others), "{path}: {}", all.body);
    }
    for (path, status) in [
        ("/fleet/v1/units/web-1.service", 200),
        ("/fleet/v1/units/db.service", 403),
        // Whether there is such a unit is not told either.
        ("/fleet/v1/units/nothing.service", 403),
        ("/fleet/v1/state/db.service", 403),
        ("/fleet/v2/units/db.service", 403),
        ("/fleet/v2/machines/m1", 200),
        ("/fleet/v2/machines/m2", 403),
        ("/fleet/v2/machines/m1/units", 200),
        ("/fleet/v2/machines/m2/units", 403),
        ("/fleet/v2/cluster", 403),
        ("/metrics", 403),
    ] {
        let got = cluster.ask(&uid(ALICE), "GET", path, "").await;
        assert_eq!(got.status, status, "{path}: {}", got.body);
    }
    let wait = r#"{"units":[{"name":"db.service","generation":1}]}"#;
    let got = cluster
        .ask(&uid(ALICE), "POST", "/fleet/v2/wait", wait)
        .await;
    assert_eq!(got.status, 403, "{}", got.body);
}

#[tokio::test]
async fn events_of_others_units_are_not_told() {
    let cluster = Cluster::under(policy(POLICY));
    for unit in ["db.service", "web-1.service"] {
        let path = format!("/fleet/v1/units/{unit}");
        assert_eq!(cluster.ask(&uid(0), "PUT", &path, SLEEP).await.status, 201);
    }
    let listed = async |who| {
        cluster
            .ask(&uid(who), "GET", "/fleet/v2/events", "")
            .await
            .body
    };
    let (all, some) = (listed(CAROL).await, listed(ALICE).await);
    assert!(
        all.contains("db.service") && all.contains("web-1.service"),
        "{all}"
    );
    assert!(
        !some.contains("db.service") && some.contains("web-1.service"),
        "{some}"
    );
}

#[tokio::test]
async fn each_wish_needs_what_it_does() {
    let cluster = Cluster::under(policy(POLICY));
    cluster
        .has("web-1.service", "eu", DesiredState::Inactive)
        .await;
    cluster
        .has("web-2.service", "us", DesiredState::Inactive)
        .await;
    cluster
        .has("db.service", "eu", DesiredState::Inactive)
        .await;
    let put = async |unit: &str, body: &str| {
        let path = format!("/fleet/v1/units/{unit}");
        cluster.ask(&uid(ALICE), "PUT", &path, body).await
    };
    let launch = r#"{"desiredState":"launched"}"#;
    for (unit, body, status, said) in [
        ("web-1.service", launch, 204, ""),
        ("web-1.service", r#"{"desiredState":"inactive"}"#, 204, ""),
        // It could run on machines that are not hers.
        ("web-2.service", launch, 403, "unit:start web-2.service"),
        ("db.service", launch, 403, "db.service"),
        // New contents are another verb, and so is what they start.
        ("web-1.service", SLEEP, 403, "unit:submit web-1.service"),
        ("new-1.service", SLEEP, 201, ""),
        ("new-1.service", launch, 403, "unit:start new-1.service"),
        ("other.service", SLEEP, 403, "other.service"),
    ] {
        let got = put(unit, body).await;
        assert_eq!(got.status, status, "{unit} {body}: {}", got.body);
        assert!(got.body.contains(said), "{}", got.body);
    }
    let got = cluster
        .ask(&uid(ALICE), "DELETE", "/fleet/v1/units/new-1.service", "")
        .await;
    assert_eq!(got.status, 403, "{}", got.body);
    for unit in [
        "web-1.service",
        "web-2.service",
        "db.service",
        "new-1.service",
    ] {
        assert_eq!(
            cluster.desired(unit).await,
            DesiredState::Inactive,
            "{unit}"
        );
    }
    assert_eq!(cluster.wish("new-1.service").await.changed_by, "uid 1000");
}

#[tokio::test]
async fn a_batch_refuses_what_is_not_allowed_and_does_the_rest() {
    let cluster = Cluster::under(policy(POLICY));
    cluster
        .has("web-1.service", "eu", DesiredState::Inactive)
        .await;
    cluster
        .has("db.service", "eu", DesiredState::Inactive)
        .await;
    let text = "[Service]\\nExecStart=/bin/true\\n";
    let body = format!(
        r#"{{"units":[
            {{"name":"web-1.service","desiredState":"launched"}},
            {{"name":"db.service","desiredState":"launched"}},
            {{"name":"new-1.service","text":"{text}"}},
            {{"name":"bad.service","text":"{text}"}}]}}"#
    );
    let got = cluster
        .ask(&uid(ALICE), "POST", "/fleet/v2/units", &body)
        .await;
    assert_eq!(got.status, 200, "{}", got.body);
    let answer: serde_json::Value = serde_json::from_str(&got.body).unwrap();
    let codes: Vec<_> = answer["units"]
        .as_array()
        .unwrap()
        .iter()
        .map(|unit| unit["code"].as_u64().unwrap_or(0))
        .collect();
    assert_eq!(codes, [0, 403, 0, 403], "{}", got.body);
    assert_eq!(
        cluster.desired("web-1.service").await,
        DesiredState::Launched
    );
    assert_eq!(cluster.desired("db.service").await, DesiredState::Inactive);
    assert_eq!(
        cluster.desired("new-1.service").await,
        DesiredState::Inactive
    );
    assert!(
        cluster
            .read::<UnitRecord>(keys::unit("bad.service"))
            .await
            .is_none()
    );
    // Nor is it told whether there is a unit of which she may wish nothing.
    let inactive =
        |unit: &str| format!(r#"{{"units":[{{"name":"{unit}","desiredState":"inactive"}}]}}"#);
    for unit in ["db.service", "nothing.service"] {
        let got = cluster
            .ask(&uid(ALICE), "POST", "/fleet/v2/units", &inactive(unit))
            .await;
        let said = format!("uid 1000 may not unit:stop {unit}");
        assert!(got.body.contains(&said), "{}", got.body);
    }
    let destroy = r#"{"units":[{"name":"db.service","desiredState":"destroyed"}]}"#;
    let got = cluster
        .ask(&uid(CAROL), "POST", "/fleet/v2/units", destroy)
        .await;
    assert!(
        got.body
            .contains("uid 1002 may not unit:destroy db.service"),
        "{}",
        got.body
    );
    // One transaction of new units alone takes another way.
    let body = format!(r#"{{"units":[{{"name":"bad.service","text":"{text}"}}]}}"#);
    let got = cluster
        .ask(&uid(ALICE), "POST", "/fleet/v2/units", &body)
        .await;
    assert!(
        got.body.contains("may not unit:submit bad.service"),
        "{}",
        got.body
    );
    assert!(
        cluster
            .read::<UnitRecord>(keys::unit("bad.service"))
            .await
            .is_none()
    );
}

#[tokio::test]
async fn machines_are_changed_by_those_who_have_them() {
    let cluster = Cluster::under(policy(POLICY));
    cluster.machine("m1", &[("region", "eu")]).await;
    cluster.machine("m2", &[("region", "us")]).await;
    for (id, status) in [("m1", 200), ("m2", 403)] {
        let path = format!("/fleet/v2/machines/{id}");
        let got = cluster
            .ask(&uid(ALICE), "POST", &path, r#"{"draining":true}"#)
            .await;
        assert_eq!(got.status, status, "{}", got.body);
    }
    let patch = |id: &str| format!(r#"[{{"op":"add","path":"/{id}/metadata/a","value":"b"}}]"#);
    for (id, status) in [("m1", 204), ("m2", 403), ("unknown", 403)] {
        let got = cluster
            .ask(&uid(ALICE), "PATCH", "/fleet/v1/machines", &patch(id))
            .await;
        assert_eq!(got.status, status, "{id}: {}", got.body);
    }
    // What is set at run time counts as it is shown: she cannot take a machine in.
    let got = cluster
        .ask(
            &uid(BOB),
            "PATCH",
            "/fleet/v1/machines",
            &patch("m2").replace("/a", "/region").replace("b\"", "eu\""),
        )
        .await;
    assert_eq!(got.status, 204);
    let got = cluster
        .ask(&uid(ALICE), "GET", "/fleet/v2/machines/m2", "")
        .await;
    assert_eq!(got.status, 200, "{}", got.body);
}

#[tokio::test]
async fn everybody_may_ask_who_he_is_and_what_he_may_do() {
    let cluster = Cluster::under(policy(POLICY));
    cluster.machine("m1", &[("region", "eu")]).await;
    cluster.machine("m2", &[("region", "us")]).await;
    cluster
        .has("web-1.service", "eu", DesiredState::Inactive)
        .await;
    cluster
        .has("web-2.service", "us", DesiredState::Inactive)
        .await;
    let ask = async |who, query: &str| -> serde_json::Value {
        let path = format!("/fleet/v2/whoami?{query}");
        let got = cluster.ask(&uid(who), "GET", &path, "").await;
        serde_json::from_str(&got.body).unwrap()
    };
    let nobody = ask(DAVE, "").await;
    assert_eq!(
        nobody,
        serde_json::json!({"who": "uid 1003", "roles": [], "verbs": []})
    );
    let alice = ask(ALICE, "").await;
    assert_eq!(alice["roles"], serde_json::json!(["submitter", "web"]));
    let verbs = alice["verbs"].to_string();
    assert!(
        verbs.contains("unit:start") && !verbs.contains("unit:destroy"),
        "{verbs}"
    );
    assert!(
        !verbs.contains("cluster:read") && !verbs.contains("metrics:read"),
        "{verbs}"
    );
    assert_eq!(ask(0, "").await["roles"], serde_json::json!(["admin"]));
    for (query, allowed) in [
        ("verb=unit:start&unit=web-1.service", true),
        ("verb=unit:start&unit=web-2.service", false),
        ("verb=unit:destroy&unit=web-1.service", false),
        ("verb=machine:drain&machine=m1", true),
        ("verb=machine:drain&machine=m2", false),
        ("verb=cluster:thaw", false),
    ] {
        let answer = ask(ALICE, query).await;
        assert_eq!(answer["allowed"], allowed, "{query}: {answer}");
        let reason = answer["reason"].as_str().unwrap_or_default();
        assert_eq!(
            reason.contains("would allow it"),
            !allowed,
            "{query}: {answer}"
        );
    }
    let bad = ask(ALICE, "verb=fly").await;
    assert!(bad.to_string().contains("no such verb"), "{bad}");
}

/// The events, until they are as wanted.
async fn denied(
    cluster: &Cluster,
    wanted: impl Fn(&[serde_json::Value]) -> bool,
) -> Vec<serde_json::Value> {
    let mut seen = Vec::new();
    for _ in 0..10_000 {
        let got = cluster
            .ask(&uid(0), "GET", "/fleet/v2/events?limit=1000", "")
            .await;
        let listing: serde_json::Value = serde_json::from_str(&got.body).unwrap();
        let events = listing["events"].as_array().unwrap().iter();
        seen = events
            .filter(|event| event["kind"] == "denied")
            .cloned()
            .collect();
        if wanted(&seen) {
            return seen;
        }
        tokio::time::advance(std::time::Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    panic!("other denials were told: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_at_once_and_a_flood_of_them_in_few_events() {
    let cluster = Cluster::under(policy(POLICY));
    cluster
        .has("db.service", "eu", DesiredState::Inactive)
        .await;
    let path = "/fleet/v1/units/db.service";
    let delete = async || cluster.ask(&uid(ALICE), "DELETE", path, "").await;
    assert_eq!(delete().await.status, 403);
    let told = denied(&cluster, |told| told.len() == 1).await;
    assert_eq!(
        (&told[0]["by"], &told[0]["unit"]),
        (&"uid 1000".into(), &"db.service".into())
    );
    let why = told[0]["reason"].as_str().unwrap();
    assert!(why.contains("may not unit:destroy db.service"), "{why}");
    // A flood: of the same, and of many different ones.
    for n in 0..2_000 {
        assert_eq!(delete().await.status, 403);
        let path = format!("/fleet/v1/units/x{n}.service");
        assert_eq!(cluster.ask(&uid(DAVE), "GET", &path, "").await.status, 403);
    }
    let n_times =
        |event: &serde_json::Value| event["reason"].as_str().unwrap().contains("(2000 times)");
    let is_whole = |told: &[serde_json::Value]| told.iter().any(n_times);
    let told = denied(&cluster, is_whole).await;
    assert!(told.len() <= 1 + 16, "{}", told.len());
    let all = serde_json::to_string(&told).unwrap();
    assert!(
        all.contains("1985 other requests were denied meanwhile"),
        "{all}"
    );
    // They have pushed out nothing: their ring is their own.
    let ring = keys::events_of(keys::EventWriter::Api("m0"));
    let ring = Range {
        prefix: ring,
        ..Range::default()
    };
    assert!(cluster.store.read(ring).await.unwrap().entries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_a_machine_asks_on_behalf_of_others() {
    let cluster = Cluster::under(policy(POLICY));
    cluster
        .has("web-1.service", "eu", DesiredState::Inactive)
        .await;
    let address = "10.0.0.7:4711".parse().unwrap();
    let machine = Caller::Machine(MachineId::new("m7"), address);
    let ask = async |caller: &Caller, behalf: &str, method: &str, body: &str| {
        let path = "/fleet/v1/units/web-1.service";
        let header = [(BEHALF_HEADER, behalf)];
        cluster.ask_with(caller, method, path, &header, body).await
    };
    let launch = r#"{"desiredState":"launched"}"#;
    let viewer = "roles=viewer; who=uid 1002";
    assert_eq!(ask(&machine, viewer, "GET", "").await.status, 200);
    let got = ask(&machine, viewer, "PUT", launch).await;
    assert_eq!(got.status, 403);
    assert!(
        got.body.contains("uid 1002 on m7 may not unit:"),
        "{}",
        got.body
    );
    assert_eq!(
        ask(&machine, "roles=operator; who=uid 1", "PUT", launch)
            .await
            .status,
        204
    );
    assert_eq!(
        cluster.wish("web-1.service").await.changed_by,
        "uid 1 on m7"
    );
    assert_eq!(ask(&machine, "nonsense", "GET", "").await.status, 400);
    // For itself a machine sees nothing, and nobody else lends himself a role.
    let path = "/fleet/v1/units/web-1.service";
    assert_eq!(cluster.ask(&machine, "GET", path, "").await.status, 403);
    for caller in [uid(CAROL), Caller::Anonymous(address)] {
        let got = ask(&caller, "roles=admin; who=uid 0", "PUT", launch).await;
        assert_eq!(got.status, 403);
        assert!(
            got.body.contains("counts only from a machine"),
            "{}",
            got.body
        );
    }
    let told = denied(&cluster, |told| told.len() >= 3).await;
    let by = |who: &str| told.iter().any(|event| event["by"] == who);
    assert!(
        by("uid 1002 on m7") && by("uid 1002") && by("10.0.0.7"),
        "{told:?}"
    );
    // Who may do everything may also ask for less.
    assert_eq!(ask(&uid(0), viewer, "PUT", launch).await.status, 403);
}

#[tokio::test]
async fn a_new_policy_holds_from_the_next_request_on() {
    let mut cluster = Cluster::new();
    let access = Access::default();
    cluster.state = cluster.state.under(access.clone());
    let carol = Caller::Certificate(
        Arc::new(Identity {
            name: "carol".into(),
            roles: Vec::new(),
        }),
        "10.0.0.7:4711".parse().unwrap(),
    );
    let asked = async |caller: &Caller| {
        cluster
            .ask(caller, "GET", "/fleet/v1/units", "")
            .await
            .status
    };
    assert_eq!((asked(&uid(DAVE)).await, asked(&carol).await), (200, 403));
    access.set(policy("[Grant viewer]\nTo=cert:carol\n"));
    assert_eq!((asked(&uid(DAVE)).await, asked(&carol).await), (403, 200));
}

/// Who hands in what this machine would not run hears it at once; what is there already may be stopped.
#[tokio::test]
async fn where_signatures_are_demanded_unsigned_units_are_refused_with_the_cure() {
    let mut cluster = Cluster::new();
    let trust = Arc::new(Trust::only(vec![public_key(1)]));
    let (_trust, trust) = tokio::sync::watch::channel(trust);
    cluster.state = cluster.state.trusting(trust);
    cluster
        .has("old.service", "eu", DesiredState::Launched)
        .await;
    let put = async |unit: &str, body: &str| {
        let path = format!("/fleet/v1/units/{unit}");
        cluster.ask(&uid(0), "PUT", &path, body).await
    };
    let got = put("a.service", SLEEP).await;
    assert_eq!(got.status, 403);
    let said = "Unit a.service: it is not signed";
    assert!(
        got.body.contains(said) && got.body.contains("fleetctl sign"),
        "{}",
        got.body
    );
    assert_eq!(
        put("old.service", r#"{"desiredState":"loaded"}"#)
            .await
            .status,
        403
    );
    assert_eq!(
        put("old.service", r#"{"desiredState":"inactive"}"#)
            .await
            .status,
        204
    );
    assert_eq!(
        put("old.service", r#"{"desiredState":"launched"}"#)
            .await
            .status,
        403
    );
    let got = cluster
        .ask(&uid(0), "DELETE", "/fleet/v1/units/old.service", "")
        .await;
    assert_eq!(got.status, 204);

    // v1 clients need not know of it: the signature is in the file.
    let signed = UnitFile::parse(sign(SLEEP_TEXT, "a.service", 1)).unwrap();
    let options: Vec<_> = signed
        .options()
        .iter()
        .map(|o| (&*o.section, &*o.name, &*o.value))
        .collect();
    assert_eq!(
        put("a.service", &body(&options, "launched")).await.status,
        201
    );
    assert_eq!(put("b.service", &body(&options, "")).await.status, 403);
    let text = serde_json::json!(sign(SLEEP_TEXT, "c@.service", 1));
    let batch = format!(
        r#"{{"units":[{{"name":"c@1.service","text":{text},"desiredState":"launched"}},
            {{"name":"d.service","text":{text}}}]}}"#
    );
    let got = cluster
        .ask(&uid(0), "POST", "/fleet/v2/units", &batch)
        .await;
    let answer: serde_json::Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(answer["units"][0]["outcome"], "created", "{}", got.body);
    assert_eq!(answer["units"][1]["code"], 403, "{}", got.body);
}
