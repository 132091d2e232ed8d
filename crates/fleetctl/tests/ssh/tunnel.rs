//! `--tunnel`.

use std::fs;
use std::time::Duration;

use tokio::time::Instant;

use crate::rig::{API_PORT, BARE_PORT, Rig};

pub(crate) fn a_batch_goes_through_one_ssh(rig: &Rig) {
    let units = rig.path("units");
    fs::create_dir_all(&units).unwrap();
    let mut paths = Vec::new();
    for idx in 0..20 {
        let path = units.join(format!("batch-{idx}.service"));
        fs::write(&path, "[Service]\nExecStart=/bin/sleep 1d\n").unwrap();
        paths.push(path.display().to_string());
    }
    rig.runs();
    let logins = rig.logins(0);
    let mut args = vec!["start"];
    args.extend(paths.iter().map(String::as_str));
    rig.fleetctl(&args).ok();
    assert_eq!(rig.runs().len(), 1, "one ssh for the batch and its wait");
    assert_eq!(rig.logins(0), logins + 1);
    let active = "systemctl list-units --no-legend 'batch-*' | grep -c running";
    let n: usize = rig
        .sandbox
        .hosts()
        .iter()
        .map(|host| host.exec(&["sh", "-c", active]).unwrap().stdout)
        .map(|n| n.trim().parse::<usize>().unwrap())
        .sum();
    assert_eq!(n, 20);
    rig.fleetctl(&["destroy", "batch-*"]).ok();
    let left: Vec<_> = fs::read_dir(rig.home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("fleetctl-"))
        .collect();
    assert_eq!(left, [""; 0], "no socket is left");
}

pub(crate) fn an_http_endpoint(rig: &Rig) {
    let endpoint = format!("http://127.0.0.1:{API_PORT}");
    let ran = rig.fleetctl(&["--endpoint", &endpoint, "list-machines"]);
    assert!(ran.ok().contains(&rig.id(1)));
    let closed = rig.fleetctl(&["--endpoint", "http://127.0.0.1:1", "list-machines"]);
    assert_eq!(closed.status, 1);
    assert!(
        closed.err.starts_with(&format!(
            "the tunnel through root@{} reaches no fleetd: channel 0: open failed: \
             connect failed: Connection refused\nhint: ",
            rig.address(0)
        )),
        "{closed:?}"
    );
}

pub(crate) fn failures_name_host_and_cure(rig: &Rig) {
    let address = rig.address(0);
    let unchecked = "--strict-host-key-checking=false";
    let initializing = "Unable to initialize client: failed initializing SSH client: ";
    for (args, parts) in [
        (
            vec!["--tunnel=127.0.0.1:1", unchecked],
            vec![
                initializing,
                "Connection refused\n",
                "hint: is root@127.0.0.1:1 up",
            ],
        ),
        (
            vec!["--ssh-username=nobody", unchecked],
            vec![initializing, "Permission denied", "hint: ", "ssh-add"],
        ),
        (
            vec![&format!("--tunnel={address}:{BARE_PORT}"), unchecked],
            vec![
                initializing,
                "Process exited with status 127",
                "fleetctl: command not found\n",
                "hint: install fleetctl on root@",
            ],
        ),
        (
            vec!["--endpoint=unix:///nope"],
            vec![
                "reaches no fleetd: Failed dialing remote address: dial unix /nope: connect: \
                 no such file or directory\nhint: ",
            ],
        ),
        (
            vec!["--tunnel=h:x"],
            vec![initializing, "invalid port \"x\" in \"h:x\""],
        ),
    ] {
        let args: Vec<&str> = args.into_iter().chain(["list-machines"]).collect();
        let ran = rig.fleetctl(&args);
        assert_eq!(
            (ran.status, ran.out.as_str()),
            (1, ""),
            "{args:?}: {}",
            ran.err
        );
        for part in parts {
            assert!(ran.err.contains(part), "{args:?}: {part}: {}", ran.err);
        }
    }
}

pub(crate) fn a_host_that_is_silent_is_given_up_in_time(rig: &Rig) {
    let host = rig.sandbox.host(0);
    host.cut().unwrap();
    let begin = Instant::now();
    let ran = rig.fleetctl(&["--ssh-timeout=0.5", "list-machines"]);
    let took = begin.elapsed();
    host.heal().unwrap();
    assert_eq!(ran.status, 1, "{ran:?}");
    let initializing = "Unable to initialize client: failed initializing SSH client: ";
    assert!(ran.err.starts_with(initializing), "{ran:?}");
    assert!(
        ran.err.contains("--ssh-timeout=SECONDS waits longer"),
        "{ran:?}"
    );
    // The default is 10 s.
    assert!(took < Duration::from_secs(8), "{took:?}");
}
