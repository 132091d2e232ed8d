//! What an event says, as a line for people: the message, and behind it each field that the
//! message does not say already. `journalctl -u fleet` shows nothing but this line.

use std::fmt;

use tracing::Event;
use tracing::field::{Field, Visit};

/// An event's message and fields.
#[derive(Default)]
pub(super) struct Said {
    message: String,
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Said {
    pub(super) fn by(event: &Event<'_>) -> Said {
        let mut said = Said::default();
        event.record(&mut said);
        said
    }

    /// `message field=value`
    pub(super) fn line(&self) -> String {
        let mut line = self.message.clone();
        for (name, value) in &self.fields {
            if mentions(&self.message, value) {
                continue;
            }
            let is_plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace());
            line.push_str(&match is_plain {
                true => format!(" {name}={value}"),
                false => format!(" {name}={value:?}"),
            });
        }
        line
    }
}

/// As words of its own, not as a part of another word.
fn mentions(message: &str, value: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric();
    !value.is_empty()
        && message.match_indices(value).any(|(at, _)| {
            !message[..at].ends_with(is_part) && !message[at + value.len()..].starts_with(is_part)
        })
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => {
                let name = name.strip_prefix("r#").unwrap_or(name);
                self.fields.push((name, value.to_owned()));
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_each_value_once() {
        for (message, fields, line) in [
            (
                "decided",
                vec![("unit", "a.service"), ("reason", "it was asked for")],
                "decided unit=a.service reason=\"it was asked for\"",
            ),
            (
                "Engine leader is 63d2",
                vec![("leader", "63d2")],
                "Engine leader is 63d2",
            ),
            (
                "Scheduled Unit(a.service) to Machine(63d2)",
                vec![("unit", "a.service"), ("machine", "63d2")],
                "Scheduled Unit(a.service) to Machine(63d2)",
            ),
            (
                "version 1.12 is there",
                vec![("n", "2")],
                "version 1.12 is there n=2",
            ),
            ("nothing", vec![("value", "")], "nothing value=\"\""),
        ] {
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name, value.to_owned()));
            let said = Said {
                message: message.to_owned(),
                fields: fields.collect(),
            };
            assert_eq!(said.line(), line);
        }
    }
}
