//! fleetctl: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleetctl::run(std::env::args_os(), &|name| std::env::var(name).ok()).into()
}
