//! The page that fleetd serves, in a real browser.

use fleet_sandbox::Sandbox;

use crate::cluster::{Cluster, sleeper};

mod browser;

use browser::{Browser, ENTER, ESCAPE, forward};

#[test]
fn the_page_shows_the_cluster_as_it_changes_and_does_what_its_reader_may() {
    let cluster = Cluster::with(
        Sandbox::builder()
            .hosts(2)
            .fleet_conf("api_listen=[\"0.0.0.0:49153\"]")
            .fleet_conf("api_insecure=true"),
    );
    cluster.start("web@1.service", "");
    let text = "[Unit]\nDescription=Says <b>hello</b> & more\n[Service]\n\
                ExecStart=/bin/sh -c 'echo the kettle is on; exec sleep infinity'\n";
    let path = cluster.file("hello.service", text);
    cluster.ok(&["start", &path]);
    let path = cluster.file("mars.service", &sleeper("MachineMetadata=region=mars"));
    cluster.ok(&["start", "--no-block", &path]);
    let path = cluster.file(
        "fails.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo the disk is on fire; exit 7'\n",
    );
    cluster.fleetctl(&["start", &path]);

    let socket = cluster.host(0).on_computer("/run/fleet.sock").unwrap();
    let port = forward(&socket);
    let browser = Browser::start();
    browser.open(&format!("http://localhost:{port}/"));
    browser.wait_for(&[
        "live",
        "web@1.service",
        "✓ active/running",
        "✗ failed/failed",
        "mars.service",
    ]);
    browser.wait_for(&["Says <b>hello</b> & more", "4 units, 1 failed"]);
    browser.screenshot("units");
    everything_has_a_name(&browser);

    // It goes on by itself.
    cluster.start("late.service", "");
    browser.wait_for(&["late.service", "5 units"]);
    cluster.ok(&["destroy", "late"]);
    browser.wait_until("late.service to be gone", |text| {
        !text.contains("late.service")
    });

    a_keyboard_is_enough(&browser);

    // Why a unit waits, and why another one failed.
    browser.open(&format!("http://localhost:{port}/ui/#/units/mars.service"));
    browser.wait_for(&["region=mars: refused 2 of 2 machines"]);
    browser.open(&format!("http://localhost:{port}/ui/#/units/fails.service"));
    browser.wait_for(&["status 7", "the disk is on fire"]);

    // How it is, its log as it is written, and what may be done about it.
    browser.open(&format!("http://localhost:{port}/ui/#/units/hello.service"));
    browser.wait_for(&[
        "✓ active/running",
        "the kettle is on",
        "Main process",
        "ExecStart=/bin/sh",
    ]);
    browser.wait_for(&["started", "placed"]);
    browser.screenshot("unit");
    browser.look("dark", 1200);
    browser.screenshot("unit-dark");
    browser.look("light", 420);
    browser.screenshot("unit-narrow");
    let overflow =
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(
        browser.script(overflow),
        0,
        "a narrow window needs no scrolling to the side"
    );
    browser.look("light", 1200);
    everything_has_a_name(&browser);
    browser.click(".actions button.danger", true);
    browser.wait_for(&["· inactive/dead", "Start"]);
    assert_eq!(cluster.running("hello.service"), []);

    // A machine, and what is on it.
    let id = cluster.host(1).machine_id().unwrap();
    browser.open(&format!("http://localhost:{port}/ui/#/machines/{id}"));
    browser.wait_for(&["✓ present", "Cordon", &id]);
    browser.click(".actions button", false);
    browser.wait_for(&["cordoned", "Uncordon"]);
    browser.screenshot("machine");

    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
}

fn a_keyboard_is_enough(browser: &Browser) {
    browser.press("/");
    browser.press("fails");
    browser.wait_until("one unit to be left", |text| {
        text.contains("fails.service") && !text.contains("mars.service")
    });
    browser.press(ESCAPE);
    browser.wait_for(&["mars.service"]);
    browser.press("m");
    browser.wait_for(&["2 machines", "(leads)"]);
    browser.screenshot("machines");
    browser.press("e");
    browser.wait_for(&["The newest first", "destroyed", "fewest units"]);
    browser.screenshot("events");
    browser.press("l");
    browser.wait_for(&["press Enter"]);
    browser.script("document.getElementById('pattern').focus()");
    browser.press("web*");
    browser.press(ENTER);
    browser.wait_for(&["Started web@1.service"]);
}

/// For a screen reader.
fn everything_has_a_name(browser: &Browser) {
    let labels = browser.labels();
    assert!(labels.len() > 8, "{labels:?}");
    assert!(labels.iter().all(|label| !label.is_empty()), "{labels:?}");
}
