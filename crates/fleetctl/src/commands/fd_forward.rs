//! `fleetctl fd-forward`: the far side of `--tunnel`.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::commands::Outcome;
use crate::error::CommandError;
use crate::exit::Exit;

/// Connect stdin and stdout to a unix socket
///
/// The far side of --tunnel, not for people. It ends when either side does.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The socket
    #[arg(value_name = "SOCKET")]
    sockets: Vec<String>,
}

/// Enough for a page of units in a few reads.
const CHUNK_BYTES: usize = 64 << 10;

/// Our input has ended, and the socket still has an answer to give: it is given up when it has
/// said nothing for so long. The other end has mostly gone away.
const SILENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(args: Args) -> Outcome {
    let [socket] = args.sockets.as_slice() else {
        return Err(CommandError::new("Provide a single argument"));
    };
    let socket = socket.strip_prefix("unix://").unwrap_or(socket);
    let stream = UnixStream::connect(socket).map_err(|error| {
        CommandError::new(format!(
            "Failed dialing remote address: dial unix {socket}: connect: {}",
            go_words(&error)
        ))
    })?;
    let to_socket = stream.try_clone().map_err(|error| {
        CommandError::new(format!("failed to use the socket {socket} twice: {error}"))
    })?;
    forward(io::stdin(), to_socket, stream, io::stdout());
    Ok(Exit::Success)
}

/// Returns when the socket has ended, our output's reader has gone, or our input has ended and
/// the socket is silent. The thread that reads our input ends with the process.
fn forward(
    input: impl Read + Send + 'static,
    to_socket: UnixStream,
    mut from_socket: UnixStream,
    mut output: impl Write,
) {
    let (tell, heard) = sync_channel(1);
    std::thread::spawn(move || feed(input, &to_socket, &heard));
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from_socket.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(n) => {
                let written = output.write_all(&chunk[..n]);
                if written.and_then(|()| output.flush()).is_err() {
                    return;
                }
                nudge(&tell);
            }
        }
    }
}

/// The socket is alive; once is enough.
fn nudge(tell: &SyncSender<()>) {
    let _ = tell.try_send(());
}

fn feed(mut input: impl Read, mut socket: &UnixStream, heard: &Receiver<()>) {
    let _ = io::copy(&mut input, &mut socket);
    let _ = socket.shutdown(Shutdown::Write);
    while heard.recv_timeout(SILENCE).is_ok() {}
    let _ = socket.shutdown(Shutdown::Both);
}

/// An error's reason without `(os error 2)`, in lower case, as Go writes it.
fn go_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_though_the_input_has_ended() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let answering = std::thread::spawn(move || {
            let mut question = String::new();
            far.read_to_string(&mut question).unwrap();
            far.write_all(question.to_uppercase().as_bytes()).unwrap();
        });
        let mut output = Vec::new();
        forward(&b"ping"[..], near.try_clone().unwrap(), near, &mut output);
        answering.join().unwrap();
        assert_eq!(output, b"PING");
    }

    #[test]
    fn it_ends_with_the_socket_though_there_is_more_input() {
        let (mut far, near) = UnixStream::pair().unwrap();
        far.write_all(b"bye").unwrap();
        drop(far);
        let (input, _open) = UnixStream::pair().unwrap();
        let mut output = Vec::new();
        forward(input, near.try_clone().unwrap(), near, &mut output);
        assert_eq!(output, b"bye");
    }

    #[test]
    fn what_cannot_be_done() {
        let run = |sockets: &[&str]| {
            let sockets = sockets.iter().map(|text| (*text).to_owned()).collect();
            run(Args { sockets }).unwrap_err().message
        };
        assert_eq!(run(&[]), "Provide a single argument");
        assert_eq!(run(&["a", "b"]), "Provide a single argument");
        assert_eq!(
            run(&["/nope"]),
            "Failed dialing remote address: dial unix /nope: connect: no such file or directory"
        );
    }
}
