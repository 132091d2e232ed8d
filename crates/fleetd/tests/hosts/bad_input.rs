//! Bad input gets a clear error that names the thing and the cure, and changes nothing.

use std::process::Command;

use crate::cluster::{Cluster, binaries, told};

#[test]
fn fleetctl_and_the_api_refuse_what_is_bad_and_change_nothing() {
    let cluster = Cluster::up(1);
    let refused = |file: &str, text: &str, expected: &str| {
        let path = cluster.file(file, text);
        let out = cluster.fleetctl(&["start", &path]);
        assert_eq!(out.code, 1, "{file}: {}", told(&out));
        assert!(
            out.stderr.contains(expected),
            "{file}: wants {expected:?}: {}",
            told(&out)
        );
    };
    let service = "[Service]\nExecStart=/bin/sleep infinity\n";
    refused("a b.service", service, "invalid character ' ' in unit name");
    refused("a.service", "[Service]\nExecStart\n", "line 2");
    refused(
        "a.service",
        &format!("{service}[X-Fleet]\nMachineMetaData=a=b\n"),
        "MachineMetadata",
    );
    refused(
        "a.service",
        &format!("{service}[X-Fleet]\nGlobal=true\nMachineOf=b.service\n"),
        "Global cannot be used with Peers",
    );
    assert_eq!(
        cluster.ok(&["list-unit-files", "--no-legend"]),
        "",
        "nothing was stored"
    );

    // The API: a body of 10 MB, bad JSON, unknown paths and methods.
    let curl = |args: &[&str]| {
        let argv: Vec<&str> = [
            "curl",
            "-s",
            "-w",
            " %{http_code}",
            "--unix-socket",
            "/run/fleet.sock",
        ]
        .iter()
        .chain(args)
        .copied()
        .collect();
        cluster.host(0).run(&argv).unwrap()
    };
    let big = format!(
        "{{\"options\":[{{\"section\":\"Unit\",\"name\":\"X\",\"value\":\"{}\"}}]}}",
        "x".repeat(10 << 20)
    );
    cluster.host(0).write_file("/units/big.json", &big).unwrap();
    let json = ["-H", "Content-Type: application/json", "-X", "PUT"];
    let unit = "http://fleet/fleet/v1/units/a.service";
    let answer = curl(
        &[
            &json[..],
            &["-H", "Expect:", "--data-binary", "@/units/big.json", unit],
        ]
        .concat(),
    );
    assert!(
        answer.ends_with(" 413"),
        "{}",
        &answer[..answer.len().min(300)]
    );
    let answer = curl(&[&json[..], &["-d", "{", unit]].concat());
    assert!(
        answer.contains("unable to decode body") && answer.ends_with(" 400"),
        "{answer}"
    );
    assert!(curl(&["http://fleet/fleet/v1/nonsense"]).ends_with(" 404"));
    assert!(curl(&["-X", "POST", "http://fleet/fleet/v1/units"]).ends_with(" 405"));
    assert_eq!(
        cluster.ok(&["list-unit-files", "--no-legend"]),
        "",
        "nothing was stored"
    );

    // v1 accepts unknown keys of [X-Fleet] and says so in a header.
    let body = "{\"options\":[{\"section\":\"X-Fleet\",\"name\":\"Bogus\",\"value\":\"1\"}]}";
    let answer = curl(&[&json[..], &["-i", "-d", body, unit]].concat());
    assert!(answer.contains("201"), "{answer}");
    let header = answer
        .lines()
        .find(|line| line.to_lowercase().starts_with("warning:"));
    assert!(
        header.is_some_and(|line| line.contains("Bogus")),
        "{answer}"
    );

    // A configuration that cannot be read.
    let out = cluster
        .host(0)
        .exec(&["/opt/fleet/bin/fleetd", "-config", "/nonexist"])
        .unwrap();
    assert_eq!(out.code, 1, "{}", told(&out));
    assert!(
        out.stderr.contains("Unable to use config file /nonexist"),
        "{}",
        told(&out)
    );
}

#[test]
fn without_systemd_fleetd_says_so_and_points_to_the_sandbox() {
    if std::path::Path::new("/run/systemd/system").exists() {
        // This computer runs systemd: the message is for those that do not. A private /run hides it.
        let out = Command::new("unshare")
            .args(["-m", "sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$0\""])
            .arg(binaries().join("fleetd"))
            .output()
            .unwrap();
        expect_no_systemd(&out);
        return;
    }
    expect_no_systemd(&Command::new(binaries().join("fleetd")).output().unwrap());
}

fn expect_no_systemd(out: &std::process::Output) {
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("no systemd runs on this computer"),
        "{stderr}"
    );
    assert!(stderr.contains("make demo"), "{stderr}");
}
