//! Base64 of a few bytes: the URL-safe alphabet without padding. A hash takes 27 characters
//! instead of 40, an invocation id 22 instead of 32.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The base64 of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for digit in 0..=chunk.len() {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

/// The `N` bytes of which `text` is the base64; exactly one text stands for the same bytes.
pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != (8 * N).div_ceil(6) {
        return None;
    }
    for (chunk, digits) in bytes.chunks_mut(3).zip(text.as_bytes().chunks(4)) {
        let bits = (0..4).try_fold(0, |bits, at| {
            Some(bits << 6 | digits.get(at).map_or(Some(0), |&digit| value(digit))?)
        })?;
        let [_, all @ ..] = u32::to_be_bytes(bits);
        let (used, unused) = all.split_at(chunk.len());
        if unused.iter().any(|&byte| byte != 0) {
            return None;
        }
        chunk.copy_from_slice(used);
    }
    Some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_rfc_4648_has_it() {
        assert_eq!(encode(b"f"), "Zg");
        assert_eq!(encode(b"fo"), "Zm8");
        assert_eq!(encode(b"foo"), "Zm9v");
        assert_eq!(encode(b"foobar"), "Zm9vYmFy");
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
        assert_eq!(decode(""), Some([]));
        assert_eq!(decode("Zg"), Some(*b"f"));
        assert_eq!(decode("Zm8"), Some(*b"fo"));
        assert_eq!(decode("Zm9vYmFy"), Some(*b"foobar"));
        assert_eq!(decode("-_8"), Some([0xfb, 0xff]));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["Z", "Zg=", "Zg==", "Zh", "Z+", "Zé", "Zgg"] {
            assert_eq!(decode::<1>(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn there_and_back(bytes in proptest::array::uniform20(0..=u8::MAX)) {
            assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
