//! Answers that are HTTP, with any body: what fleetctl makes of the documents in them.

/// The first byte says which request, the second which status; the rest is the body.
pub(crate) fn answers(data: &[u8]) {
    const STATUSES: [&str; 8] = [
        "200 OK",
        "201 Created",
        "204 No Content",
        "301 Moved Permanently",
        "400 Bad Request",
        "404 Not Found",
        "503 Service Unavailable",
        "999 Nothing",
    ];
    let [which, status, body @ ..] = data else {
        return;
    };
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    super::client::call(*which, answer);
}
