//! The last lines that a unit, and systemd about it, wrote to the journal.

use std::process::Stdio;
use std::time::Duration;

use fleet_core::name::UnitName;
use fleet_core::records::StateRecord;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

/// A journal of some gigabytes answers within this; a failure is told without its log otherwise.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Where journald is asked to take in what has been written to it: a process may be dead, and the end
/// of it reported, long before journald has read its last words.
const JOURNALD: &str = "/run/systemd/journal/io.systemd.journal";
/// journald answers this after everything that was sent to it before.
const SYNCHRONIZE: &[u8] = b"{\"method\":\"io.systemd.Journal.Synchronize\"}\0";
/// A journald that hangs is not waited for; what it has is read.
const SYNCHRONIZE_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read of its answer: an empty one has 20 bytes.
const MAX_ANSWER: u64 = 4096;
/// Whom journald does not answer (a user's fleetd) gives it this long.
const JOURNAL_LAG: Duration = Duration::from_millis(50);
/// More would compete with the units that are being started.
static JOURNAL_READERS: Semaphore = Semaphore::const_new(2);
/// How many entries are read: those of earlier invocations are among them.
const N_ENTRIES: usize = 3 * StateRecord::MAX_LOG_LINES;
/// What is read of journalctl's output: ten ordinary entries are some thousand bytes.
const MAX_JOURNAL_READ: u64 = 1024 * 1024;

/// A journal entry, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Entry {
    message: String,
    /// Which invocation it is of. journald knows none of what it reads of a process only when that is
    /// gone: the unit's name is all that it is told then.
    invocation_id: Option<String>,
}

/// The last lines of a unit's invocation: its processes' and systemd's own about it.
pub(crate) async fn of_invocation(unit: &UnitName, id: &str, user: bool) -> Vec<String> {
    if id.is_empty() {
        return Vec::new();
    }
    let (of_processes, about) = match user {
        true => ("_SYSTEMD_USER_UNIT", "USER_UNIT"),
        false => ("_SYSTEMD_UNIT", "UNIT"),
    };
    let of_processes = format!("{of_processes}={unit}");
    let about = format!("{about}={unit}");
    let output = read(&[&of_processes, "+", &about], N_ENTRIES, user).await;
    last_lines(&output, id)
}

/// What systemd has last said of a unit.
pub(crate) async fn of_systemd(unit: &UnitName, user: bool) -> Option<String> {
    let field = if user { "USER_UNIT" } else { "UNIT" };
    let output = read(&[&format!("{field}={unit}")], 1, user).await;
    entries(&output).pop().map(|entry| cut(&entry.message))
}

/// journalctl's export format; empty when there is no journal, which is no trouble: the reason is
/// told without it.
async fn read(matches: &[&str], n_entries: usize, user: bool) -> Vec<u8> {
    let Ok(_reader) = JOURNAL_READERS.acquire().await else {
        return Vec::new();
    };
    match tokio::time::timeout(SYNCHRONIZE_TIMEOUT, synchronize(JOURNALD)).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(_)) => tokio::time::sleep(JOURNAL_LAG).await,
    }
    let mut command = tokio::process::Command::new("journalctl");
    if user {
        command.arg("--user");
    }
    command
        .args(["--quiet", "--no-pager", "-o", "export", "-n"])
        .arg(n_entries.to_string())
        .arg("--output-fields=MESSAGE,_SYSTEMD_INVOCATION_ID,INVOCATION_ID,USER_INVOCATION_ID")
        .args(matches)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let read = async {
        let mut child = command.spawn().ok()?;
        // One that is not done yet has more to say than anybody reads: it is killed.
        read_bounded(child.stdout.take()?).await.ok()
    };
    let output = tokio::time::timeout(JOURNAL_TIMEOUT, read).await;
    output.ok().flatten().unwrap_or_default()
}

/// Ends when journald has taken in all that was sent to it before.
async fn synchronize(journald: &str) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(journald).await?;
    stream.write_all(SYNCHRONIZE).await?;
    let mut answer = stream.take(MAX_ANSWER);
    while answer.read_u8().await? != 0 {}
    Ok(())
}

/// Lines may be as long as a program likes.
async fn read_bounded(from: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut output = Vec::new();
    from.take(MAX_JOURNAL_READ).read_to_end(&mut output).await?;
    Ok(output)
}

/// Those of one invocation among a unit's entries, in journalctl's export format. What is of no
/// invocation belongs to the one that was last spoken of before it or begins after it: only what
/// comes before the end of another one is that one's.
pub(crate) fn last_lines(output: &[u8], id: &str) -> Vec<String> {
    let entries = entries(output);
    let is_others = |entry: &Entry| entry.invocation_id.as_deref().is_some_and(|of| of != id);
    let from = entries.iter().rposition(is_others).map_or(0, |at| at + 1);
    let lines: Vec<&str> = entries[from..]
        .iter()
        .flat_map(|entry| entry.message.lines())
        .collect();
    let from = lines.len().saturating_sub(StateRecord::MAX_LOG_LINES);
    lines[from..].iter().map(|line| cut(line)).collect()
}

/// Reads systemd's "Journal Export Format" up to where it is cut off or garbled.
fn entries(output: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    let mut rest = output;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            entries.push(std::mem::take(&mut entry));
            continue;
        }
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => (&line[..at], &line[at + 1..]),
            // What is no line of text: its length in eight bytes, little endian, and a newline after it.
            None => {
                let Some((value, after)) = rest.split_first_chunk().and_then(|(len, after)| {
                    after.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)
                }) else {
                    break;
                };
                rest = after.strip_prefix(b"\n").unwrap_or(after);
                (line, value)
            }
        };
        let value = String::from_utf8_lossy(value).into_owned();
        match name {
            b"MESSAGE" => entry.message = value,
            b"_SYSTEMD_INVOCATION_ID" if entry.invocation_id.is_some() => {}
            // systemd's own invocation is not the one that it speaks of.
            b"INVOCATION_ID" | b"USER_INVOCATION_ID" | b"_SYSTEMD_INVOCATION_ID" => {
                entry.invocation_id = Some(value);
            }
            _ => {}
        }
    }
    if entry != Entry::default() {
        entries.push(entry);
    }
    entries
}

fn cut(line: &str) -> String {
    line[..line.floor_char_boundary(StateRecord::MAX_LOG_LINE_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut output = Vec::new();
        for (field, message) in entries {
            output.extend_from_slice(b"__CURSOR=c\n__REALTIME_TIMESTAMP=1\n");
            if !field.is_empty() {
                output.extend_from_slice(format!("{field}\n").as_bytes());
            }
            match message.contains('\n') {
                false => output.extend_from_slice(format!("MESSAGE={message}\n\n").as_bytes()),
                true => {
                    output.extend_from_slice(b"MESSAGE\n");
                    output.extend_from_slice(&(message.len() as u64).to_le_bytes());
                    output.extend_from_slice(format!("{message}\n\n").as_bytes());
                }
            }
        }
        output
    }

    #[test]
    fn what_a_dead_process_wrote_is_among_the_lines_and_no_earlier_invocation_is() {
        let output = exported(&[
            ("_SYSTEMD_INVOCATION_ID=one", "first"),
            ("", "of the first, read late"),
            ("INVOCATION_ID=one", "Failed with result 'exit-code'."),
            ("", "of the second, read late"),
            ("INVOCATION_ID=two", "Started."),
            ("_SYSTEMD_INVOCATION_ID=two", "second\nwith a line more"),
        ]);
        assert_eq!(
            last_lines(&output, "two"),
            [
                "of the second, read late",
                "Started.",
                "second",
                "with a line more"
            ]
        );
        assert_eq!(last_lines(&output, "three"), [""; 0]);
        // systemd's line is about the unit's invocation, not about its own (a user's has one).
        let about = "_SYSTEMD_INVOCATION_ID=systemd's\nUSER_INVOCATION_ID=two";
        let turned = "USER_INVOCATION_ID=two\n_SYSTEMD_INVOCATION_ID=systemd's";
        let output = exported(&[(about, "Started."), (turned, "Stopped.")]);
        assert_eq!(last_lines(&output, "two"), ["Started.", "Stopped."]);
    }

    #[test]
    fn what_is_cut_off_is_read_up_to_there() {
        let output = exported(&[("", "whole"), ("", "two\nlines")]);
        for end in 0..output.len() {
            for line in last_lines(&output[..end], "id") {
                assert!(
                    ["whole", "two", "lines"]
                        .iter()
                        .any(|whole| whole.starts_with(&line)),
                    "{line}"
                );
            }
        }
        assert_eq!(last_lines(&output, "id"), ["whole", "two", "lines"]);
        let mut endless = b"MESSAGE\n".to_vec();
        endless.extend_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(last_lines(&endless, "id"), [""; 0]);
    }

    #[tokio::test]
    async fn a_journal_without_end_is_read_up_to_a_bound() {
        let output = read_bounded(tokio::io::repeat(b'x')).await.unwrap();
        assert_eq!(output.len() as u64, MAX_JOURNAL_READ);
    }

    #[test]
    fn a_log_is_cut_to_its_last_lines_and_long_lines_are_cut() {
        let long = "é".repeat(400);
        let mut messages: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        messages.push(long);
        let entries: Vec<(&str, &str)> = messages.iter().map(|line| ("", line.as_str())).collect();
        let lines = last_lines(&exported(&entries), "id");
        assert_eq!(lines.len(), StateRecord::MAX_LOG_LINES);
        assert_eq!(lines[0], "21");
        assert_eq!(lines[9].len(), StateRecord::MAX_LOG_LINE_BYTES);
    }

    #[tokio::test]
    async fn journald_is_waited_for_until_it_answers_or_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journald");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let journald = async |answer: &'static [u8]| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; SYNCHRONIZE.len()];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, SYNCHRONIZE);
            stream.write_all(answer).await.unwrap();
        };
        let path = path.to_str().unwrap();
        let (answered, ()) = tokio::join!(synchronize(path), journald(b"{\"parameters\":{}}\0"));
        answered.unwrap();
        let (ended, ()) = tokio::join!(synchronize(path), journald(b"{"));
        ended.unwrap_err();
    }
}
