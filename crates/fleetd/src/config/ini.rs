//! The dialect of `fleet.conf`, as the original reads it (spec: one flat list of `key = value`
//! before the first section; comments with `#` and `;`; lines continued by a final `\`).

/// A line that is none of the above.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "syntax error at line {line}: {text:?} is neither `key = value`, a comment nor a [section]"
)]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// The settings before the first section, in order, keys in lower case. The last one of a key
/// wins; the caller sees all of them.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, SyntaxError> {
    let mut settings = Vec::new();
    let mut in_section = false;
    let mut lines = text.lines().enumerate();
    while let Some((idx, raw)) = lines.next() {
        let mut line = raw.trim().to_owned();
        while line.ends_with('\\') {
            line.pop();
            match lines.next() {
                Some((_, next)) => line.push_str(next.trim()),
                None => break,
            }
        }
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') && line.ends_with(']') {
            in_section = true;
            continue;
        }
        let Some(setting) = setting(&line) else {
            return Err(SyntaxError {
                line: idx + 1,
                text: line,
            });
        };
        if !in_section {
            settings.push(setting);
        }
    }
    Ok(settings)
}

/// `key = "value"`, `key = 'value'`, `key = value # comment` or `key =`.
fn setting(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    let value = value.trim();
    let value = quoted(value, '"')
        .or_else(|| quoted(value, '\''))
        .unwrap_or_else(|| value.split(['#', ';']).next().unwrap_or("").trim());
    Some((key.to_lowercase(), value.to_owned()))
}

fn quoted(value: &str, quote: char) -> Option<&str> {
    let inner = value.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assert_eq!(pairs(text), expected, "{text:?}");
    }

    #[test]
    fn each_form_of_a_setting() {
        check("a = \"b # c\"", &[("a", "b # c")]);
        check("a = 'b ; c'", &[("a", "b ; c")]);
        check("  A=b # c ", &[("a", "b")]);
        check("a = b ; c", &[("a", "b")]);
        check("a =", &[("a", "")]);
        check("a=k=v,l=w", &[("a", "k=v,l=w")]);
        check("# c\n; d\n\na=1\na=2", &[("a", "1"), ("a", "2")]);
    }

    #[test]
    fn a_quoted_value_with_a_comment_keeps_its_quotes() {
        check("a = \"b\" # c", &[("a", "\"b\"")]);
    }

    #[test]
    fn a_final_backslash_continues_the_line() {
        check(
            "metadata=a=1,\\\n   b=2\nx=1",
            &[("metadata", "a=1,b=2"), ("x", "1")],
        );
    }

    #[test]
    fn only_what_stands_before_the_first_section_counts() {
        check("a=1\n[other]\nb=2", &[("a", "1")]);
    }

    #[test]
    fn another_line_is_an_error_with_its_number() {
        assert_eq!(
            parse("a=1\nnonsense").unwrap_err().to_string(),
            "syntax error at line 2: \"nonsense\" is neither `key = value`, a comment nor a [section]"
        );
        assert!(parse("two words = 1").is_err());
    }
}
