//! Mutations of a corpus, the same for the same seed.

use crate::chance::Chance;

/// Larger inputs take longer and show nothing that these do not.
const MAX_BYTES: usize = 64 << 10;
/// Changes made to one input at most.
const MAX_CHANGES: u64 = 8;
/// Pieces of the languages that are read, which chance would not find.
const WORDS: [&[u8]; 40] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"=",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b":",
    b",",
    b"\\",
    b"\\\n",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"0",
    b"[Unit]\n",
    b"[X-Fleet]\n",
    b"MachineOf=",
    b"Conflicts=",
    b"MachineMetadata=",
    b"Global=true",
    b"%n%i%p%N",
    b".service",
    b"@",
    b"*",
    b"[^a-z]",
    b"\xff\xfe",
    b"\xe2\x82",
    "\u{85}\u{2028}".as_bytes(),
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"%2f%00",
    b"\xff\xff\xff\xff",
];

pub(crate) struct Mutator(Chance);

impl Mutator {
    pub(crate) fn new(seed: u64) -> Mutator {
        Mutator(Chance::new(seed))
    }

    /// An input of the corpus, changed here and there.
    pub(crate) fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.0.below(corpus.len())].clone();
        for _ in 0..=self.0.next() % MAX_CHANGES {
            self.change(&mut input, corpus);
            input.truncate(MAX_BYTES);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.0.below(input.len() + 1);
        let length = 1 + self.0.below(16);
        let end = (at + length).min(input.len());
        match self.0.next() % 9 {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << (self.0.next() % 8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.0.next().to_le_bytes()[0];
                }
            }
            2 => drop(input.drain(at..end)),
            3 => {
                let word = WORDS[self.0.below(WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
            4 => {
                let word = WORDS[self.0.below(WORDS.len())];
                input.splice(at..end, word.iter().copied());
            }
            5 => {
                let piece = input[at..end].to_vec();
                let to = self.0.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            6 => {
                // Long runs: depth and length.
                let piece = input[at..end].repeat(1 + self.0.below(2_000));
                input.splice(at..at, piece);
            }
            7 => {
                let other = &corpus[self.0.below(corpus.len())];
                let from = self.0.below(other.len() + 1);
                input.truncate(at);
                input.extend(&other[from..]);
            }
            _ => input.truncate(at),
        }
    }
}
