//! Policies as text, and what they decide.

use std::os::unix::fs::PermissionsExt;

use super::load::{Accounts, Error, load};
use super::policy::{Metadata, Pins};
use super::*;

const PASSWD: &str =
    "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/:\nbob:x:1001:100::/:\ncarol:x:1002:30::/:\n";
const GROUP: &str = "root:x:0:\nweb:x:30:alice\nusers:x:100:\n";

fn accounts() -> Accounts {
    Accounts {
        users: PASSWD.to_owned(),
        groups: GROUP.to_owned(),
    }
}

/// Who owns the files of this test.
fn owner() -> u32 {
    rustix::process::getuid().as_raw()
}

fn try_policy(text: &str) -> Result<load::Loaded, Error> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.conf"), text).unwrap();
    load(directory.path(), owner(), &accounts())
}

fn policy(text: &str) -> Policy {
    try_policy(text).unwrap().policy
}

fn uid(uid: u32) -> Caller {
    Caller::Unix {
        uid,
        gid: 100,
        pid: None,
    }
}

fn address() -> SocketAddr {
    "10.0.0.7:4711".parse().unwrap()
}

fn certificate(name: &str, roles: &[&str]) -> Caller {
    let identity = Identity {
        name: name.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
    };
    Caller::Certificate(Arc::new(identity), address())
}

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn pins(pairs: &[(&str, &[&str])]) -> Pins {
    let pairs = pairs.iter();
    let values = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect();
    pairs.map(|(k, v)| ((*k).to_owned(), values(v))).collect()
}

const WEB: &str = "[Role web]
Allow=*:read unit:start unit:stop unit:submit machine:drain
Units=web-*
Machines=region=eu region=us

[Grant web]
To=group:web
[Grant operator]
To=user:bob cert:ci
[Grant viewer]
To=local
";

/// What a caller may do, as `verb object`.
fn check(policy: &Policy, caller: &Caller, verb: Verb, object: Object<'_>, allowed: bool) {
    let decision = policy.decide(Some(caller), verb, object);
    assert_eq!(
        decision == Decision::Allowed,
        allowed,
        "{verb} {object}: {decision:?}"
    );
    assert_eq!(policy.allows(Some(caller), verb, object), allowed);
}

#[test]
fn a_role_allows_its_verbs_on_its_units_and_machines_and_nothing_else() {
    let policy = policy(WEB);
    let eu = metadata(&[("region", "eu"), ("disk", "ssd")]);
    let asia = metadata(&[("region", "asia")]);
    let (in_eu, in_both) = (
        pins(&[("region", &["eu"])]),
        pins(&[("region", &["eu", "us"])]),
    );
    let (in_asia, anywhere) = (pins(&[("region", &["eu", "asia"])]), pins(&[]));
    // A member of the group, and one whose first group it is.
    let carol = Caller::Unix {
        uid: 1002,
        gid: 30,
        pid: None,
    };
    for caller in [uid(1000), carol] {
        for (verb, object, allowed) in [
            (
                Verb::UnitStart,
                Object::UnitFor("web-1.service", &in_eu),
                true,
            ),
            (
                Verb::UnitStart,
                Object::UnitFor("web-1.service", &in_both),
                true,
            ),
            (
                Verb::UnitStart,
                Object::UnitFor("web-1.service", &in_asia),
                false,
            ),
            (
                Verb::UnitStart,
                Object::UnitFor("web-1.service", &anywhere),
                false,
            ),
            (
                Verb::UnitStart,
                Object::UnitFor("db.service", &in_eu),
                false,
            ),
            (
                Verb::UnitDestroy,
                Object::UnitFor("web-1.service", &in_eu),
                false,
            ),
            (Verb::MachineDrain, Object::Machine("m1", &eu), true),
            (Verb::MachineDrain, Object::Machine("m2", &asia), false),
            (
                Verb::JournalRead,
                Object::UnitOn("web-1.service", &eu),
                true,
            ),
            (Verb::UnitExec, Object::UnitOn("web-1.service", &eu), false),
            (Verb::ClusterThaw, Object::Cluster, false),
            // viewer, by the socket.
            (Verb::UnitRead, Object::Unit("db.service"), true),
            (Verb::ClusterRead, Object::Cluster, true),
        ] {
            check(&policy, &caller, verb, object, allowed);
        }
    }
}

#[test]
fn built_in_roles_hold_one_another() {
    let policy = policy(WEB);
    let of = |role: &str| certificate("x", &[role]);
    for verb in Verb::ALL {
        let may = |role: &str| policy.allows_all(Some(&of(role)), *verb);
        assert!(may("admin"), "{verb}");
        assert!(may("operator") || !may("viewer"), "{verb}");
        assert_eq!(may("viewer"), verb.as_str().ends_with(":read"), "{verb}");
        // A certificate for a person does not make a machine of him.
        assert!(!may("machine") && !may("nobody"), "{verb}");
    }
    assert!(!policy.allows_all(Some(&of("operator")), Verb::UnitExec));
    assert!(!policy.allows_all(Some(&of("operator")), Verb::CertificateIssue));
}

#[test]
fn root_on_the_socket_is_never_locked_out_and_nobody_else_slips_in() {
    let narrow = policy("[Grant viewer]\nTo=user:alice\n");
    for policy in [&narrow, &Policy::closed(owner())] {
        check(
            policy,
            &uid(0),
            Verb::ClusterAcceptStore,
            Object::Cluster,
            true,
        );
        for caller in [
            uid(1001),
            Caller::Anonymous(address()),
            certificate("root", &[]),
            Caller::Machine(MachineId::new("m1"), address()),
        ] {
            check(
                policy,
                &caller,
                Verb::UnitRead,
                Object::Unit("a.service"),
                false,
            );
        }
        assert!(!policy.allows(None, Verb::UnitRead, Object::Unit("a.service")));
    }
}

#[test]
fn without_a_policy_all_is_as_it_was_but_certificates_say_what_they_allow() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("absent")] {
        let open = load(&path, owner(), &accounts()).unwrap().policy;
        assert!(open.is_open());
        for caller in [uid(1001), Caller::Anonymous(address())] {
            check(
                &open,
                &caller,
                Verb::UnitExec,
                Object::Unit("a.service"),
                true,
            );
        }
        assert!(open.allows(None, Verb::Other, Object::Cluster));
        let ci = certificate("ci", &["operator"]);
        check(&open, &ci, Verb::UnitStart, Object::Unit("a.service"), true);
        check(&open, &ci, Verb::UnitExec, Object::Unit("a.service"), false);
        let nobody = certificate("ci", &[]);
        check(
            &open,
            &nobody,
            Verb::UnitRead,
            Object::Unit("a.service"),
            false,
        );
    }
}

#[test]
fn a_refusal_says_who_what_and_which_role_would_do() {
    let policy = policy(WEB);
    let said = |caller: &Caller, verb, object| match policy.decide(Some(caller), verb, object) {
        Decision::Refused(why) => why,
        Decision::Allowed => panic!("{verb} {object} is allowed"),
    };
    assert_eq!(
        said(&uid(1000), Verb::UnitDestroy, Object::Unit("db.service")),
        "uid 1000 may not unit:destroy db.service: it has roles viewer, web; role operator would \
         allow it"
    );
    assert_eq!(
        said(
            &certificate("eve", &[]),
            Verb::UnitExec,
            Object::Unit("db.service")
        ),
        "cert eve may not unit:exec db.service: it has no role; role admin would allow it"
    );
    assert_eq!(
        said(
            &Caller::Anonymous(address()),
            Verb::ClusterThaw,
            Object::Cluster
        ),
        "10.0.0.7 may not cluster:thaw the cluster: it has no role; role operator would allow it"
    );
}

#[test]
fn a_machine_asks_in_its_callers_roles_whose_meaning_is_local() {
    let here = policy(WEB);
    let header = here.behalf_header(&uid(1000));
    assert_eq!(header, "roles=viewer,web; who=uid 1000");
    let there = Caller::behalf_of(Some(MachineId::new("m1")), &header).unwrap();
    assert_eq!(there.to_string(), "uid 1000 on m1");
    check(
        &here,
        &there,
        Verb::UnitRead,
        Object::Unit("db.service"),
        true,
    );
    check(
        &here,
        &there,
        Verb::UnitExec,
        Object::Unit("web-1.service"),
        false,
    );
    // Uid 0 there is not root here by its number, and a role that is not known here is none.
    let closed = Policy::closed(owner());
    let root = Caller::behalf_of(Some(MachineId::new("m1")), "roles=web; who=uid 0").unwrap();
    check(
        &closed,
        &root,
        Verb::UnitRead,
        Object::Unit("web-1.service"),
        false,
    );
    let machine = Caller::behalf_of(None, "roles=machine; who=x").unwrap();
    check(
        &here,
        &machine,
        Verb::CertificateRenew,
        Object::Cluster,
        false,
    );
    for bad in ["", "roles=a", "who=x", "roles=a; who=", "x; who=y"] {
        assert_eq!(Caller::behalf_of(None, bad), None, "{bad}");
    }
    let long = format!("roles=viewer; who={}", "x".repeat(MAX_WHO_BYTES + 1));
    assert_eq!(Caller::behalf_of(None, &long), None);
    let header = here.behalf_header(&certificate(&"é".repeat(200), &["viewer"]));
    assert!(Caller::behalf_of(None, &header).is_some(), "{header}");
    assert_eq!(
        Policy::default().behalf_header(&uid(7)),
        "roles=admin; who=uid 7"
    );
}

#[test]
fn a_policy_that_makes_no_sense_is_not_used_in_part() {
    for (text, said) in [
        (
            "[Role web]\nAllow=unit:fly\n",
            "[Role web] Allow=unit:fly: unit:fly is no verb",
        ),
        (
            "[Role web]\nAlow=*\n",
            "Alow= means nothing: write Allow=, Units= or Machines=",
        ),
        ("[Role web]\nUnits=[\n", "the pattern [ is malformed"),
        ("[Role web]\nMachines=eu\n", "eu is not key=value"),
        ("[Role admin]\nAllow=*\n", "admin is built in"),
        ("[Grant nobody]\nTo=local\n", "[Grant nobody] names no role"),
        ("[Grant viewer]\nTo=alice\n", "To=alice: write user:NAME"),
        ("[Grant viewer]\nTo=uid:x\n", "To=uid:x: write user:NAME"),
        (
            "[Grant viewer]\nFor=local\n",
            "For= means nothing: write To=",
        ),
        ("[Roles]\nx=y\n", "[Roles] means nothing"),
        ("[Grant viewer]\nTo\n", "unexpected newline"),
    ] {
        let error = try_policy(text).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("a.conf"), "{error}");
    }
}

#[test]
fn an_account_that_there_is_not_is_said_and_gets_nothing() {
    let loaded = try_policy("[Grant admin]\nTo=user:mallory group:nowhere uid:1001\n").unwrap();
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(
        loaded.warnings[0].contains("user:mallory"),
        "{:?}",
        loaded.warnings
    );
    assert_eq!(loaded.policy.counts(), (0, 1));
    check(
        &loaded.policy,
        &uid(1001),
        Verb::UnitExec,
        Object::Unit("a.service"),
        true,
    );
}

#[test]
fn roles_and_grants_may_stand_in_different_files_and_other_files_do_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("1-grants.conf", "[Grant web]\nTo=uid:7\n");
    write("2-roles.conf", "[Role web]\nAllow=unit:*\n");
    write("3-old.conf~", "nonsense");
    let policy = load(directory.path(), owner(), &accounts()).unwrap().policy;
    assert_eq!(policy.counts(), (1, 1));
    check(
        &policy,
        &uid(7),
        Verb::UnitExec,
        Object::Unit("a.service"),
        true,
    );
    // What of it holds would depend on the order of the files.
    write("4-more.conf", "[Role web]\nUnits=a*\n");
    let error = load(directory.path(), owner(), &accounts())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("4-more.conf: [Role web] stands twice"),
        "{error}"
    );
}

#[test]
fn a_policy_that_others_can_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.conf");
    std::fs::write(&path, "[Grant admin]\nTo=local\n").unwrap();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&path, 0o664);
    let error = load(directory.path(), owner(), &accounts())
        .unwrap_err()
        .to_string();
    assert!(error.contains("a.conf has mode 0664"), "{error}");
    mode(&path, 0o644);
    mode(directory.path(), 0o777);
    let error = load(directory.path(), owner(), &accounts())
        .unwrap_err()
        .to_string();
    assert!(error.contains("has mode 0777"), "{error}");
    mode(directory.path(), 0o755);
    assert!(load(directory.path(), owner(), &accounts()).is_ok());
}

#[test]
fn verbs_are_named_one_by_one_or_by_kind() {
    let of = |word: &str| Verbs::parse(word).map(|verbs| verbs.iter().collect::<Vec<_>>());
    assert_eq!(of("unit:read"), Some(vec![Verb::UnitRead]));
    assert_eq!(of("certificate:*").map(|verbs| verbs.len()), Some(3));
    assert!(of("*:read").is_some_and(|verbs| verbs.contains(&Verb::MetricsRead)));
    assert_eq!(of("*").map(|verbs| verbs.len()), Some(Verb::ALL.len()));
    for word in ["", "unit", "unit:", "unit:fly", "x:*", "*:x"] {
        assert_eq!(of(word), None, "{word}");
    }
    for verb in Verb::ALL {
        assert_eq!(Verb::parse(verb.as_str()), Some(*verb));
    }
}
