//! What systemd might say on its private socket.

/// Bytes as they come.
pub(crate) fn stream(data: &[u8]) {
    run(data);
}

/// Messages that are whole, with any body: their kind, their signature, and the length of their
/// body come first, four bytes in all.
pub(crate) fn bodies(data: &[u8]) {
    let mut stream = Vec::new();
    let mut rest = data;
    while let [kind, signature, low, high, body @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(body.len());
        let (body, behind) = body.split_at(length);
        stream.extend(message(*kind, *signature, body));
        rest = behind;
    }
    run(&stream);
}

fn run(bytes: &[u8]) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had")
        .block_on(fleetd::fuzz::systemd_says(bytes));
}

/// The signals that are listened to, and some other.
const MEMBERS: [&str; 6] = [
    "PropertiesChanged",
    "JobRemoved",
    "UnitRemoved",
    "Reloading",
    "JobNew",
    "",
];

/// The types of everything that is asked for, and some others.
const SIGNATURES: [&str; 16] = [
    "a(ssssssouso)",
    "a{sv}",
    "v",
    "sa{sv}as",
    "uoss",
    "so",
    "b",
    "ba(sss)",
    "a(sss)",
    "o",
    "s",
    "as",
    "ay",
    "vvvv",
    "a(sasbttttuii)",
    "",
];

fn message(kind: u8, signature: u8, body: &[u8]) -> Vec<u8> {
    let signature = SIGNATURES[usize::from(signature) % SIGNATURES.len()];
    let is_signal = kind & 1 == 0;
    let mut fields = Vec::new();
    let mut text = |code: u8, kind: u8, text: &str| {
        fields.resize(fields.len().next_multiple_of(8), 0_u8);
        fields.extend([code, 1, kind, 0]);
        if kind == b'g' {
            fields.push(u8::try_from(text.len()).expect("they are short"));
        } else {
            fields.extend(
                u32::try_from(text.len())
                    .expect("they are short")
                    .to_le_bytes(),
            );
        }
        fields.extend(text.as_bytes());
        fields.push(0);
    };
    if is_signal {
        let member = MEMBERS[usize::from(kind >> 1) % MEMBERS.len()];
        let interface = match member {
            "PropertiesChanged" => "org.freedesktop.DBus.Properties",
            _ => "org.freedesktop.systemd1.Manager",
        };
        let path = match member {
            "PropertiesChanged" => "/org/freedesktop/systemd1/unit/a_2eservice",
            _ => "/org/freedesktop/systemd1",
        };
        text(1, b'o', path);
        text(2, b's', interface);
        text(3, b's', member);
    }
    text(7, b's', "org.freedesktop.systemd1");
    if !signature.is_empty() {
        text(8, b'g', signature);
    }
    if !is_signal {
        fields.resize(fields.len().next_multiple_of(8), 0);
        // The answer to message 1, which may be an error.
        fields.extend([5, 1, b'u', 0, 1, 0, 0, 0]);
    }
    let kind = match kind {
        _ if is_signal => 4,
        255 => 3,
        _ => 2,
    };
    let mut message = vec![b'l', kind, 0, 1];
    message.extend(
        u32::try_from(body.len())
            .expect("it is short")
            .to_le_bytes(),
    );
    message.extend(7_u32.to_le_bytes());
    message.extend(
        u32::try_from(fields.len())
            .expect("they are short")
            .to_le_bytes(),
    );
    message.extend(fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}
