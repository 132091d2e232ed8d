//! `fleetctl revoke`

use crate::join::{cluster, token};

#[test]
fn a_user_is_out_at_once_and_it_is_listed() {
    let mut session = cluster();
    session.run("fleetctl LOCAL join-token --role=viewer --user=bob");
    let token = token(&mut session);
    session.name("TOKEN", &token);
    session.run("HOME=DIR/home XDG_CONFIG_HOME= fleetctl join TOKEN https://127.0.0.1:PORT");
    session.seen();
    let bob = "HOME=DIR/home XDG_CONFIG_HOME= fleetctl --endpoint=https://127.0.0.1:PORT list-units --no-legend";
    session
        .run(bob)
        .run("fleetctl LOCAL revoke user:bob --why=stolen")
        .run(bob)
        .run("fleetctl LOCAL revoke bob")
        .run("fleetctl LOCAL revoke")
        .shows(
            "
$ HOME=DIR/home XDG_CONFIG_HOME= fleetctl --endpoint=https://127.0.0.1:PORT list-units --no-legend
$ fleetctl LOCAL revoke user:bob --why=stolen
2> Revoked user:bob
$ HOME=DIR/home XDG_CONFIG_HOME= fleetctl --endpoint=https://127.0.0.1:PORT list-units --no-legend
2> fleetd at https://127.0.0.1:PORT does not accept our certificate: it was revoked
2> hint: get another one with `fleetctl join`: an admin makes the token, fleetctl join-token
rc=1
$ fleetctl LOCAL revoke bob
2> \"bob\" cannot be revoked: use user:<name>, machine:<id> or serial:<hex>
rc=1
$ fleetctl LOCAL revoke
2> nobody is named
2> hint: name user:NAME, machine:ID or serial:HEX; --list shows who is revoked
rc=2
",
        );
    session.run("fleetctl LOCAL revoke --list");
    let seen = session.seen();
    assert!(seen.contains("\nuser:bob TIME UTC"), "{seen}");
    let by = format!("uid {}", rustix::process::getuid().as_raw());
    assert!(seen.contains(&format!("by {by}: stolen")), "{seen}");
}
