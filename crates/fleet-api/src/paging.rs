//! The page token of v1: four bytes, in URL-safe base64 with padding.
//!
//! `limit` and `page` are 16-bit numbers, little endian. The limit must be the server's own, so
//! a token of another server's page size is refused instead of cutting the pages elsewhere.

/// Which page is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageToken {
    /// Items in a page.
    pub limit: u16,
    /// The page, from 1.
    pub page: u16,
}

/// Why a text is not a token. The messages are the original's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Not base64: which byte.
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
    /// Nothing at all.
    #[error("EOF")]
    Empty,
    /// Less than four bytes.
    #[error("unexpected EOF")]
    TooShort,
    /// Made for another page size.
    #[error("token limit must be {0}")]
    Limit(u16),
    /// Pages are counted from 1.
    #[error("token page must be greater than zero")]
    PageZero,
}

impl PageToken {
    /// Reads a token and checks it against the server's page size.
    pub fn parse(text: &str, limit: u16) -> Result<PageToken, TokenError> {
        let bytes = decode(text.as_bytes())?;
        let (l, p) = match bytes[..] {
            [] => return Err(TokenError::Empty),
            [l0, l1, p0, p1, ..] => (u16::from_le_bytes([l0, l1]), u16::from_le_bytes([p0, p1])),
            _ => return Err(TokenError::TooShort),
        };
        if l != limit {
            return Err(TokenError::Limit(limit));
        }
        if p == 0 {
            return Err(TokenError::PageZero);
        }
        Ok(PageToken { limit: l, page: p })
    }

    /// The token's text.
    pub fn encode(self) -> String {
        let [l0, l1] = self.limit.to_le_bytes();
        let [p0, p1] = self.page.to_le_bytes();
        let mut text = String::with_capacity(8);
        for (bytes, digits) in [([l0, l1, p0], 4), ([p1, 0, 0], 2)] {
            let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
            for digit in 0..4 {
                let value = (bits >> (18 - 6 * digit)) & 63;
                text.push(if digit < digits {
                    char::from(ALPHABET[value as usize])
                } else {
                    '='
                });
            }
        }
        text
    }

    /// The token of the page after this one; None where 16 bits end.
    pub fn next(self) -> Option<PageToken> {
        Some(PageToken {
            page: self.page.checked_add(1)?,
            ..self
        })
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Decodes padded base64 and names faults by the byte that Go's decoder names: this is why no
/// library does it.
fn decode(text: &[u8]) -> Result<Vec<u8>, TokenError> {
    let mut bytes = Vec::new();
    let mut bits = 0_u32;
    let mut n_digits = 0_usize;
    // Line breaks may stand anywhere.
    let mut input = text
        .iter()
        .enumerate()
        .filter(|(_, b)| !matches!(b, b'\r' | b'\n'));
    while let Some((at, byte)) = input.next() {
        if let Some(value) = ALPHABET.iter().position(|digit| digit == byte) {
            bits = bits << 6 | value as u32;
            n_digits += 1;
            if n_digits == 4 {
                bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
                (bits, n_digits) = (0, 0);
            }
            continue;
        }
        if *byte != b'=' || n_digits < 2 {
            return Err(TokenError::Base64(at));
        }
        if n_digits == 2 {
            match input.next() {
                None => return Err(TokenError::Base64(text.len())),
                Some((_, b'=')) => {}
                // Go names the byte before.
                Some((at, _)) => return Err(TokenError::Base64(at - 1)),
            }
        }
        if let Some((at, _)) = input.next() {
            return Err(TokenError::Base64(at));
        }
        bits <<= 6 * (4 - n_digits);
        bytes.extend_from_slice(&bits.to_be_bytes()[1..n_digits]);
        return Ok(bytes);
    }
    if n_digits > 0 {
        return Err(TokenError::Base64(text.len() - n_digits));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_written_as_the_original_writes_it() {
        let token = PageToken {
            limit: 100,
            page: 2,
        };
        assert_eq!(token.encode(), "ZAACAA==");
        assert_eq!(PageToken::parse("ZAACAA==", 100), Ok(token));
        for page in [1, 255, 256, 65_535] {
            for limit in [1, 100, 65_535] {
                let token = PageToken { limit, page };
                assert_eq!(PageToken::parse(&token.encode(), limit), Ok(token));
            }
        }
        let last = PageToken {
            limit: 1,
            page: u16::MAX,
        };
        assert_eq!(last.next(), None);
    }

    #[test]
    fn faults_are_named_as_the_original_names_them() {
        for (text, message) in [
            ("!", "illegal base64 data at input byte 0"),
            ("ZAA!AA==", "illegal base64 data at input byte 3"),
            ("ZAACAA", "illegal base64 data at input byte 4"),
            ("ZAACAA=", "illegal base64 data at input byte 7"),
            ("ZAACAA=A", "illegal base64 data at input byte 6"),
            ("ZAACAA=\n-", "illegal base64 data at input byte 7"),
            ("ZAACAA==A", "illegal base64 data at input byte 8"),
            ("=", "illegal base64 data at input byte 0"),
            ("", "EOF"),
            ("ZAAC", "unexpected EOF"),
            ("ZA==", "unexpected EOF"),
            ("ZQACAA==", "token limit must be 100"),
            ("ZAAAAA==", "token page must be greater than zero"),
        ] {
            let error = PageToken::parse(text, 100).unwrap_err();
            assert_eq!(error.to_string(), message, "{text}");
        }
    }

    #[test]
    fn line_breaks_and_more_bytes_are_passed_over() {
        let token = PageToken {
            limit: 100,
            page: 2,
        };
        assert_eq!(PageToken::parse("ZAAC\r\nAA==", 100), Ok(token));
        assert_eq!(PageToken::parse("ZAACAAAA", 100), Ok(token));
    }
}
