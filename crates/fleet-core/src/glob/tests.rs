use proptest::prelude::*;

use super::*;

#[test]
fn patterns_and_names() {
    for (pattern, name, expected) in [
        ("", "", true),
        ("", "a", false),
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("abc", "ab", false),
        ("*", "", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "abc", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("**a**", "bab", true),
        ("*a", "aa", true),
        ("*ab", "aab", true),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "a☺b", true),
        ("a[^a]b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("a[^x]b", "a/b", true),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "-", true),
        ("[x\\-]", "z", false),
        ("[\\-x]", "a", false),
        ("[a*]", "*", true),
        ("[*]b*", "*bc", true),
        ("[[]", "[", true),
        ("[z-a]", "m", false),
        ("[^z-a]", "m", true),
        ("]", "]", true),
        ("a-^b", "a-^b", true),
        ("web@*.service", "web@1.service", true),
        ("web@*.service", "web.service", false),
        // The first place where `[^x]` fits is taken for good, as in Go.
        ("*[^x]*c", "a/c", false),
        // Malformed.
        ("[]a]", "]", false),
        ("[-]", "-", false),
        ("[x-]", "x", false),
        ("[-x]", "x", false),
        ("[a-b-c]", "a", false),
        ("[", "a", false),
        ("[^", "a", false),
        ("[^]", "a", false),
        ("[^bc", "a", false),
        ("a[", "a", false),
        ("a[", "ab", false),
        ("a\\", "a", false),
        ("a\\", "a\\", false),
        ("*a\\", "a", false),
        ("[a\\", "a", false),
    ] {
        assert_eq!(
            Glob::new(pattern).matches(name),
            expected,
            "{pattern:?} {name:?}"
        );
    }
}

#[test]
fn literals_and_prefixes() {
    for (pattern, literal, prefix) in [
        ("", Some(""), ""),
        ("a.service", Some("a.service"), "a.service"),
        ("a\\*é", Some("a*é"), "a*é"),
        ("a\\\\b", Some("a\\b"), "a\\b"),
        ("ab*", None, "ab"),
        ("\\ab?c", None, "ab"),
        ("a[b]", None, "a"),
        ("*", None, ""),
        ("ab[", None, ""),
        ("ab\\", None, ""),
    ] {
        let glob = Glob::new(pattern);
        assert_eq!(glob.as_str(), pattern);
        assert_eq!(glob.is_literal(), literal, "{pattern}");
        assert_eq!(glob.literal_prefix(), prefix, "{pattern}");
    }
    assert!(Glob::new("ab[").is_malformed());
    assert!(!Glob::new("ab]").is_malformed());
    assert_eq!(format!("{0} {0:?}", Glob::new("a*")), "a* \"a*\"");
}

#[test]
fn many_stars_take_little_time() {
    // Going back beyond the last star would take 2^30 steps.
    let glob = Glob::new(&"*a".repeat(30));
    assert!(!glob.matches(&format!("{}b", "a".repeat(200))));
}

/// The rules as Go documents them, followed by trying everything.
mod reference {
    #[derive(Clone, Debug, PartialEq)]
    pub(super) enum Term {
        Star,
        Any,
        Literal(char),
        Class(bool, Vec<(char, char)>),
    }

    /// `None`: malformed.
    pub(super) fn parse(pattern: &[char]) -> Option<Vec<Term>> {
        let (term, rest) = match pattern {
            [] => return Some(vec![]),
            ['*', rest @ ..] => (Term::Star, rest),
            ['?', rest @ ..] => (Term::Any, rest),
            ['\\', c, rest @ ..] => (Term::Literal(*c), rest),
            ['\\'] => return None,
            ['[', '^', rest @ ..] => class(rest, true)?,
            ['[', rest @ ..] => class(rest, false)?,
            [c, rest @ ..] => (Term::Literal(*c), rest),
        };
        let mut terms = vec![term];
        terms.extend(parse(rest)?);
        Some(terms)
    }

    fn class(mut rest: &[char], is_negated: bool) -> Option<(Term, &[char])> {
        let mut ranges = vec![];
        loop {
            match rest {
                [']', after @ ..] if !ranges.is_empty() => {
                    return Some((Term::Class(is_negated, ranges), after));
                }
                _ => (),
            }
            let (low, after) = character(rest)?;
            let (high, after) = match after {
                ['-', after @ ..] => character(after)?,
                _ => (low, after),
            };
            ranges.push((low, high));
            rest = after;
        }
    }

    fn character(rest: &[char]) -> Option<(char, &[char])> {
        match rest {
            [] | ['-', ..] | [']', ..] | ['\\'] => None,
            ['\\', c, after @ ..] => Some((*c, after)),
            [c, after @ ..] => Some((*c, after)),
        }
    }

    pub(super) fn matches(terms: &[Term], name: &[char]) -> bool {
        match (terms, name) {
            ([], name) => name.is_empty(),
            ([Term::Star, after @ ..], name) => {
                matches(after, name)
                    || matches!(name, [c, rest @ ..] if *c != '/' && matches(terms, rest))
            }
            (_, []) => false,
            ([term, after @ ..], [c, rest @ ..]) => {
                let fits = match term {
                    Term::Star => false,
                    Term::Any => *c != '/',
                    Term::Literal(wanted) => wanted == c,
                    Term::Class(is_negated, ranges) => {
                        ranges.iter().any(|(low, high)| (low..=high).contains(&c)) != *is_negated
                    }
                };
                fits && matches(after, rest)
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn globs_agree_with_the_documented_rules(
        pattern in "[ab*?\\[\\]^\\-\\\\/é]{0,10}",
        name in "[abé/\\-\\]]{0,8}",
    ) {
        let glob = Glob::new(&pattern);
        let characters: Vec<char> = pattern.chars().collect();
        let terms = reference::parse(&characters);
        prop_assert_eq!(glob.is_malformed(), terms.is_none());
        let expected = terms.is_some_and(|terms| {
            reference::matches(&terms, &name.chars().collect::<Vec<_>>())
        });
        // Where a class can match a slash, Go's own matcher is not what its rules say, and the
        // table above says what we do.
        if name.contains('/') && pattern.contains('[') {
            return Ok(());
        }
        prop_assert_eq!(glob.matches(&name), expected);
        if expected {
            prop_assert!(name.starts_with(glob.literal_prefix()));
            prop_assert!(glob.is_literal().is_none_or(|literal| literal == name));
        }
    }

    #[test]
    fn names_made_from_a_pattern_match_it(parts in prop::collection::vec("[a-c]{0,3}", 1..6)) {
        let glob = Glob::new(&parts.join("*"));
        prop_assert!(glob.matches(&parts.join("ab")));
    }

    #[test]
    fn any_text_is_a_pattern(pattern: String, name: String) {
        Glob::new(&pattern).matches(&name);
    }
}
