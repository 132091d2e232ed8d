//! The dialect of `fleet.conf`, as the original reads it: one flat list of `key = value` before
//! the first section; comments with `#` and `;`; lines continued by a final `\`.

/// The original's reader cuts longer lines, and takes the rest for a line of its own.
const MAX_LINE_BYTES: usize = 4_096;

/// A line that is none of the above. It begins as the original's message did.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "iniparser: syntax error at ':{line}'. {text:?} is neither `key = value`, a comment nor a [section]"
)]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// What a file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct File {
    /// The settings before the first section, in order, keys in lower case. The last one of a
    /// key wins; the caller sees all of them.
    pub settings: Vec<(String, String)>,
    /// What is odd.
    pub warnings: Vec<String>,
}

/// Reads a file.
pub fn parse(text: &str) -> Result<File, SyntaxError> {
    let mut file = File::default();
    let mut in_section = false;
    let mut lines = text
        .lines()
        .enumerate()
        .flat_map(|(idx, line)| pieces(line).map(move |(piece, first)| (idx + 1, piece, first)));
    while let Some((number, raw, first)) = lines.next() {
        if !first {
            file.warnings.push(format!(
                "line {number} is longer than {MAX_LINE_BYTES} bytes and is cut there, as in the \
                 original: end each part of it with \\"
            ));
        }
        let mut line = raw.trim().to_owned();
        while line.ends_with('\\') {
            line.pop();
            match lines.next() {
                Some((_, next, _)) => line.push_str(next.trim()),
                None => break,
            }
        }
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') && line.ends_with(']') {
            if !in_section {
                file.warnings.push(format!(
                    "line {number}: what stands behind {line} is not read: keys stand before the \
                     first section"
                ));
            }
            in_section = true;
            continue;
        }
        let Some(setting) = setting(&line) else {
            return Err(SyntaxError {
                line: number,
                text: line,
            });
        };
        if !in_section {
            file.settings.push(setting);
        }
    }
    Ok(file)
}

/// A line in pieces that the original's reader could hold, and whether each is the first.
fn pieces(line: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let whole = rest?;
        let first = whole.len() == line.len();
        if whole.len() <= MAX_LINE_BYTES {
            rest = None;
            return Some((whole, first));
        }
        let (piece, after) = whole.split_at(whole.floor_char_boundary(MAX_LINE_BYTES));
        rest = Some(after);
        Some((piece, first))
    })
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
        parse(text).unwrap().settings
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
            "iniparser: syntax error at ':2'. \"nonsense\" is neither `key = value`, a comment nor a [section]"
        );
        for line in ["two words = 1", "= 1", "[open", "key"] {
            assert!(parse(line).is_err(), "{line}");
        }
        // Continued lines count.
        assert_eq!(parse("a=1\\\n2\n\nx").unwrap_err().line, 4);
    }

    #[test]
    fn sections_do_not_count_and_are_told_once() {
        let file = parse("a=1\n[Fleet]\na=2\n[other]\nb = \"3\"\n").unwrap();
        assert_eq!(file.settings, [("a".to_owned(), "1".to_owned())]);
        let [warning] = &file.warnings[..] else {
            panic!("{:?}", file.warnings);
        };
        assert!(
            warning.starts_with("line 2: what stands behind [Fleet] is not read"),
            "{warning}"
        );
        assert!(
            parse("[s]\nnonsense").is_err(),
            "what is not read must be well-formed all the same"
        );
    }

    #[test]
    fn a_line_of_more_than_4096_bytes_is_cut_and_told() {
        let fits = format!("a={}", "x".repeat(4_094));
        let file = parse(&fits).unwrap();
        assert_eq!((file.settings[0].1.len(), file.warnings.len()), (4_094, 0));
        let file = parse(&format!("{fits}b=2\nc=3")).unwrap();
        let keys: Vec<_> = file
            .settings
            .iter()
            .map(|(k, v)| (k.as_str(), v.len()))
            .collect();
        assert_eq!(keys, [("a", 4_094), ("b", 1), ("c", 1)]);
        assert!(
            file.warnings[0].starts_with("line 1 is longer than 4096 bytes"),
            "{file:?}"
        );
        // Continued, each part may have so many.
        let long = format!("{}\\\n{}", &fits[..4_000], "y".repeat(4_000));
        assert_eq!(parse(&long).unwrap().settings[0].1.len(), 7_998);
        // Never within a character.
        assert!(parse(&format!("a={}=1", "é".repeat(3_000))).is_ok());
    }

    #[test]
    fn white_space_and_carriage_returns_around_lines_do_not_count() {
        check("  a = 1  \r\n\t\r\n b=\t'2'\r\n", &[("a", "1"), ("b", "2")]);
        check("a = \"unbalanced", &[("a", "\"unbalanced")]);
        check("a = \"two\" \"values\"", &[("a", "\"two\" \"values\"")]);
        check("a = # nothing", &[("a", "")]);
        check("# a comment that goes on \\\na=1\nb=2", &[("b", "2")]);
    }
}
