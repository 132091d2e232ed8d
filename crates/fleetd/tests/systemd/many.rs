//! Many at once.

use fleet_core::records::Order;

use crate::rig::{Machine, Manager, run, service};

#[test]
fn two_hundred_units_start_and_go_together() {
    run(async {
        let manager = Manager::boot();
        let mut machine = Machine::on(&manager).await;
        let text = service("/bin/sleep infinity");
        let names: Vec<String> = (0..200).map(|n| format!("u{n}.service")).collect();
        let reloads = || manager.show("", "GeneratorsFinishTimestampMonotonic");
        let before = reloads();
        let begin = tokio::time::Instant::now();
        for unit in &names {
            machine.launch(unit, &text);
        }
        machine.settle_all().await;
        println!("200 started in {:?}", begin.elapsed());
        assert_eq!(
            manager
                .systemctl(&["list-units", "-q", "--state=running", "u*.service"])
                .lines()
                .count(),
            200
        );
        let begin = tokio::time::Instant::now();
        for unit in &names {
            machine.assign(unit, Order::Gone, &text);
        }
        machine.settle_all().await;
        println!("200 gone in {:?}", begin.elapsed());
        assert_eq!(
            manager.systemctl(&["list-units", "-q", "--all", "u*.service"]),
            ""
        );
        assert_eq!(reloads(), before, "none of it needed a reload");
    });
}
