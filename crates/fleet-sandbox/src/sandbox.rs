//! A sandbox that is up; taken down when dropped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::etcd::Member;
use crate::record::{Record, claim_for_use, load, update};
use crate::{Builder, Error, Host, Result, down, etcd};

/// Real systemd machines, a bridge and etcd. Dropping it takes all of it down.
#[derive(Debug)]
pub struct Sandbox {
    name: String,
    hosts: usize,
    etcd: usize,
    keep: bool,
}

impl Sandbox {
    /// One host, one member of etcd, no fleetd, until told otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn own(record: &Record) -> Sandbox {
        Sandbox {
            name: record.name.clone(),
            hosts: record.hosts.len(),
            etcd: record.etcd.len(),
            keep: false,
        }
    }

    /// A sandbox that is up already; dropping this handle leaves it alone.
    ///
    /// # Errors
    /// [`Error::NoSuchSandbox`].
    pub fn open(name: &str) -> Result<Sandbox> {
        let mut sandbox = Sandbox::own(&load(name)?);
        sandbox.keep = true;
        Ok(sandbox)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is recorded of it.
    ///
    /// # Errors
    /// When it was taken down.
    pub fn record(&self) -> Result<Record> {
        load(&self.name)
    }

    /// Host `index`, from 0; its name is NAME-(index + 1).
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn host(&self, index: usize) -> Host {
        assert!(
            index < self.hosts,
            "sandbox {} has {} hosts: there is no host({index})",
            self.name,
            self.hosts
        );
        Host::new(&self.name, &host_name(&self.name, index))
    }

    /// All hosts, in order.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        (0..self.hosts).map(|index| self.host(index)).collect()
    }

    /// etcd's member `index`, from 0.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn etcd(&self, index: usize) -> Member {
        assert!(
            index < self.etcd,
            "sandbox {} has {} members of etcd: there is no etcd({index})",
            self.name,
            self.etcd
        );
        Member::new(&self.name, index)
    }

    /// etcd's client URLs.
    ///
    /// # Errors
    /// When it was taken down.
    pub fn etcd_servers(&self) -> Result<Vec<String>> {
        Ok(self.record()?.etcd_servers())
    }

    /// All members of etcd, in order.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        (0..self.etcd).map(|index| self.etcd(index)).collect()
    }

    /// Writes a snapshot of etcd to a file (`etcdctl snapshot save`): keys with their revisions,
    /// and leases.
    ///
    /// # Errors
    /// When no member answers.
    pub fn save_etcd(&self, file: &Path) -> Result<()> {
        etcd::save_snapshot(&self.record()?, file)
    }

    /// Kills all members of etcd and starts them with what a snapshot has, as whoever restores a
    /// backup does; waits until they are healthy.
    ///
    /// # Errors
    /// When the snapshot cannot be restored, or a member does not become healthy.
    pub fn restore_etcd(&self, file: &Path) -> Result<()> {
        let claim = claim_for_use(&self.name)?;
        etcd::restore_snapshot(&claim.record, file)
    }

    /// Waits until a command succeeds on every host.
    ///
    /// # Errors
    /// [`Error::Timeout`] with what the command said last.
    pub fn wait_ready(&self, bound: Duration, argv: &[&str]) -> Result<()> {
        each(&self.hosts(), |host| {
            host.wait_until(bound, argv).map(|_| ())
        })
    }

    /// Waits until fleetd has said that it is ready, on every host.
    ///
    /// # Errors
    /// With the end of fleetd's journal of the host where it is not.
    pub fn wait_for_fleetd(&self, bound: Duration) -> Result<()> {
        each(&self.hosts(), |host| {
            host.wait_until(bound, &["systemctl", "is-active", "fleet.service"])
                .map(|_| ())
                .map_err(|e| {
                    let journal = host
                        .journal(&["--unit=fleet.service", "--lines=20", "--output=cat"])
                        .unwrap_or_default();
                    Error::Invalid(format!(
                        "{e}\nend of fleetd's journal on {}:\n{journal}",
                        host.name()
                    ))
                })
        })
    }

    /// Gives it up: it stays until `down`.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub fn keep(mut self) -> Result<()> {
        self.keep = true;
        update(&self.name, |record| record.owner = None).map(|_| ())
    }

    /// Takes it down and says what went wrong, as dropping cannot.
    ///
    /// # Errors
    /// [`Error::Left`].
    pub fn down(mut self) -> Result<()> {
        self.keep = true;
        down(&self.name)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = down(&self.name)
        {
            #[expect(
                clippy::print_stderr,
                reason = "a drop cannot return it, and whoever reads the test must know"
            )]
            {
                eprintln!("failed to take sandbox {} down: {e}", self.name);
            }
        }
    }
}

pub(crate) fn host_name(sandbox: &str, index: usize) -> String {
    format!("{sandbox}-{}", index + 1)
}

/// Does something for each of many at once; the first error wins.
pub(crate) fn each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(|| work(item)))
            .collect();
        // All of them end before anybody cleans up.
        let results: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::Invalid("a thread panicked".into())))
            })
            .collect();
        results.into_iter().collect()
    })
}

/// The directory that cargo put this test or program's neighbours into: `target/debug`.
/// For tests: `Sandbox::builder().bin_dir(built_beside(&std::env::current_exe()?))`.
#[must_use]
pub fn built_beside(program: &Path) -> PathBuf {
    let directory = program.parent().unwrap_or(program);
    if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory)
    } else {
        directory
    }
    .to_owned()
}
