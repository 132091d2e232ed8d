//! Join tokens: what `fleetctl join-token` prints, and a newcomer shows once.
//!
//! A token carries the fingerprint of the CA, so that the newcomer knows whom to believe; what it
//! is for and until when; and a code over all that which only the CA's key can make. So nobody
//! makes a token out of what is in the store.

use crate::{Ca, Error, Fingerprint, Subject, hex, random};

const PREFIX: &str = "fleet1-";

/// What the code is made for: no other use of the CA's key gives the same.
const PURPOSE: &str = "fleet join token 1";

/// Longest text that is looked at: one with many names.
const MAX_TOKEN_BYTES: usize = 8 << 10;

const CODE_BYTES: usize = 32;
const ID_BYTES: usize = 16;

/// What a token is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// Whom it makes a member; None: whatever machine comes, if no other one has its id.
    pub subject: Option<Subject>,
    /// A user's role.
    pub role: Option<String>,
    /// Host names and addresses under which a machine may be reached besides those it comes from.
    pub names: Vec<String>,
    /// Until when it may be used.
    pub expires_ms: u64,
}

/// A token as it was made, or as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Of the CA that made it.
    pub ca: Fingerprint,
    /// Which one it is: used ones are remembered by it. It gives nothing away of the code.
    pub id: String,
    /// What it is for.
    pub claims: Claims,
    code: Vec<u8>,
    sealed: Vec<u8>,
}

impl Ca {
    /// A new token.
    ///
    /// # Errors
    /// There are no random numbers, or a name is none.
    pub fn token(&self, claims: Claims) -> Result<Token, Error> {
        for name in &claims.names {
            crate::check_dns_name(name)?;
        }
        if let Some(role) = &claims.role {
            crate::check_name("role", role)?;
        }
        if let Some(Subject::User(name)) = &claims.subject {
            crate::check_name("user", name)?;
        }
        let id = random::<ID_BYTES>()?;
        let mut sealed = self.fingerprint().to_vec();
        sealed.extend_from_slice(&id);
        sealed.extend_from_slice(&claims.expires_ms.to_be_bytes());
        let subject = claims.subject.as_ref().map(ToString::to_string);
        let texts = [
            subject.unwrap_or_default(),
            claims.role.clone().unwrap_or_default(),
            claims.names.join(","),
        ];
        sealed.extend_from_slice(texts.join("\n").as_bytes());
        let code = ring::hmac::sign(&self.secret(PURPOSE), &sealed);
        Ok(Token {
            ca: *self.fingerprint(),
            id: hex(&id),
            claims,
            code: code.as_ref().to_vec(),
            sealed,
        })
    }

    /// Whether a token is one of this CA's and may still be used, as far as the token says: that it
    /// was not used before is for the caller to see.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, token: &Token, now_ms: u64) -> Result<(), Error> {
        ring::hmac::verify(&self.secret(PURPOSE), &token.sealed, &token.code)
            .map_err(|_| Error::OtherToken)?;
        match now_ms < token.claims.expires_ms {
            true => Ok(()),
            false => Err(Error::LateToken),
        }
    }
}

impl Token {
    /// Reads a token. Only [`Ca::check`] says whether it is to be believed.
    ///
    /// # Errors
    /// The text is no token.
    pub fn parse(text: &str) -> Result<Token, Error> {
        Token::read(text.trim()).ok_or(Error::NoToken)
    }

    fn read(text: &str) -> Option<Token> {
        if text.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let bytes = unhex(text.strip_prefix(PREFIX)?)?;
        let (code, sealed) = bytes.split_at_checked(CODE_BYTES)?;
        let (ca, rest) = sealed.split_at_checked(size_of::<Fingerprint>())?;
        let (id, rest) = rest.split_at_checked(ID_BYTES)?;
        let (expires, texts) = rest.split_at_checked(size_of::<u64>())?;
        let mut texts = std::str::from_utf8(texts).ok()?.split('\n');
        let (subject, role, names) = (texts.next()?, texts.next()?, texts.next()?);
        let subject = match subject {
            "" => None,
            subject => Some(Subject::parse(subject)?),
        };
        Some(Token {
            ca: ca.try_into().ok()?,
            id: hex(id),
            claims: Claims {
                subject,
                role: (!role.is_empty()).then(|| role.to_owned()),
                names: names
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
                expires_ms: u64::from_be_bytes(expires.try_into().ok()?),
            },
            code: code.to_vec(),
            sealed: sealed.to_vec(),
        })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}{}", hex(&self.code), hex(&self.sealed))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn claims() -> Claims {
        Claims {
            subject: Some(Subject::User("alice@example.org".into())),
            role: Some("operator".into()),
            names: vec!["a.example".into(), "10.0.0.1".into()],
            expires_ms: NOW + 60_000,
        }
    }

    #[test]
    fn a_token_comes_back_as_it_was_made_and_ends() {
        let (ca, _) = Ca::create(NOW).unwrap();
        for claims in [
            claims(),
            Claims {
                subject: None,
                role: None,
                names: Vec::new(),
                ..claims()
            },
        ] {
            let made = ca.token(claims).unwrap();
            let read = Token::parse(&format!(" {made}\n")).unwrap();
            assert_eq!(read, made);
            assert_eq!(&read.ca, ca.fingerprint());
            ca.check(&read, NOW + 59_999).unwrap();
            assert!(matches!(
                ca.check(&read, NOW + 60_000),
                Err(Error::LateToken)
            ));
        }
    }

    /// Each bit of it counts: nobody makes himself an admin out of a token for a machine.
    #[test]
    fn a_changed_token_and_that_of_another_ca_are_refused() {
        let (ca, _) = Ca::create(NOW).unwrap();
        let (other, _) = Ca::create(NOW).unwrap();
        let text = ca.token(claims()).unwrap().to_string();
        for at in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            let refused = Token::parse(&changed).and_then(|token| ca.check(&token, NOW));
            assert!(refused.is_err(), "{changed}");
        }
        let token = Token::parse(&text).unwrap();
        assert!(matches!(other.check(&token, NOW), Err(Error::OtherToken)));
        for text in [
            "",
            "fleet1-",
            "fleet1-zz",
            "fleet1-0",
            "fleet2-00",
            &text[..90],
        ] {
            assert!(matches!(Token::parse(text), Err(Error::NoToken)), "{text}");
        }
    }

    #[test]
    fn names_that_would_be_too_much_are_refused() {
        let (ca, _) = Ca::create(NOW).unwrap();
        for name in ["*.example", "a b", "", "148a18ff6e954cd892dac9de9bb90d5a"] {
            let claims = Claims {
                names: vec![name.to_owned()],
                ..claims()
            };
            assert!(matches!(ca.token(claims), Err(Error::BadName(_))), "{name}");
        }
        let claims = Claims {
            role: Some("a\nb".into()),
            ..claims()
        };
        assert!(matches!(ca.token(claims), Err(Error::BadName(_))));
    }
}
