//! "Did you mean this?" for mistyped commands.

/// A command so many edits away may have been meant. The original's distance.
const MAX_DISTANCE: usize = 2;

/// The commands that may have been meant: those that begin with the word and those that are at
/// most two edits away.
pub(crate) fn suggestions<'a>(word: &str, commands: &[&'a str]) -> Vec<&'a str> {
    let word = word.to_lowercase();
    commands
        .iter()
        .filter(|command| command.starts_with(&word) || distance(&word, command) <= MAX_DISTANCE)
        .copied()
        .collect()
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (a_idx, a_char) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], a_idx + 1);
        for (b_idx, b_char) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a_char != *b_char);
            diagonal = row[b_idx + 1];
            row[b_idx + 1] = replaced.min(diagonal + 1).min(row[b_idx] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("st", "cat", 2),
            ("st", "ssh", 2),
            ("stat", "start", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn the_originals_suggestions() {
        let commands = [
            "cat",
            "destroy",
            "fd-forward",
            "help",
            "journal",
            "list-machines",
            "list-unit-files",
            "list-units",
            "load",
            "restart",
            "ssh",
            "start",
            "status",
            "stop",
            "submit",
            "unload",
            "verify",
            "version",
        ];
        assert_eq!(
            suggestions("st", &commands),
            ["cat", "ssh", "start", "status", "stop"]
        );
        assert_eq!(suggestions("bogus", &commands), [""; 0]);
        assert_eq!(
            suggestions("list", &commands),
            ["list-machines", "list-unit-files", "list-units"]
        );
    }
}
