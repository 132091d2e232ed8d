//! Which of systemd's signals are of no use to us, seen from their bytes.
//!
//! systemd has one stream for all who listen, and tells each of them of every job, and of every
//! change of every unit, once for each of its interfaces. Only what is certainly of no use is noise:
//! what cannot be read, answers, and signals that are not known are left for zbus to judge.

use std::sync::Arc;

use super::dbus::{MANAGER_PATH, UNIT};
use super::private_socket::{FIXED_HEADER_BYTES, header_length, number};

/// Whether an object path is that of a unit of ours.
pub(crate) type IsOwn = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A message's type.
const SIGNAL: u8 = 4;
/// Codes of header fields.
const PATH: u8 = 1;
const MEMBER: u8 = 3;
/// What the manager says that is acted on.
const OF_MANAGER: [&str; 3] = ["JobRemoved", "UnitRemoved", "Reloading"];

/// Whether nobody here wants this message. It is whole.
pub(super) fn is_noise(message: &[u8], is_own: impl Fn(&str) -> bool) -> bool {
    if message[1] != SIGNAL {
        return false;
    }
    let Some((path, member)) = path_and_member(message) else {
        return false;
    };
    if path == MANAGER_PATH {
        return !OF_MANAGER.contains(&member);
    }
    // The first thing in the body is the name of the interface.
    let body = header_length(number(message, 12));
    member != "PropertiesChanged" || text(message, body) != Some(UNIT) || !is_own(path)
}

fn path_and_member(message: &[u8]) -> Option<(&str, &str)> {
    let end = FIXED_HEADER_BYTES.checked_add(number(message, 12))?;
    let (mut path, mut member) = (None, None);
    let mut at = FIXED_HEADER_BYTES;
    while at < end {
        // Each field: its code, the type of its value, the value.
        let [code, 1, kind, 0] = *message.get(at..at + 4)? else {
            return None;
        };
        at += 4;
        at += match kind {
            b's' | b'o' => {
                let value = text(message, at)?;
                match code {
                    PATH => path = Some(value),
                    MEMBER => member = Some(value),
                    _ => {}
                }
                4 + value.len() + 1
            }
            b'g' => 1 + usize::from(*message.get(at)?) + 1,
            b'u' => 4,
            _ => return None,
        };
        at = at.next_multiple_of(8);
    }
    path.zip(member)
}

/// The text that begins here with its length.
fn text(message: &[u8], at: usize) -> Option<&str> {
    let begin = at.checked_add(4)?;
    message.get(at..begin)?;
    let end = begin.checked_add(number(message, at))?;
    std::str::from_utf8(message.get(begin..end)?).ok()
}

#[cfg(test)]
mod tests {
    use zbus::message::Message;

    use super::*;

    const OWN: &str = "/org/freedesktop/systemd1/unit/own_2eservice";
    const OTHER: &str = "/org/freedesktop/systemd1/unit/system_2eslice";
    const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
    const MANAGER: &str = "org.freedesktop.systemd1.Manager";

    fn signal(path: &str, interface: &str, member: &str, first: &str) -> Vec<u8> {
        let message = Message::signal(path, interface, member)
            .build(&(first, "more"))
            .unwrap();
        message.data().to_vec()
    }

    #[test]
    fn only_what_nobody_acts_on_is_noise() {
        let service = "org.freedesktop.systemd1.Service";
        let changed = "PropertiesChanged";
        for (message, noise) in [
            (signal(OWN, PROPERTIES, changed, UNIT), false),
            (signal(OWN, PROPERTIES, changed, service), true),
            (signal(OTHER, PROPERTIES, changed, UNIT), true),
            (signal(MANAGER_PATH, MANAGER, "JobNew", "a"), true),
            (signal(MANAGER_PATH, MANAGER, "UnitNew", "a"), true),
            (signal(MANAGER_PATH, MANAGER, "JobRemoved", "a"), false),
            (signal(MANAGER_PATH, MANAGER, "UnitRemoved", "a"), false),
            (signal(MANAGER_PATH, MANAGER, "Reloading", "a"), false),
        ] {
            let is = is_noise(&message, |path| path == OWN);
            assert_eq!(is, noise, "{:?}", path_and_member(&message));
        }
    }

    #[test]
    fn answers_and_what_cannot_be_read_are_no_noise() {
        let call = Message::method_call(MANAGER_PATH, "JobNew")
            .build(&("a",))
            .unwrap();
        assert!(!is_noise(call.data(), |_| false));
        let whole = signal(MANAGER_PATH, MANAGER, "JobNew", "a");
        // Wherever a byte of its fields is another one, it is read without a panic; and where they
        // end too early nothing is known of it.
        for at in FIXED_HEADER_BYTES..whole.len() {
            let mut broken = whole.clone();
            broken[at] = 0xff;
            let _ = is_noise(&broken, |_| false);
            assert!(!is_noise(&whole[..at.min(40)], |_| false), "{at}");
        }
    }
}
