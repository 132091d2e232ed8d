//! What a unit's change of properties says of its state, read from the message's bytes.
//!
//! systemd tells about thirty properties each time, a dozen times for each start, and three of them count.
//! To make values of all the others cost more than all else that is done with the message.

use super::private_socket::{header_length, number};

/// No value of systemd's is nested deeper; D-Bus allows 64.
const MAX_DEPTH: usize = 32;

/// The properties that count, each if it was told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Changed {
    pub(super) active: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) invocation_id: Option<Vec<u8>>,
}

/// Reads a whole message `PropertiesChanged` of that interface. None: it is of another one, or makes no
/// sense.
pub(super) fn changed(message: &[u8], of: &str) -> Option<Changed> {
    let mut changed = Changed::default();
    each(message, of, |name, kind, reader| {
        match (name, kind) {
            ("ActiveState", b"s") => changed.active = Some(reader.text()?.to_owned()),
            ("SubState", b"s") => changed.sub = Some(reader.text()?.to_owned()),
            ("InvocationID", b"ay") => changed.invocation_id = Some(reader.array()?.to_vec()),
            _ => reader.pass_over(kind)?,
        }
        Some(())
    })?;
    Some(changed)
}

/// The main process of a service, if it is told there; 0: there is none any more.
pub(super) fn main_pid(message: &[u8], of: &str) -> Option<u32> {
    let mut pid = None;
    each(message, of, |name, kind, reader| {
        match (name, kind) {
            ("MainPID", b"u") => pid = Some(reader.number()?),
            _ => reader.pass_over(kind)?,
        }
        Some(())
    })?;
    u32::try_from(pid?).ok()
}

/// Hands out each property of that interface: its name, its type, and where its value is to be read or
/// passed over.
fn each<'m>(
    message: &'m [u8],
    of: &str,
    mut take: impl FnMut(&str, &[u8], &mut Reader<'m>) -> Option<()>,
) -> Option<()> {
    let body = header_length(number(message, 12));
    let mut reader = Reader {
        body: message.get(body..)?,
        at: 0,
        is_big: *message.first()? == b'B',
    };
    if reader.text()? != of {
        return None;
    }
    let length = reader.number()?;
    reader.align(8)?;
    let end = reader.at.checked_add(length)?;
    while reader.at < end {
        reader.align(8)?;
        let name = reader.text()?;
        let kind = reader.signature()?;
        take(name, kind, &mut reader)?;
    }
    (reader.at == end).then_some(())
}

/// Reads D-Bus's values one after the other. Each begins at a multiple of its alignment in the body, as
/// that begins at a multiple of eight in the message.
struct Reader<'m> {
    body: &'m [u8],
    at: usize,
    is_big: bool,
}

impl<'m> Reader<'m> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        Some(())
    }

    fn take(&mut self, n_bytes: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(n_bytes)?;
        let taken = self.body.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().ok()?;
        let number = match self.is_big {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        };
        usize::try_from(number).ok()
    }

    fn text(&mut self) -> Option<&'m str> {
        let length = self.number()?;
        let text = self.take(length)?;
        // The NUL at its end.
        self.take(1)?;
        std::str::from_utf8(text).ok()
    }

    fn signature(&mut self) -> Option<&'m [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        let signature = self.take(length)?;
        self.take(1)?;
        Some(signature)
    }

    /// The bytes of an array of bytes.
    fn array(&mut self) -> Option<&'m [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    /// Passes over one value of this signature.
    fn pass_over(&mut self, signature: &[u8]) -> Option<()> {
        let rest = self.pass_one(signature, MAX_DEPTH)?;
        rest.is_empty().then_some(())
    }

    /// Passes over a value of the first type; returns the types that follow.
    fn pass_one<'s>(&mut self, types: &'s [u8], depth: usize) -> Option<&'s [u8]> {
        let (first, rest) = types.split_first()?;
        let depth = depth.checked_sub(1)?;
        match first {
            b'y' => self.take(1).map(|_| rest),
            b'n' | b'q' | b'b' | b'i' | b'u' | b'h' | b'x' | b't' | b'd' => {
                let size = alignment(*first)?;
                self.align(size)?;
                self.take(size).map(|_| rest)
            }
            b's' | b'o' => {
                let length = self.number()?;
                self.take(length.checked_add(1)?).map(|_| rest)
            }
            b'g' => self.signature().map(|_| rest),
            b'v' => {
                let kind = self.signature()?;
                self.pass_one(kind, depth)?.is_empty().then_some(rest)
            }
            b'a' => {
                let length = self.number()?;
                self.align(alignment(*rest.first()?)?)?;
                self.take(length)?;
                after_one(rest, depth)
            }
            b'(' => {
                self.align(8)?;
                let mut fields = rest;
                while *fields.first()? != b')' {
                    fields = self.pass_one(fields, depth)?;
                }
                fields.get(1..)
            }
            _ => None,
        }
    }
}

/// Where values of this type begin.
fn alignment(kind: u8) -> Option<usize> {
    Some(match kind {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b'h' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => return None,
    })
}

/// The types behind the first one, of which no value is there to be passed over.
fn after_one(types: &[u8], depth: usize) -> Option<&[u8]> {
    let (first, rest) = types.split_first()?;
    let depth = depth.checked_sub(1)?;
    let close = match first {
        b'a' => return after_one(rest, depth),
        b'(' => b')',
        b'{' => b'}',
        _ => return alignment(*first).map(|_| rest),
    };
    let mut inside = rest;
    while *inside.first()? != close {
        inside = after_one(inside, depth)?;
    }
    inside.get(1..)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use zbus::message::Message;
    use zbus::{ObjectPath, Variant};

    use super::*;

    const UNIT: &str = "org.freedesktop.systemd1.Unit";

    fn message(properties: &[(&str, Variant<'_>)]) -> Vec<u8> {
        let properties: BTreeMap<&str, &Variant<'_>> = properties
            .iter()
            .map(|(name, value)| (*name, value))
            .collect();
        let message = Message::signal("/a", "org.freedesktop.DBus.Properties", "PropertiesChanged")
            .build(&(UNIT, properties, vec!["Gone"]))
            .unwrap();
        message.data().to_vec()
    }

    fn path() -> ObjectPath<'static> {
        ObjectPath::try_from("/org/freedesktop/systemd1/job/7").unwrap()
    }

    /// Values of all kinds stand between those that count.
    fn all_kinds() -> Vec<(&'static str, Variant<'static>)> {
        let conditions = vec![("ConditionPathExists", false, true, "/a", 1_i32)];
        let nested = vec![vec![(1_u8, "b"), (2, "c")], vec![]];
        vec![
            ("ActiveState", Variant::from("active")),
            ("Bool", Variant::from(true)),
            ("Byte", Variant::from(7_u8)),
            ("Conditions", Variant::from(conditions)),
            ("Double", Variant::from(0.5_f64)),
            ("InvocationID", Variant::from(vec![1_u8, 0xab, 3])),
            ("Job", Variant::from((7_u32, path()))),
            ("Nested", Variant::from(nested)),
            ("Nothing", Variant::from(Vec::<u64>::new())),
            ("Short", Variant::from(-3_i16)),
            ("SubState", Variant::from("running")),
            ("Texts", Variant::from(vec!["x", "yy", ""])),
            ("Timestamp", Variant::from(u64::MAX)),
            (
                "Within",
                Variant::Variant(Box::new(Variant::from((1_u8, 2_i64)))),
            ),
        ]
    }

    #[test]
    fn what_counts_is_found_among_values_of_all_kinds() {
        let expected = Changed {
            active: Some("active".to_owned()),
            sub: Some("running".to_owned()),
            invocation_id: Some(vec![1, 0xab, 3]),
        };
        assert_eq!(changed(&message(&all_kinds()), UNIT), Some(expected));
        // Wherever a value stands, what follows it is found.
        for (name, value) in all_kinds() {
            let told = message(&[("A", value), ("SubState", Variant::from("dead"))]);
            let found = changed(&told, UNIT).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(found.sub.as_deref(), Some("dead"), "{name}");
            assert_eq!(found.active, None, "{name}");
        }
        assert_eq!(changed(&message(&[]), UNIT), Some(Changed::default()));
        let mut of_a_service = all_kinds();
        of_a_service.push(("MainPID", Variant::from(4711_u32)));
        assert_eq!(main_pid(&message(&of_a_service), UNIT), Some(4711));
    }

    #[test]
    fn other_interfaces_and_other_types_say_nothing() {
        assert_eq!(changed(&message(&all_kinds()), "another"), None);
        assert_eq!(main_pid(&message(&all_kinds()), UNIT), None);
        let odd = message(&[("ActiveState", Variant::from(7_u32))]);
        assert_eq!(changed(&odd, UNIT), Some(Changed::default()));
    }

    /// Whatever stands there, it is read without a panic and no further than it goes.
    #[test]
    fn what_makes_no_sense_is_left_alone() {
        let whole = message(&all_kinds());
        for at in 16..whole.len() {
            for byte in [0, 1, b'a', b'(', b'v', 0xff] {
                let mut broken = whole.clone();
                broken[at] = byte;
                let _ = changed(&broken, UNIT);
            }
            assert_eq!(changed(&whole[..at.min(whole.len() - 24)], UNIT), None);
        }
        let deep = [&[b'a'; 200][..], b"y"].concat();
        assert_eq!(after_one(&deep, MAX_DEPTH), None);
    }
}
