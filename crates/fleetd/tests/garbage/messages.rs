//! D-Bus messages by hand, so that they can be wrong in any way.

/// D-Bus's encoding, as far as it is needed: little endian, everything at its alignment.
#[derive(Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(crate) fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    pub(crate) fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap());
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    pub(crate) fn variant(&mut self, signature: &str, value: impl FnOnce(&mut Body)) {
        self.signature(signature);
        value(self);
    }

    pub(crate) fn field(&mut self, code: u8, kind: &str, value: impl FnOnce(&mut Body)) {
        self.align(8);
        self.0.push(code);
        self.variant(kind, value);
    }
}

pub(crate) fn signal(
    path: &str,
    interface: &str,
    member: &str,
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut fields = Body::default();
    fields.field(1, "o", |f| f.text(path));
    fields.field(2, "s", |f| f.text(interface));
    fields.field(3, "s", |f| f.text(member));
    whole(4, fields, signature, body)
}

/// An answer (2) or an error (3) of this name.
pub(crate) fn message(
    kind: u8,
    error: &str,
    to: Option<u32>,
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut fields = Body::default();
    if kind == 3 {
        fields.field(4, "s", |f| f.text(error));
    }
    if let Some(to) = to {
        fields.field(5, "u", |f| f.number(to));
    }
    whole(kind, fields, signature, body)
}

fn whole(kind: u8, mut fields: Body, signature: &str, body: &[u8]) -> Vec<u8> {
    fields.field(7, "s", |f| f.text("org.freedesktop.systemd1"));
    if !signature.is_empty() {
        fields.field(8, "g", |f| f.signature(signature));
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut out = vec![b'l', kind, 0, 1];
    out.extend(length(body));
    out.extend(1_u32.to_le_bytes());
    out.extend(length(&fields.0));
    out.extend(&fields.0);
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend(body);
    out
}

/// The member that a call names among its header's fields.
pub(crate) fn member_of(fields: &[u8]) -> String {
    let mut at = 0;
    while at + 8 < fields.len() {
        let (code, kind) = (fields[at], fields[at + 2]);
        let length = match kind {
            b'g' => usize::from(fields[at + 4]) + 2,
            b'u' => 4,
            _ => {
                let length = fields[at + 4..at + 8].try_into().unwrap();
                u32::from_le_bytes(length) as usize + 5
            }
        };
        if code == 3 {
            let text = &fields[at + 8..at + 4 + length - 1];
            return String::from_utf8_lossy(text).into_owned();
        }
        at = (at + 4 + length).next_multiple_of(8);
    }
    String::new()
}

/// The texts in a body that is a list of texts, or begins with texts.
pub(crate) fn texts_in(body: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    let number = |at: usize| {
        let bytes = body.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes) as usize)
    };
    // A list begins with its length in bytes, which is that of the rest.
    let mut at = if number(0).is_some_and(|n| n + 4 == body.len()) {
        4
    } else {
        0
    };
    while let Some(length) = number(at) {
        let Some(text) = body.get(at + 4..at + 4 + length) else {
            break;
        };
        texts.push(String::from_utf8_lossy(text).into_owned());
        at = (at + 5 + length).next_multiple_of(4);
    }
    texts
}
