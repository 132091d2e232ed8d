//! Text as messages show it: strings and characters quoted like Go's `%q`, as the original's do, and
//! times.

use std::fmt::{self, Write};

/// Displays a string in double quotes, control characters escaped, as Go's `%q` does.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            write_escaped(f, c, '"')?;
        }
        f.write_char('"')
    }
}

/// Displays a character in single quotes, escaped as Go's `%q` does.
pub(crate) struct QuotedChar(pub(crate) char);

impl fmt::Display for QuotedChar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('\'')?;
        write_escaped(f, self.0, '\'')?;
        f.write_char('\'')
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, c: char, quote: char) -> fmt::Result {
    match c {
        '\\' => f.write_str("\\\\"),
        c if c == quote => write!(f, "\\{c}"),
        '\x07' => f.write_str("\\a"),
        '\x08' => f.write_str("\\b"),
        '\t' => f.write_str("\\t"),
        '\n' => f.write_str("\\n"),
        '\x0b' => f.write_str("\\v"),
        '\x0c' => f.write_str("\\f"),
        '\r' => f.write_str("\\r"),
        c if c < ' ' || c == '\x7f' => write!(f, "\\x{:02x}", u32::from(c)),
        // `escape_debug` knows what cannot be printed; quotes are handled above.
        c if c.escape_debug().len() > 2 => {
            let code = u32::from(c);
            if code < 0x1_0000 {
                write!(f, "\\u{code:04x}")
            } else {
                write!(f, "\\U{code:08x}")
            }
        }
        c => f.write_char(c),
    }
}

/// The time of day of a moment in milliseconds since the Unix epoch: `22:31:05`, in UTC.
pub(crate) fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000 % (24 * 60 * 60);
    let (minutes, second) = (seconds / 60, seconds % 60);
    format!("{:02}:{:02}:{second:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_go_s() {
        for (text, quoted) in [
            ("plain é", "\"plain é\""),
            ("a\"b\\c'", "\"a\\\"b\\\\c'\""),
            ("\x07\x08\t\n\x0b\x0c\r", "\"\\a\\b\\t\\n\\v\\f\\r\""),
            (
                "\x01\x7f\u{85}\u{200b}\u{e0001}",
                "\"\\x01\\x7f\\u0085\\u200b\\U000e0001\"",
            ),
        ] {
            assert_eq!(Quoted(text).to_string(), quoted);
        }
        assert_eq!(QuotedChar('\'').to_string(), "'\\''");
        assert_eq!(QuotedChar('é').to_string(), "'é'");
    }
}
