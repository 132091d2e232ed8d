//! Glob patterns over unit names, with exactly the meaning of Go's `path.Match`.
//!
//! The whole name must match: `*` is any run without `/`, `?` one character except `/`,
//! `[a-z]` and `[^a-z]` are classes (which may match `/`), `\x` is a literal `x`. A malformed
//! pattern matches nothing.
//!
//! Like `path.Match` this never goes back beyond the last `*`: matching takes at most
//! pattern × name steps.

use std::fmt;
use std::sync::Arc;

/// A pattern, checked once. Cheap to clone; equal if the patterns' texts are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob {
    pattern: Arc<str>,
    kind: Kind,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    /// Matches exactly one name.
    Literal(Prefix),
    /// Has a wildcard behind the prefix.
    Wild(Prefix),
    Malformed,
}

/// What each matching name starts with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Prefix {
    /// So many bytes of the pattern.
    Bytes(usize),
    /// Text that differs from the pattern's, which has backslashes.
    Unescaped(Arc<str>),
}

impl Glob {
    /// Reads a pattern. Any text is accepted, see [`Glob::is_malformed`].
    pub fn new(pattern: &str) -> Glob {
        Glob {
            pattern: pattern.into(),
            kind: classify(pattern),
        }
    }

    /// Whether all of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Literal(prefix) => self.prefix_text(prefix) == name,
            Kind::Wild(prefix) => {
                name.starts_with(self.prefix_text(prefix)) && matches_chunks(&self.pattern, name)
            }
            Kind::Malformed => false,
        }
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// The one name that matches, if the pattern has no wildcard.
    pub fn is_literal(&self) -> Option<&str> {
        match &self.kind {
            Kind::Literal(prefix) => Some(self.prefix_text(prefix)),
            Kind::Wild(_) | Kind::Malformed => None,
        }
    }

    /// What every matching name starts with; empty for a malformed pattern.
    pub fn literal_prefix(&self) -> &str {
        match &self.kind {
            Kind::Literal(prefix) | Kind::Wild(prefix) => self.prefix_text(prefix),
            Kind::Malformed => "",
        }
    }

    /// Whether the pattern is malformed, so that nothing matches it.
    pub fn is_malformed(&self) -> bool {
        self.kind == Kind::Malformed
    }

    fn prefix_text<'a>(&'a self, prefix: &'a Prefix) -> &'a str {
        match prefix {
            Prefix::Bytes(length) => &self.pattern[..*length],
            Prefix::Unescaped(text) => text,
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.pattern)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.pattern, f)
    }
}

fn classify(pattern: &str) -> Kind {
    let mut prefix = String::new();
    let mut is_literal = true;
    let mut rest = pattern;
    while let Some(c) = take(&mut rest) {
        match c {
            '*' | '?' => is_literal = false,
            '[' => {
                is_literal = false;
                if read_class(&mut rest, |_, _| ()).is_none() {
                    return Kind::Malformed;
                }
            }
            '\\' => match take(&mut rest) {
                None => return Kind::Malformed,
                Some(c) if is_literal => prefix.push(c),
                Some(_) => (),
            },
            c if is_literal => prefix.push(c),
            _ => (),
        }
    }
    let prefix = if pattern.starts_with(&prefix) {
        Prefix::Bytes(prefix.len())
    } else {
        Prefix::Unescaped(prefix.into())
    };
    if is_literal {
        Kind::Literal(prefix)
    } else {
        Kind::Wild(prefix)
    }
}

/// Matches chunk by chunk; a chunk is what stands between stars. For each chunk behind a star
/// the first place where it fits is taken, except that the last one must reach the name's end.
fn matches_chunks(mut pattern: &str, mut name: &str) -> bool {
    while !pattern.is_empty() {
        let (has_star, chunk, after) = next_chunk(pattern);
        pattern = after;
        if has_star && chunk.is_empty() {
            return !name.contains('/');
        }
        let is_last = pattern.is_empty();
        let fits = |name| match_chunk(chunk, name).filter(|rest| !is_last || rest.is_empty());
        let Some(rest) = (if has_star {
            starts_of_star(name).find_map(|start| fits(&name[start..]))
        } else {
            fits(name)
        }) else {
            return false;
        };
        name = rest;
    }
    name.is_empty()
}

/// Where a chunk may begin in `name` behind a star: anywhere up to the first slash.
fn starts_of_star(name: &str) -> impl Iterator<Item = usize> {
    let end = name.find('/').unwrap_or(name.len());
    (0..=end).filter(|&i| name.is_char_boundary(i))
}

/// Splits off the leading stars and what follows them up to the next star.
fn next_chunk(pattern: &str) -> (bool, &str, &str) {
    let chunk = pattern.trim_start_matches('*');
    let has_star = chunk.len() < pattern.len();
    let mut rest = chunk;
    loop {
        let end = chunk.len() - rest.len();
        match take(&mut rest) {
            None | Some('*') => return (has_star, &chunk[..end], &chunk[end..]),
            // Not malformed, that was seen when the pattern was read.
            Some('[') => _ = read_class(&mut rest, |_, _| ()),
            Some('\\') => _ = take(&mut rest),
            Some(_) => (),
        }
    }
}

/// Matches the start of `name`; returns what follows.
fn match_chunk<'a>(mut chunk: &str, mut name: &'a str) -> Option<&'a str> {
    while let Some(wanted) = take(&mut chunk) {
        let c = take(&mut name)?;
        let fits = match wanted {
            '?' => c != '/',
            '[' => {
                let mut is_in_range = false;
                let is_negated =
                    read_class(&mut chunk, |low, high| is_in_range |= low <= c && c <= high)?;
                is_in_range != is_negated
            }
            '\\' => take(&mut chunk)? == c,
            wanted => wanted == c,
        };
        if !fits {
            return None;
        }
    }
    Some(name)
}

/// Reads a class behind its `[` and gives each range of it; returns whether it is negated.
/// `None`: malformed (no range, no end, or a bare `-` or `]` as a range's end).
fn read_class(rest: &mut &str, mut range: impl FnMut(char, char)) -> Option<bool> {
    let is_negated = rest.starts_with('^');
    if is_negated {
        take(rest);
    }
    let mut is_first = true;
    loop {
        if !is_first && rest.starts_with(']') {
            take(rest);
            return Some(is_negated);
        }
        is_first = false;
        let low = read_range_end(rest)?;
        let high = if rest.starts_with('-') {
            take(rest);
            read_range_end(rest)?
        } else {
            low
        };
        range(low, high);
    }
}

fn read_range_end(rest: &mut &str) -> Option<char> {
    match take(rest)? {
        '-' | ']' => None,
        '\\' => take(rest),
        c => Some(c),
    }
}

fn take(text: &mut &str) -> Option<char> {
    let mut chars = text.chars();
    let c = chars.next()?;
    *text = chars.as_str();
    Some(c)
}

#[cfg(test)]
mod tests;
