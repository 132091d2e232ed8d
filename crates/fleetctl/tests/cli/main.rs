//! Terminal sessions with the real binary, one file for each command.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accept_store;
mod cat;
mod command_line;
mod completions;
mod cordon;
mod destroy;
mod doctor;
mod drain;
mod engine;
mod events;
mod failures;
mod fake;
mod fd_forward;
mod fleetd;
mod help;
mod import;
mod journal;
mod keygen;
mod list_machines;
mod list_unit_files;
mod list_units;
mod load;
mod original;
mod registry;
mod restart;
mod session;
mod sign;
mod ssh;
mod stage;
mod start;
mod status;
mod stop;
mod submit;
mod terminal;
mod thaw;
mod tls;
mod transcripts;
mod uncordon;
mod unload;
mod verify;
mod version;
mod why;
