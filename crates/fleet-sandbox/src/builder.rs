//! Making a sandbox: what is asked is checked, then written down, then made.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::fleet::Fleet;
use crate::process::Process;
use crate::program::{DBUS, ETCD, IP, NSENTER, NSPAWN, SETSID};
use crate::record::{
    HostRecord, MemberRecord, Record, claim_for_use, list, load, lock, save, update,
};
use crate::sandbox::{each, host_name};
use crate::scope::Scope;
use crate::subnet::Subnet;
use crate::{Error, Result, Sandbox, etcd, limits, network, nspawn, sweep, tree};

/// Hosts of one sandbox. Fifty take about 750 MB; more would be a matter of patience only.
pub const HOSTS_MAX: usize = 50;
/// Members of etcd.
pub const ETCD_MAX: usize = 3;
/// Host names are the sandbox's name and a number, and name namespaces, units and sockets.
const NAME_MAX: usize = 40;
/// Where the trees are, unless the caller says otherwise: a disk, because /etc, /var and
/// etcd's data are meant to survive a power cut.
const DIRECTORY: &str = "/var/lib/fleet-sandbox";
/// What packages change of a computer besides /etc and the rest of /var.
const PACKAGES: [&str; 2] = ["/usr", "/var/lib/dpkg"];
/// What a sandbox shall be.
#[derive(Clone, Debug)]
pub struct Builder {
    name: Option<String>,
    hosts: usize,
    etcd: usize,
    metadata: Vec<(usize, String)>,
    machine_ids: Vec<(usize, String)>,
    bin_dir: Option<PathBuf>,
    fleet_conf: String,
    listen: Vec<String>,
    installs_packages: bool,
    directory: PathBuf,
}
impl Default for Builder {
    fn default() -> Builder {
        Builder {
            name: None,
            hosts: 1,
            etcd: 1,
            metadata: Vec::new(),
            machine_ids: Vec::new(),
            bin_dir: None,
            fleet_conf: String::new(),
            listen: Vec::new(),
            installs_packages: false,
            directory: DIRECTORY.into(),
        }
    }
}

impl Builder {
    /// Its name: letters, digits and dashes. Default: one that nobody else has.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// How many hosts, 1 to [`HOSTS_MAX`].
    #[must_use]
    pub fn hosts(mut self, n: usize) -> Builder {
        self.hosts = n;
        self
    }

    /// How many members of etcd, 0 to [`ETCD_MAX`]. None: fleetd uses its embedded store.
    #[must_use]
    pub fn etcd(mut self, n: usize) -> Builder {
        self.etcd = n;
        self
    }

    /// Metadata (`key=value`, or several with commas) of host `index`, from 0.
    #[must_use]
    pub fn metadata(mut self, index: usize, metadata: impl Into<String>) -> Builder {
        self.metadata.push((index, metadata.into()));
        self
    }

    /// Machine id of host `index`, from 0. Default: follows from the host's name.
    #[must_use]
    pub fn machine_id(mut self, index: usize, id: impl Into<String>) -> Builder {
        self.machine_ids.push((index, id.into()));
        self
    }

    /// Where fleetd and fleetctl were built. Without it hosts boot without fleet.
    #[must_use]
    pub fn bin_dir(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.bin_dir = Some(directory.into());
        self
    }

    /// Lines to add to every host's fleet.conf.
    #[must_use]
    pub fn fleet_conf(mut self, lines: impl AsRef<str>) -> Builder {
        self.fleet_conf.push_str(lines.as_ref().trim_end());
        self.fleet_conf.push('\n');
        self
    }

    /// A further address of fleet.socket, as ListenStream= takes it (`49153`, `127.0.0.1:49153`).
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Builder {
        self.listen.push(address.into());
        self
    }

    /// Hosts where `dpkg` and `make install` work: they see the computer's /usr and dpkg's
    /// database, and what they change there is theirs alone and outlives a power cut.
    #[must_use]
    pub fn installs_packages(mut self) -> Builder {
        self.installs_packages = true;
        self
    }

    /// Directory for the trees of this sandbox and others; each makes one of its name below.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.directory = directory.into();
        self
    }

    /// Makes it: returns when every host has reached basic.target and answers on D-Bus, and
    /// etcd is healthy. fleetd is started by the hosts' own boot; see `wait_for_fleetd`.
    /// Before that, takes down sandboxes whose owner is dead.
    ///
    /// # Errors
    /// What is missing or wrong; everything that was made until then is taken down.
    pub fn up(self) -> Result<Sandbox> {
        self.check()?;
        // Another sandbox that cannot be removed is no reason against this one: its subnet and
        // names stay taken, and its own `down` says what is the matter.
        let _ = sweep();
        let record = self.reserve()?;
        // From here on dropping it takes down what there is.
        let sandbox = Sandbox::own(&record);
        let claim = claim_for_use(&record.name)?;
        self.make(&record)?;
        update(&record.name, |record| record.up = true)?;
        drop(claim);
        Ok(sandbox)
    }

    fn make(&self, record: &Record) -> Result<()> {
        tree::make_directory(&record.directory)?;
        let fleet = match &self.bin_dir {
            Some(from) => {
                let mut fleet = Fleet::gather(from, &record.directory)?;
                fleet.extra.clone_from(&self.fleet_conf);
                fleet.listen.clone_from(&self.listen);
                Some(fleet)
            }
            None => None,
        };
        network::make_bridge(record)?;
        // etcd elects while the hosts boot; fleetd waits for it as it would anywhere.
        record.etcd.iter().try_for_each(|member| {
            network::plug(record, member)?;
            etcd::start(record, member)
        })?;
        each(&record.hosts, |host| {
            tree::make(record, host)?;
            fleet
                .iter()
                .try_for_each(|fleet| fleet.install(record, host))?;
            nspawn::power_on(record, host)
        })?;
        record.etcd.iter().try_for_each(etcd::await_health)
    }

    /// Writes down everything that will be made.
    fn reserve(&self) -> Result<Record> {
        let name = self.name.clone().unwrap_or_else(unique_name);
        let lock = lock()?;
        match load(&name) {
            Ok(record) => {
                return Err(Error::NameInUse {
                    name,
                    state: record.state().to_owned(),
                });
            }
            Err(Error::NoSuchSandbox { .. }) => {}
            Err(e) => return Err(e),
        }
        let taken: Vec<Subnet> = list()?.iter().map(|r| r.subnet).collect();
        let directory = self.directory.join(&name);
        if directory.exists() {
            // Without a record nothing of it runs: it is from before the computer's last boot.
            std::fs::remove_dir_all(&directory).map_err(|e| Error::File {
                what: "remove the leftover",
                path: directory.clone(),
                source: e,
            })?;
        }
        let mut record = Record::new(&name, directory, Subnet::pick(&taken)?);
        record.hosts = (0u8..)
            .take(self.hosts)
            .map(|index| self.plan_host(&record, index))
            .collect();
        record.etcd = (0u8..)
            .take(self.etcd)
            .map(|index| plan_member(&record, index))
            .collect();
        save(&record, &lock)?;
        limits::raise(&lock)?;
        Ok(record)
    }

    fn plan_host(&self, record: &Record, index: u8) -> HostRecord {
        let at = usize::from(index);
        let name = host_name(&record.name, at);
        let machine_id = self
            .machine_ids
            .iter()
            .rev()
            .find(|(i, _)| *i == at)
            .map(|(_, id)| id.clone());
        HostRecord {
            machine_id: machine_id.unwrap_or_else(|| machine_id_of(&name)),
            address: record.subnet.host(index),
            mac: record.subnet.mac(index + 1),
            cable: record.subnet.cable(index),
            netns: format!("fleet-sandbox-{name}"),
            root: record.directory.join(&name),
            console: record.directory.join(format!("{name}.console")),
            metadata: self
                .metadata
                .iter()
                .filter(|(i, _)| *i == at)
                .map(|(_, m)| m.clone())
                .collect(),
            overlays: match self.installs_packages {
                true => PACKAGES.map(PathBuf::from).to_vec(),
                false => Vec::new(),
            },
            changes: record.directory.join(format!("{name}.changes")),
            scope: Scope::plan(&record.name, &name),
            cut: false,
            loss: None,
            leader: None,
            name,
        }
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::Invalid(why));
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if !(1..=HOSTS_MAX).contains(&self.hosts) {
            return refuse(format!(
                "{} hosts: a sandbox has 1 to {HOSTS_MAX}",
                self.hosts
            ));
        }
        if self.etcd > ETCD_MAX {
            return refuse(format!(
                "{} members of etcd: a sandbox has 0 to {ETCD_MAX}",
                self.etcd
            ));
        }
        if self.bin_dir.is_some()
            && self.etcd == 0
            && self.hosts > 1
            && !self.fleet_conf.contains("etcd_servers")
        {
            return refuse(format!(
                "{} hosts need etcd to be one cluster: give --etcd 1, or --no-fleetd",
                self.hosts
            ));
        }
        for (index, metadata) in &self.metadata {
            if *index >= self.hosts {
                return refuse(format!("metadata for host {} of {}", index + 1, self.hosts));
            }
            if metadata.contains(['"', '\n']) || !metadata.split(',').all(|item| item.contains('='))
            {
                return refuse(format!(
                    "metadata {metadata:?} is not key=value, or key=value,key=value"
                ));
            }
        }
        for (index, id) in &self.machine_ids {
            let hex = id.len() == 32
                && id
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if *index >= self.hosts || !hex {
                return refuse(format!(
                    "machine id {id:?} of host {}: 32 hexadecimal digits in lower case",
                    index + 1
                ));
            }
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        for program in [IP, NSPAWN, NSENTER, SETSID, DBUS] {
            program.path()?;
        }
        if self.etcd > 0 {
            ETCD.path().map(|_| ())
        } else {
            Ok(())
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= NAME_MAX
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "the name {name:?} cannot be part of a hostname: use up to {NAME_MAX} lower-case letters, digits and dashes"
    )))
}

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // The start time, because a process number comes again.
    let own = Process::own().unwrap_or(Process { pid: 0, start: 0 });
    format!(
        "t{}-{}-{}",
        own.pid,
        own.start,
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn plan_member(record: &Record, index: u8) -> MemberRecord {
    let name = format!("{}-etcd{}", record.name, index + 1);
    MemberRecord {
        address: record.subnet.member(index),
        mac: record.subnet.member_mac(index),
        cable: record.subnet.member_cable(index),
        netns: format!("fleet-sandbox-{name}"),
        cut: false,
        loss: None,
        data: record.directory.join(&name),
        log: record.directory.join(format!("{name}.log")),
        scope: Scope::plan(&record.name, &name),
        name,
    }
}

/// A machine id that follows from the host's name: FNV-1a of 128 bits, then mixed, so that
/// the first digits (which people see) of neighbours differ.
fn machine_id_of(host: &str) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in host.bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    for _ in 0..2 {
        hash = (hash ^ (hash >> 67)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    }
    format!("{:032x}", hash ^ (hash >> 65))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: Builder) -> String {
        builder.check().unwrap_err().to_string()
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_cure() {
        let new = Sandbox::builder;
        assert_eq!(refused(new().hosts(51)), "51 hosts: a sandbox has 1 to 50");
        assert_eq!(
            refused(new().etcd(4)),
            "4 members of etcd: a sandbox has 0 to 3"
        );
        assert!(refused(new().name("Demo_1")).contains("lower-case letters, digits and dashes"));
        assert!(refused(new().metadata(1, "a=b")).contains("metadata for host 2 of 1"));
        assert!(refused(new().metadata(0, "region")).contains("is not key=value"));
        assert!(refused(new().machine_id(0, "XYZ")).contains("32 hexadecimal digits"));
        assert!(refused(new().hosts(2).etcd(0).bin_dir("/x")).contains("need etcd"));
    }

    #[test]
    fn machine_ids_are_stable_and_differ_from_their_first_digits() {
        assert_eq!(machine_id_of("demo-1"), machine_id_of("demo-1"));
        let (a, b) = (machine_id_of("demo-1"), machine_id_of("demo-2"));
        assert_eq!((a.len(), b.len()), (32, 32));
        assert_ne!(a[..4], b[..4]);
    }
}
