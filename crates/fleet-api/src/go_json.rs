//! Reads the first JSON value of a text and names faults in the words of Go's decoder.
//!
//! v1 promises those words (`invalid character 'g' looking for beginning of value`), and that
//! what follows the first value is ignored: no library does both.

use std::fmt;

/// Deeper nesting is refused: reading is recursive. No body of ours is deeper than four.
const MAX_DEPTH: usize = 64;

/// A JSON value. Objects keep their keys in order, repeated ones too.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Null,
    Bool,
    /// Never wanted by v1, so its digits are not kept.
    Number,
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// What Go calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool => "bool",
            Value::Number => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

/// A fault of the JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SyntaxError {
    /// Nothing but white space.
    Empty,
    /// The text ends within the value.
    Ended,
    /// A byte that may not stand there.
    Invalid { byte: u8, place: String },
    /// Nested too deeply.
    TooDeep(u8),
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyntaxError::Empty => f.write_str("EOF"),
            SyntaxError::Ended => f.write_str("unexpected EOF"),
            SyntaxError::Invalid { byte, place } => {
                write!(f, "invalid character {} {place}", quoted(*byte))
            }
            SyntaxError::TooDeep(byte) => {
                write!(f, "invalid character {} exceeded max depth", quoted(*byte))
            }
        }
    }
}

/// The first value of the text.
pub(crate) fn first_value(text: &[u8]) -> Result<Value, SyntaxError> {
    let mut reader = Reader {
        text,
        position: 0,
        depth: 0,
    };
    reader.skip_space();
    if reader.peek().is_none() {
        return Err(SyntaxError::Empty);
    }
    reader.value()
}

struct Reader<'a> {
    text: &'a [u8],
    position: usize,
    depth: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Value, SyntaxError> {
        self.skip_space();
        match self.next()? {
            byte @ b'{' => self.nested(byte, Reader::object),
            byte @ b'[' => self.nested(byte, Reader::array),
            b'"' => Ok(Value::String(self.string()?)),
            b't' => self.literal("true", Value::Bool),
            b'f' => self.literal("false", Value::Bool),
            b'n' => self.literal("null", Value::Null),
            byte @ (b'-' | b'0'..=b'9') => self.number(byte),
            byte => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    fn nested(
        &mut self,
        opening: u8,
        read: impl FnOnce(&mut Self) -> Result<Value, SyntaxError>,
    ) -> Result<Value, SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError::TooDeep(opening));
        }
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, SyntaxError> {
        let mut fields = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.position += 1;
            return Ok(Value::Object(fields));
        }
        loop {
            self.skip_space();
            match self.next()? {
                b'"' => {}
                byte => {
                    return Err(invalid(byte, "looking for beginning of object key string"));
                }
            }
            let key = self.string()?;
            self.skip_space();
            match self.next()? {
                b':' => {}
                byte => return Err(invalid(byte, "after object key")),
            }
            let value = self.value()?;
            fields.push((key, value));
            self.skip_space();
            match self.next()? {
                b',' => {}
                b'}' => return Ok(Value::Object(fields)),
                byte => return Err(invalid(byte, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.position += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.skip_space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(Value::Array(items)),
                byte => return Err(invalid(byte, "after array element")),
            }
        }
    }

    /// What follows a string's opening quote.
    fn string(&mut self) -> Result<String, SyntaxError> {
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                b'\\' => self.escape(&mut bytes)?,
                byte @ 0..0x20 => return Err(invalid(byte, "in string literal")),
                byte => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let byte = match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let c = self.unicode()?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            byte => return Err(invalid(byte, "in string escape code")),
        };
        bytes.push(byte);
        Ok(())
    }

    /// What follows `\u`. Half a surrogate pair becomes U+FFFD.
    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let first = self.hex()?;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        let is_pair = first < 0xdc00 && self.text[self.position..].starts_with(b"\\u");
        if is_pair {
            let before = self.position;
            self.position += 2;
            let second = self.hex()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.position = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Result<u32, SyntaxError> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.next()?;
            let digit = char::from(byte)
                .to_digit(16)
                .ok_or_else(|| invalid(byte, "in \\u hexadecimal character escape"))?;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn literal(&mut self, word: &str, value: Value) -> Result<Value, SyntaxError> {
        for expected in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != expected {
                let place = format!("in literal {word} (expecting {})", quoted(expected));
                return Err(SyntaxError::Invalid { byte, place });
            }
        }
        Ok(value)
    }

    fn number(&mut self, first: u8) -> Result<Value, SyntaxError> {
        let first = match first {
            b'-' => self.digit("in numeric literal")?,
            first => first,
        };
        if first != b'0' {
            self.skip_digits();
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digit("after decimal point in numeric literal")?;
            self.skip_digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.position += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.skip_digits();
        }
        Ok(Value::Number)
    }

    fn digit(&mut self, place: &str) -> Result<u8, SyntaxError> {
        match self.next()? {
            byte @ b'0'..=b'9' => Ok(byte),
            byte => Err(invalid(byte, place)),
        }
    }

    fn skip_digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.position += 1;
        }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.position += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn next(&mut self) -> Result<u8, SyntaxError> {
        let byte = self.peek().ok_or(SyntaxError::Ended)?;
        self.position += 1;
        Ok(byte)
    }
}

fn invalid(byte: u8, place: &str) -> SyntaxError {
    SyntaxError::Invalid {
        byte,
        place: place.to_owned(),
    }
}

/// A byte as Go quotes it, taken for the character of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0x07 => "'\\a'".to_owned(),
        0x08 => "'\\b'".to_owned(),
        0x0c => "'\\f'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0x0b => "'\\v'".to_owned(),
        byte if byte < 0x20 || byte == 0x7f => format!("'\\x{byte:02x}'"),
        // Control characters, the no-break space and the soft hyphen are not printable.
        byte @ (0x80..=0xa0 | 0xad) => format!("'\\u{byte:04x}'"),
        byte => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::String(value.to_owned())
    }

    #[test]
    fn the_first_value_counts() {
        for (json, value) in [
            ("null", Value::Null),
            (" true false", Value::Bool),
            ("-12.5e+3,", Value::Number),
            ("0", Value::Number),
            (r#""a\"\\\/\b\f\n\r\tA\u00e9\ud83d\ude00\ud800x""#, {
                text("a\"\\/\u{8}\u{c}\n\r\tAé😀\u{fffd}x")
            }),
            ("[] garbage", Value::Array(vec![])),
            (
                r#"{"a":[1,"b"],"a":{}}{"#,
                Value::Object(vec![
                    ("a".into(), Value::Array(vec![Value::Number, text("b")])),
                    ("a".into(), Value::Object(vec![])),
                ]),
            ),
        ] {
            assert_eq!(first_value(json.as_bytes()), Ok(value), "{json}");
        }
    }

    #[test]
    fn faults_are_named_as_go_names_them() {
        for (json, message) in [
            ("", "EOF"),
            (" \n", "EOF"),
            ("{", "unexpected EOF"),
            ("{\"a\"", "unexpected EOF"),
            ("tru", "unexpected EOF"),
            ("-", "unexpected EOF"),
            (
                "garbage",
                "invalid character 'g' looking for beginning of value",
            ),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            (
                "{1",
                "invalid character '1' looking for beginning of object key string",
            ),
            ("{\"a\" 1", "invalid character '1' after object key"),
            (
                "{\"a\":1 \"",
                "invalid character '\"' after object key:value pair",
            ),
            ("[1 2", "invalid character '2' after array element"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            (
                "\"\\u12g4\"",
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
            (
                "nil",
                "invalid character 'i' in literal null (expecting 'u')",
            ),
            ("-a", "invalid character 'a' in numeric literal"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            (
                "1ex",
                "invalid character 'x' in exponent of numeric literal",
            ),
            (
                "'",
                "invalid character '\\'' looking for beginning of value",
            ),
            (
                "\u{1}",
                "invalid character '\\x01' looking for beginning of value",
            ),
            ("é", "invalid character 'Ã' looking for beginning of value"),
        ] {
            let error = first_value(json.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), message, "{json}");
        }
        let deep = "[".repeat(100_000);
        let error = first_value(deep.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid character '[' exceeded max depth"
        );
    }
}
