//! Globs beside a second, slower reading of the rules of Go's `path.Match`.

use fleet_core::glob::Glob;

/// A pattern, a zero byte, a name.
pub(crate) fn glob(data: &[u8]) {
    // The reference is quadratic and more; long patterns show nothing that short ones do not.
    const MAX_BYTES: usize = 200;
    let text = String::from_utf8_lossy(&data[..data.len().min(MAX_BYTES)]);
    let (pattern, name) = text.split_once('\0').unwrap_or((&text, &text));
    let glob = Glob::new(pattern);
    let terms = terms(pattern);
    assert_eq!(glob.is_malformed(), terms.is_none(), "{pattern:?}");
    let matches = glob.matches(name);
    if let Some(literal) = glob.is_literal() {
        assert_eq!(matches, literal == name);
        assert!(glob.matches(literal));
    }
    if matches {
        assert!(
            name.starts_with(glob.literal_prefix()),
            "{pattern:?} {name:?}"
        );
    }
    let terms = terms.unwrap_or_default();
    let name: Vec<char> = name.chars().collect();
    // path.Match never goes back beyond a star that has found its place, so that it may miss what
    // the rules allow, and never the other way round; without classes that cannot happen.
    let allowed = !glob.is_malformed() && is_match(&terms, &name);
    let has_class = terms.iter().any(|term| matches!(term, Term::Class { .. }));
    assert!(!matches || allowed, "{pattern:?} {name:?}");
    assert!(!allowed || matches || has_class, "{pattern:?} {name:?}");
}

enum Term {
    Star,
    Any,
    One(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

fn terms(pattern: &str) -> Option<Vec<Term>> {
    let mut rest = pattern.chars().peekable();
    let mut terms = Vec::new();
    while let Some(c) = rest.next() {
        terms.push(match c {
            '*' => Term::Star,
            '?' => Term::Any,
            '\\' => Term::One(rest.next()?),
            '[' => {
                let negated = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                let escaped =
                    |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| match rest.next()? {
                        '\\' => rest.next(),
                        '-' | ']' => None,
                        c => Some(c),
                    };
                loop {
                    if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
                        break;
                    }
                    let from = escaped(&mut rest)?;
                    let to = match rest.next_if_eq(&'-') {
                        Some(_) => escaped(&mut rest)?,
                        None => from,
                    };
                    ranges.push((from, to));
                    // A class that is not closed is malformed, whatever it matches.
                    rest.peek()?;
                }
                Term::Class { negated, ranges }
            }
            c => Term::One(c),
        });
    }
    Some(terms)
}

/// All ways, by rows: which beginnings of the name the terms so far can match.
fn is_match(terms: &[Term], name: &[char]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for term in terms {
        let mut next = vec![false; name.len() + 1];
        if matches!(term, Term::Star) {
            let mut open = false;
            for at in 0..=name.len() {
                open |= reached[at];
                next[at] = open;
                open &= name.get(at) != Some(&'/');
            }
        } else {
            for at in (0..name.len()).filter(|at| reached[*at]) {
                let c = name[at];
                next[at + 1] = match term {
                    Term::Star => unreachable!("seen to above"),
                    Term::Any => c != '/',
                    Term::One(one) => c == *one,
                    Term::Class { negated, ranges } => {
                        ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
                    }
                };
            }
        }
        reached = next;
    }
    reached[name.len()]
}
