//! Which of systemd's signals are of no use to us, seen from their bytes.
//!
//! systemd has one stream for all who listen, and tells each of them of every job, and of every
//! change of every unit, once for each of its interfaces. Only what is certainly of no use is noise:
//! what cannot be read, answers, and signals that are not known are left for zbus to judge.

use super::dbus::{MANAGER_PATH, SERVICE, UNIT};
use super::private_socket::{FIXED_HEADER_BYTES, header_length, number};
use super::properties;

/// For whom the messages are sorted.
pub(crate) trait Listener: std::fmt::Debug + Send + Sync {
    /// Whether an object path is that of a unit of ours.
    fn is_own(&self, path: &str) -> bool;

    /// The main process of a unit of ours, as told by a message that is dropped for all else; 0: it has
    /// none any more.
    fn main_pid_is(&self, path: &str, pid: u32);
}

/// A message's type.
const SIGNAL: u8 = 4;
/// Codes of header fields.
const PATH: u8 = 1;
const MEMBER: u8 = 3;
/// What the manager says that is acted on.
const OF_MANAGER: [&str; 3] = ["JobRemoved", "UnitRemoved", "Reloading"];

/// Whether nobody here wants this message any more. It is whole.
pub(super) fn is_noise(message: &[u8], listener: &dyn Listener) -> bool {
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
    if member != "PropertiesChanged" || !listener.is_own(path) {
        return true;
    }
    match text(message, body) {
        Some(UNIT) => false,
        Some(SERVICE) => {
            if let Some(pid) = properties::main_pid(message, SERVICE) {
                listener.main_pid_is(path, pid);
            }
            true
        }
        _ => true,
    }
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
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use zbus::Variant;
    use zbus::message::Message;

    use super::*;

    const OWN: &str = "/org/freedesktop/systemd1/unit/own_2eservice";
    const OTHER: &str = "/org/freedesktop/systemd1/unit/system_2eslice";
    const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
    const MANAGER: &str = "org.freedesktop.systemd1.Manager";

    /// Our own unit is one, and what it has heard.
    #[derive(Debug, Default)]
    struct One(Mutex<Vec<(String, u32)>>);

    impl Listener for One {
        fn is_own(&self, path: &str) -> bool {
            path == OWN
        }

        fn main_pid_is(&self, path: &str, pid: u32) {
            self.0.lock().unwrap().push((path.to_owned(), pid));
        }
    }

    /// That is the one thing of it which is of use, and it is asked for at each start otherwise.
    #[test]
    fn the_main_process_is_heard_of_before_its_message_is_dropped() {
        let one = One::default();
        for (path, pid) in [(OWN, 7_u32), (OTHER, 8), (OWN, 0)] {
            let properties = BTreeMap::from([("MainPID", Variant::from(pid))]);
            let body = (SERVICE, properties, Vec::<&str>::new());
            let message = Message::signal(path, PROPERTIES, "PropertiesChanged");
            let message = message.build(&body).unwrap();
            assert!(is_noise(message.data(), &one));
        }
        let heard = one.0.into_inner().unwrap();
        assert_eq!(heard, [(OWN.to_owned(), 7), (OWN.to_owned(), 0)]);
    }

    fn signal(path: &str, interface: &str, member: &str, first: &str) -> Vec<u8> {
        let message = Message::signal(path, interface, member)
            .build(&(first, "more"))
            .unwrap();
        message.data().to_vec()
    }

    #[test]
    fn only_what_nobody_acts_on_is_noise() {
        let changed = "PropertiesChanged";
        for (message, noise) in [
            (signal(OWN, PROPERTIES, changed, UNIT), false),
            (signal(OWN, PROPERTIES, changed, SERVICE), true),
            (signal(OTHER, PROPERTIES, changed, UNIT), true),
            (signal(MANAGER_PATH, MANAGER, "JobNew", "a"), true),
            (signal(MANAGER_PATH, MANAGER, "UnitNew", "a"), true),
            (signal(MANAGER_PATH, MANAGER, "JobRemoved", "a"), false),
            (signal(MANAGER_PATH, MANAGER, "UnitRemoved", "a"), false),
            (signal(MANAGER_PATH, MANAGER, "Reloading", "a"), false),
        ] {
            let is = is_noise(&message, &One::default());
            assert_eq!(is, noise, "{:?}", path_and_member(&message));
        }
    }

    #[test]
    fn answers_and_what_cannot_be_read_are_no_noise() {
        let call = Message::method_call(MANAGER_PATH, "JobNew")
            .build(&("a",))
            .unwrap();
        assert!(!is_noise(call.data(), &One::default()));
        let whole = signal(MANAGER_PATH, MANAGER, "JobNew", "a");
        // Wherever a byte of its fields is another one, it is read without a panic; and where they
        // end too early nothing is known of it.
        for at in FIXED_HEADER_BYTES..whole.len() {
            let mut broken = whole.clone();
            broken[at] = 0xff;
            let _ = is_noise(&broken, &One::default());
            assert!(!is_noise(&whole[..at.min(40)], &One::default()), "{at}");
        }
    }
}
