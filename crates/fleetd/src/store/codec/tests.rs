use std::collections::BTreeMap;
use std::fmt::Debug;

use fleet_core::events::{Event, EventKind, EventsRecord};
use fleet_core::hash::UnitHash;
use fleet_core::name::UnitName;
use fleet_core::records::*;
use proptest::prelude::*;
use serde_json::Value;

use super::{
    AskedRecord, CertifiedRecord, ClusterRecord, Document, IssuerRecord, LeaderRecord,
    RevokedRecord, UsedTokenRecord,
};
use crate::store::Error;

const ID: &str = "148a18ff6e954cd892dac9de9bb90d5a";
const OTHER: &str = "491586a6508f4583a71dbfc4d146e996";
/// The largest revision that the sizes are promised for: a store with a thousand million writes.
const LATE: u64 = 999_999_999;

fn metadata() -> BTreeMap<String, String> {
    [("region", "eu"), ("disk", "ssd \"fast\"")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

fn unit() -> UnitRecord {
    UnitRecord {
        text: "[Service]\nExecStart=/bin/echo \"é\"\n".into(),
        hash: UnitHash::of(b"text"),
        desired: DesiredState::Launched,
        restarts: 3,
        prefer: None,
        request_id: "req-1".to_owned(),
        earlier_requests: Vec::new(),
        buried: false,
        changed_by: "uid 0".to_owned(),
        changed_ms: 1_700_000_000_123,
    }
}

fn placement() -> PlacementRecord {
    PlacementRecord {
        machine: Some(MachineId::new(ID)),
        leaving: Some(MachineId::new(OTHER)),
        decision: Decision {
            generation: LATE - 1,
            seq: LATE,
        },
        reason: "least loaded".to_owned(),
        refusals: vec![Refusal {
            requirement: "MachineMetadata region=\"eu\"".to_owned(),
            machines: 7,
        }],
        passed_over: vec![Refusal {
            requirement: "Conflicts with b.service".to_owned(),
            machines: 1,
        }],
        considered: 12,
        assigned: 5,
        failures: Failures {
            moves: 2,
            failed_on: vec![MachineId::new(OTHER)],
            next_ms: 1_700_000_000_456,
            stays: true,
        },
        since_ms: 1_700_000_000_123,
    }
}

fn assignment() -> AssignmentRecord {
    AssignmentRecord {
        text: "[Service]\nExecStart=/bin/true\n".into(),
        hash: UnitHash::of(b"text"),
        decision: Decision {
            generation: 41,
            seq: 42,
        },
        order: Order::Loaded,
        restarts: 2,
        reason: "drain of m2".to_owned(),
    }
}

fn machine() -> MachineRecord {
    MachineRecord {
        boot_id: "b".to_owned(),
        public_ip: "10.0.0.1".to_owned(),
        metadata: metadata(),
        version: "1.0.0".to_owned(),
        format: 1,
        api: String::new(),
        disable_engine: true,
        trouble: Some("systemd cannot be reached: gone".to_owned()),
        remark: None,
    }
}

fn member() -> MemberRecord {
    MemberRecord {
        status: MemberStatus::Suspect,
        since_ms: 5,
        first_seen_ms: 4,
        public_ip: "10.0.0.1".to_owned(),
        metadata: metadata(),
        reason: "its lease has gone".to_owned(),
        avoided: Some(Avoided {
            why: "3 units failed".to_owned(),
            revision: 8,
            opened: 1,
        }),
    }
}

fn wish() -> MachineWish {
    MachineWish {
        metadata: metadata(),
        cordon: true,
        drain: true,
        max_parallel: 3,
        opened: 2,
    }
}

fn state() -> StateRecord {
    StateRecord {
        load: "bad-setting".to_owned(),
        active: "failed".to_owned(),
        sub: "failed".to_owned(),
        hash: UnitHash::of(b"text"),
        decision: Decision {
            generation: LATE - 1,
            seq: LATE,
        },
        reached: Reached::Refused,
        invocation_id: ID.to_owned(),
        description: "Hello \"World\"".to_owned(),
        why: Some("exit status 1".to_owned()),
        leased_ms: None,
        log: vec!["a\tline".to_owned(), String::new()],
    }
}

fn leader() -> LeaderRecord {
    LeaderRecord {
        machine: MachineId::new(ID),
        version: "1.0.0".to_owned(),
        engine: 1,
        since_ms: 7,
    }
}

fn thaw() -> AskedRecord {
    AskedRecord {
        by: "uid 0".to_owned(),
        at_ms: 9,
        machines: vec![MachineId::new(ID)],
    }
}

fn told() -> EventsRecord {
    let event = |kind: &str, unit: &str, why: &str| Event {
        kind: EventKind::parse(kind),
        unit: Some(UnitName::parse(unit).unwrap()),
        machine: None,
        from: None,
        why: why.to_owned(),
    };
    EventsRecord {
        number: 70_000,
        at_ms: 1_700_000_000_123,
        by: "uid 0".to_owned(),
        first: 9,
        events: vec![
            event("started", "a.service", "m2 is \"lost\""),
            event("started", "b.service", "m2 is \"lost\""),
            event("rebalanced", "c.service", ""),
            Event {
                machine: Some(MachineId::new(ID)),
                from: Some(MachineId::new(OTHER)),
                ..event("moved", "d.service", "")
            },
            Event::of_machine(
                EventKind::Lost,
                MachineId::new(OTHER),
                "no sign of life for 5 s",
            ),
        ],
        left_out: 3,
    }
}

fn revoked() -> RevokedRecord {
    RevokedRecord {
        at_ms: 9,
        by: "user:alice".to_owned(),
        why: "a \"lost\" laptop".to_owned(),
    }
}

fn used_token() -> UsedTokenRecord {
    UsedTokenRecord {
        at_ms: 9,
        subject: format!("machine:{ID}"),
    }
}

fn certified() -> CertifiedRecord {
    CertifiedRecord {
        at_ms: 9,
        until_ms: 10,
    }
}

fn issuer() -> IssuerRecord {
    IssuerRecord { since_ms: 9 }
}

fn cluster() -> ClusterRecord {
    ClusterRecord {
        id: "c".to_owned(),
        format: 1,
        engine: 1,
    }
}

/// Runs `$check(record)` for a record of each kind, all of whose fields are set.
macro_rules! for_each_record {
    ($check:ident) => {
        $check(unit());
        $check(placement());
        $check(assignment());
        $check(machine());
        $check(member());
        $check(wish());
        $check(state());
        $check(leader());
        $check(cluster());
        $check(thaw());
        $check(told());
        $check(revoked());
        $check(used_token());
        $check(certified());
        $check(issuer());
    };
}

fn object(bytes: &[u8]) -> serde_json::Map<String, Value> {
    serde_json::from_slice(bytes).expect("a JSON object")
}

#[test]
fn every_record_comes_back_as_it_was() {
    fn check<D: Document + PartialEq + Debug>(record: D) {
        assert_eq!(D::decode("k", &record.encode()).unwrap(), record);
    }
    for_each_record!(check);
    check(PlacementRecord {
        machine: None,
        leaving: None,
        refusals: vec![],
        passed_over: vec![],
        ..placement()
    });
    check(MachineRecord {
        api: ":49153".into(),
        ..machine()
    });
    check(MachineRecord::default());
    check(MachineWish::default());
    for invocation_id in ["", "ABCDEF", &ID.to_uppercase(), "é"] {
        check(StateRecord {
            invocation_id: invocation_id.to_owned(),
            why: None,
            leased_ms: None,
            log: vec![],
            ..state()
        });
    }
    check(StateRecord {
        leased_ms: Some(603_000),
        ..state()
    });
    for reached in [
        Reached::Gone,
        Reached::Working,
        Reached::Loaded,
        Reached::Launched,
    ] {
        check(StateRecord {
            load: "loaded".to_owned(),
            reached,
            ..state()
        });
    }
}

/// The layout of the documents is a promise to other versions of fleetd.
#[test]
fn the_format_is_as_it_was_first_written() {
    fn text(record: &impl Document) -> String {
        String::from_utf8(record.encode()).unwrap()
    }
    let written = [
        text(&unit()),
        text(&placement()),
        text(&assignment()),
        text(&machine()),
        text(&member()),
        text(&wish()),
        text(&MachineWish::default()),
        text(&state()),
        text(&leader()),
        text(&cluster()),
        text(&thaw()),
        text(&told()),
    ];
    let expected = [
        r#"{"v":1,"desired":"launched","hash":"Ny6gjKsz5xwCxlHbyDpHTTLGduo","restarts":3,"request":"req-1","by":"uid 0","changed":1700000000123,"text":"[Service]\nExecStart=/bin/echo \"é\"\n"}"#,
        r#"{"v":1,"on":"148a18ff6e954cd892dac9de9bb90d5a","leaving":"491586a6508f4583a71dbfc4d146e996","at":[999999998,999999999],"since":1700000000123,"reason":"least loaded","refused":[["MachineMetadata region=\"eu\"",7]],"passed_over":[["Conflicts with b.service",1]],"considered":12,"assigned":5,"moves":2,"failed_on":["491586a6508f4583a71dbfc4d146e996"],"next":1700000000456,"stays":true}"#,
        r#"{"v":1,"order":"loaded","at":[41,42],"hash":"Ny6gjKsz5xwCxlHbyDpHTTLGduo","restarts":2,"reason":"drain of m2","text":"[Service]\nExecStart=/bin/true\n"}"#,
        r#"{"v":1,"boot":"b","ip":"10.0.0.1","metadata":{"disk":"ssd \"fast\"","region":"eu"},"version":"1.0.0","format":1,"no_engine":true,"trouble":"systemd cannot be reached: gone"}"#,
        r#"{"v":1,"status":"suspect","since":5,"first_seen":4,"ip":"10.0.0.1","metadata":{"disk":"ssd \"fast\"","region":"eu"},"reason":"its lease has gone","avoided":["3 units failed",8,1]}"#,
        r#"{"v":1,"metadata":{"disk":"ssd \"fast\"","region":"eu"},"cordon":true,"drain":true,"parallel":3,"opened":2}"#,
        r#"{"v":1}"#,
        r#"{"v":1,"load":"bad-setting","is":"failed/failed","hash":"Ny6gjKsz5xwCxlHbyDpHTTLGduo","at":[999999998,999999999],"did":"refused","id":"FIoY_26VTNiS2snem7kNWg","desc":"Hello \"World\"","why":"exit status 1","log":["a\tline",""]}"#,
        r#"{"v":1,"machine":"148a18ff6e954cd892dac9de9bb90d5a","version":"1.0.0","engine":1,"since":7}"#,
        r#"{"v":1,"id":"c","format":1,"engine":1}"#,
        r#"{"v":1,"by":"uid 0","at":9,"machines":["148a18ff6e954cd892dac9de9bb90d5a"]}"#,
        r#"{"v":1,"n":70000,"at":1700000000123,"by":"uid 0","first":9,"left":3,"events":[{"is":"started","of":"a.service","why":"m2 is \"lost\""},{"of":"b.service"},{"is":"rebalanced","of":"c.service","why":""},{"is":"moved","of":"d.service","on":"148a18ff6e954cd892dac9de9bb90d5a","from":"491586a6508f4583a71dbfc4d146e996"},{"is":"lost","on":"491586a6508f4583a71dbfc4d146e996","why":"no sign of life for 5 s"}]}"#,
    ];
    assert_eq!(written, expected);
}

#[test]
fn an_old_reader_passes_over_what_a_newer_writer_added_and_keeps_it() {
    fn check<D: Document + PartialEq + Debug>(record: D) {
        let mut newer = object(&record.encode());
        newer.insert("v".to_owned(), 2.into());
        newer.insert(
            "added".to_owned(),
            serde_json::json!({"a": [1, 1.50, null]}),
        );
        newer.insert("also \"added\"".to_owned(), Value::Bool(true));
        let newer = serde_json::to_vec(&newer).unwrap();
        assert_eq!(D::decode("k", &newer).unwrap(), record);

        let over = record.encode_over(&newer);
        assert_eq!(
            object(&over),
            object(&newer),
            "nothing lost, nothing else changed"
        );
        assert_eq!(D::decode("k", &over).unwrap(), record);
    }
    for_each_record!(check);
}

#[test]
fn a_new_reader_takes_what_an_older_writer_left_out() {
    fn check<D: Document + PartialEq + Debug>(required: &[&str], record: D, least: D) {
        let full = object(&record.encode());
        let mut document = full.clone();
        document.retain(|name, _| name == "v" || required.contains(&name.as_str()));
        let bytes = serde_json::to_vec(&document).unwrap();
        assert_eq!(D::decode("k", &bytes).unwrap(), least);
        assert_eq!(object(&least.encode_over(&bytes)), document);
        for name in required.iter().chain(&["v"]) {
            let mut document = full.clone();
            document.remove(*name);
            let error = D::decode("k", &serde_json::to_vec(&document).unwrap()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    let none = BTreeMap::new;
    let empty = String::new;
    check(
        &["desired", "hash"],
        unit(),
        UnitRecord {
            text: "".into(),
            restarts: 0,
            prefer: None,
            request_id: empty(),
            earlier_requests: Vec::new(),
            buried: false,
            changed_by: empty(),
            changed_ms: 0,
            ..unit()
        },
    );
    check(
        &["at"],
        placement(),
        PlacementRecord {
            machine: None,
            leaving: None,
            reason: empty(),
            refusals: vec![],
            passed_over: Vec::new(),
            considered: 0,
            assigned: 0,
            failures: Failures::default(),
            since_ms: 0,
            ..placement()
        },
    );
    check(
        &["order", "at", "hash"],
        assignment(),
        AssignmentRecord {
            text: "".into(),
            restarts: 0,
            reason: empty(),
            ..assignment()
        },
    );
    check(&[], machine(), MachineRecord::default());
    check(
        &["status"],
        member(),
        MemberRecord {
            since_ms: 0,
            first_seen_ms: 0,
            public_ip: empty(),
            metadata: none(),
            reason: empty(),
            avoided: None,
            ..member()
        },
    );
    check(&[], wish(), MachineWish::default());
    check(
        &["is", "hash", "at"],
        state(),
        StateRecord {
            load: "loaded".to_owned(),
            reached: Reached::Launched,
            invocation_id: empty(),
            description: empty(),
            why: None,
            leased_ms: None,
            log: vec![],
            ..state()
        },
    );
    check(
        &["machine"],
        leader(),
        LeaderRecord {
            version: empty(),
            engine: 0,
            since_ms: 0,
            ..leader()
        },
    );
    check(
        &["id", "format"],
        cluster(),
        ClusterRecord {
            engine: 0,
            ..cluster()
        },
    );
    check(
        &["n"],
        told(),
        EventsRecord {
            number: told().number,
            ..EventsRecord::default()
        },
    );
    check(
        &["at"],
        revoked(),
        RevokedRecord {
            by: empty(),
            why: empty(),
            ..revoked()
        },
    );
    check(&["at", "subject"], used_token(), used_token());
    check(&["at", "until"], certified(), certified());
    check(&[], issuer(), IssuerRecord { since_ms: 0 });
    check(
        &[],
        thaw(),
        AskedRecord {
            by: empty(),
            at_ms: 0,
            machines: Vec::new(),
        },
    );
}

#[test]
fn a_damaged_old_document_is_replaced_and_numbers_are_kept_digit_by_digit() {
    assert_eq!(
        cluster().encode_over(b"{\"v\":1,\"x\":"),
        cluster().encode()
    );
    assert_eq!(cluster().encode_over(b""), cluster().encode());
    let over = cluster().encode_over(b"{\"big\": 123456789012345678901234567890.10, \"v\": 3}");
    assert_eq!(
        String::from_utf8(over).unwrap(),
        r#"{"v":3,"id":"c","format":1,"engine":1,"big":123456789012345678901234567890.10}"#
    );
}

#[test]
fn a_placement_and_a_state_without_text_take_at_most_150_bytes() {
    let placement = PlacementRecord {
        reason: String::new(),
        refusals: vec![],
        passed_over: Vec::new(),
        considered: 0,
        assigned: 0,
        failures: Failures::default(),
        ..placement()
    };
    let bytes = placement.encode();
    assert!(
        bytes.len() <= 150,
        "{}: {}",
        bytes.len(),
        String::from_utf8_lossy(&bytes)
    );
    for (load, active, sub, reached) in [
        ("loaded", "active", "running", Reached::Launched),
        ("loaded", "activating", "auto-restart", Reached::Working),
        ("loaded", "deactivating", "stop-sigterm", Reached::Working),
        ("loaded", "inactive", "dead", Reached::Loaded),
        ("loaded", "failed", "failed", Reached::Launched),
    ] {
        let state = StateRecord {
            load: load.to_owned(),
            active: active.to_owned(),
            sub: sub.to_owned(),
            reached,
            description: String::new(),
            why: None,
            leased_ms: None,
            log: vec![],
            ..state()
        };
        let bytes = state.encode();
        assert!(
            bytes.len() <= 150,
            "{}: {}",
            bytes.len(),
            String::from_utf8_lossy(&bytes)
        );
    }
}

#[test]
fn where_a_unit_ran_is_kept() {
    let brought_over = UnitRecord {
        prefer: Some(MachineId::new(OTHER)),
        ..unit()
    };
    let bytes = brought_over.encode();
    assert_eq!(UnitRecord::decode("units/a", &bytes).unwrap(), brought_over);
}

#[test]
fn requests_of_a_tombstone_are_kept() {
    let buried = UnitRecord {
        text: "".into(),
        desired: DesiredState::Destroyed,
        earlier_requests: vec!["req-0".to_owned(), "req \"1\"".to_owned()],
        buried: true,
        ..unit()
    };
    let bytes = buried.encode();
    assert_eq!(UnitRecord::decode("units/a", &bytes).unwrap(), buried);
}

#[test]
fn the_text_stands_once() {
    let text = "[Service]\nExecStart=/bin/true";
    for bytes in [
        UnitRecord {
            text: text.into(),
            ..unit()
        }
        .encode(),
        AssignmentRecord {
            text: text.into(),
            ..assignment()
        }
        .encode(),
    ] {
        assert_eq!(
            String::from_utf8(bytes)
                .unwrap()
                .matches("ExecStart")
                .count(),
            1
        );
    }
}

#[test]
fn damage_is_named_with_its_key() {
    fn why<D: Document + Debug>(bytes: &str) -> String {
        D::decode("the/key", bytes.as_bytes())
            .unwrap_err()
            .to_string()
    }
    let hash = r#""hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAA""#;
    let unit = |fields: &str| why::<UnitRecord>(&format!(r#"{{"v":1,{hash},{fields}}}"#));
    for (said, expected) in [
        (why::<UnitRecord>(""), "it is empty"),
        (why::<UnitRecord>("{\"v\":1"), "EOF while parsing"),
        (why::<UnitRecord>("[1]"), "it is not an object"),
        (why::<MachineWish>("{}"), "missing field `v`"),
        (why::<MachineWish>("{\"v\":0}"), "its version is 0"),
        (
            unit(r#""desired":"paused""#),
            r#"`desired` is an unknown word: "paused""#,
        ),
        (unit(r#""desired":"loaded","restarts":-1"#), "invalid value"),
        (
            unit(r#""desired":"loaded","restarts":1,"restarts":1"#),
            "duplicate field",
        ),
        (
            why::<UnitRecord>(r#"{"v":1,"desired":"loaded","hash":"AAA"}"#),
            r#"`hash` is not 20 bytes of base64: "AAA""#,
        ),
        (
            why::<StateRecord>(&format!(r#"{{"v":1,{hash},"at":[1,2],"is":"active"}}"#)),
            "`is` has no `/`",
        ),
        (
            why::<PlacementRecord>(r#"{"v":1,"at":[1,2],"on":""}"#),
            "`on` is empty",
        ),
        (
            why::<EventsRecord>(r#"{"v":1,"n":1,"events":[{"is":"lost","of":"a"}]}"#),
            "`of`: ",
        ),
        (
            why::<EventsRecord>(r#"{"v":1,"n":1,"events":[{"of":"a.service"}]}"#),
            "the first event does not say what it `is`",
        ),
    ] {
        assert!(
            said.starts_with("the document at the/key is damaged: "),
            "{said}"
        );
        assert!(
            said.contains(expected),
            "{said:?} does not say {expected:?}"
        );
    }
}

/// Any bytes at all: read or refused as damaged, and replaced by a document that can be read.
fn survives<D: Document + PartialEq + Debug>(record: D, bytes: &[u8]) {
    match D::decode("k", bytes) {
        Ok(read) => assert_eq!(D::decode("k", &read.encode()).unwrap(), read),
        Err(Error::Damaged { key, .. }) => assert_eq!(key, "k"),
        Err(other) => panic!("{other}"),
    }
    assert_eq!(D::decode("k", &record.encode_over(bytes)).unwrap(), record);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fn run(bytes: &[u8]) {
            macro_rules! check { ($($record:expr),*) => { $(survives($record, bytes);)* } }
            check!(unit(), placement(), assignment(), machine(), member(), wish(), state(), leader(), cluster(), told(), revoked(), used_token(), certified(), issuer());
        }
        run(&bytes);
    }

    #[test]
    fn broken_documents_never_panic(at in 0..400_usize, byte in any::<u8>(), cut in any::<bool>()) {
        fn run<D: Document + PartialEq + Debug>(record: D, at: usize, byte: u8, cut: bool) {
            let mut bytes = record.encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            survives(record, &bytes);
        }
        macro_rules! check { ($($record:expr),*) => { $(run($record, at, byte, cut);)* } }
        check!(unit(), placement(), assignment(), machine(), member(), wish(), state(), leader(), cluster(), told(), revoked(), used_token(), certified(), issuer());
    }

    #[test]
    fn any_text_comes_back(text in any::<String>(), number in any::<u64>(), list in prop::collection::vec(any::<String>(), 0..4)) {
        let decision = Decision { generation: number, seq: u64::MAX - number };
        let record = UnitRecord { text: text.as_str().into(), request_id: text.clone(), restarts: number, ..unit() };
        prop_assert_eq!(&UnitRecord::decode("k", &record.encode()).unwrap(), &record);
        let record = StateRecord {
            description: text.clone(),
            invocation_id: text.clone(),
            load: text.clone(),
            sub: text.clone(),
            why: Some(text.clone()),
            leased_ms: None,
            log: list.clone(),
            decision,
            ..state()
        };
        prop_assert_eq!(&StateRecord::decode("k", &record.encode()).unwrap(), &record);
        let record = PlacementRecord {
            reason: text.clone(),
            refusals: list.iter().map(|r| Refusal { requirement: r.clone(), machines: 1 }).collect(),
            decision,
            ..placement()
        };
        prop_assert_eq!(&PlacementRecord::decode("k", &record.encode()).unwrap(), &record);
        let record = MachineRecord {
            metadata: list.iter().map(|key| (key.clone(), text.clone())).collect(),
            trouble: Some(text.clone()),
            remark: Some(text),
            ..machine()
        };
        prop_assert_eq!(&MachineRecord::decode("k", &record.encode()).unwrap(), &record);
    }
}
