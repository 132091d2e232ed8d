//! SIGHUP: what a running fleetd takes of a changed configuration.
//!
//! Each part holds its own piece of the configuration as a `watch::Receiver`, or as an atomic
//! where it only looks at it now and then, and does what follows from a change itself. Nothing is
//! built anew: sockets, connections, leases, the leader's model and the units are never touched.
//! Keys that are built into something (paths, the store, the sockets) stay as they are until a
//! restart, and that is said. A configuration that cannot be used changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use fleet_core::records::MachineId;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::access::{self, Access, Policy, Trust};
use crate::agent::AgentConfig;
use crate::config::Config;
use crate::config::keys::{KEYS, Key, Reload};
use crate::config::load::Loaded;
use crate::engine::EngineConfig;
use crate::logging::Verbosity;
use crate::pki::{self, Pki};
use crate::store::etcd::{EtcdConfig, EtcdStore};

/// Waits for a change of a piece of the configuration; for ever when nobody can change it any
/// more. What there is now has been seen when it was borrowed last.
pub(crate) async fn changed<T>(piece: &mut watch::Receiver<T>) {
    if piece.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Where each piece of the configuration is given to its part.
pub struct Controls {
    pub(crate) machine: MachineId,
    pub(crate) agent: watch::Sender<AgentConfig>,
    pub(crate) engine: watch::Sender<EngineConfig>,
    pub(crate) token_limit: Arc<AtomicU16>,
    pub(crate) insecure: Arc<AtomicBool>,
    /// Who may do what.
    pub(crate) access: Access,
    /// Where other machines reach the API: its sockets stay as they are.
    pub(crate) api: String,
    /// Which unit files are taken.
    pub(crate) trust: watch::Sender<Arc<Trust>>,
    /// What the API is served over TLS with. Its files are read at each reload.
    pub(crate) pki: Arc<Pki>,
    /// What the parts have now.
    pub(crate) current: Config,
    /// Whose connections can be exchanged.
    pub(crate) etcd: Option<Arc<EtcdStore>>,
    pub(crate) verbosity: Option<Verbosity>,
}

impl Controls {
    /// What the parts have now.
    pub fn current(&self) -> &Config {
        &self.current
    }

    /// Gives the parts what has changed, and returns the keys whose change needs a restart.
    ///
    /// # Errors
    /// What of it cannot be used; then everything stays as it was.
    pub fn apply(&mut self, loaded: &Loaded) -> Result<Vec<&'static str>, String> {
        for unsupported in &loaded.unsupported {
            error!("{unsupported}");
        }
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let mut config = loaded.config.clone();
        let mut later = Vec::new();
        for key in KEYS {
            let stays = key.reload == Reload::Restart || self.decides_the_store(key, &config);
            if stays && (key.show)(&config) != (key.show)(&self.current) {
                later.push((key, key.shown(&config)));
                keep(key, &self.current, &mut config);
            }
        }
        let (policy, trust) = (policy(&config)?, trust(&config)?);
        let tls = self.pki.read(&pki::Files::from_config(&config));
        let tls = tls.map_err(|error| error.to_string())?;
        self.reconnect(&config)?;
        self.pki.take(tls);
        self.access.set(policy);
        self.set_trust(trust);
        for (key, wanted) in &later {
            let key_name = key.name;
            warn!(
                key = key_name,
                in_force = key.shown(&self.current),
                wanted,
                "{key_name} cannot change while fleetd runs: it stays as it is until fleetd is \
                 restarted (systemctl restart fleet), which touches no unit"
            );
        }
        for key in KEYS {
            let (from, to) = (key.shown(&self.current), key.shown(&config));
            if (key.show)(&config) != (key.show)(&self.current) {
                info!(key = key.name, from, to, "{} has changed", key.name);
            }
        }
        if let Some(verbosity) = &self.verbosity {
            verbosity.set(config.verbosity);
        }
        self.insecure.store(config.api_insecure, Ordering::Relaxed);
        self.token_limit
            .store(config.token_limit.max(1), Ordering::Relaxed);
        // Always: it looks at the machine's address anew.
        let agent = AgentConfig::from_config(&config, self.machine.clone());
        self.agent.send_replace(agent.served_at(&self.api));
        let engine = EngineConfig::from_config(&config, self.machine.clone());
        self.engine.send_if_modified(|current| {
            let changed = *current != engine;
            *current = engine;
            changed
        });
        self.current = config;
        Ok(later.iter().map(|(key, _)| key.name).collect())
    }

    /// Reads who may do what, before anything is served. What cannot be read allows nobody but root
    /// anything.
    pub(crate) fn read_policy(&self) {
        match policy(&self.current) {
            Ok(policy) => self.access.set(policy),
            Err(problem) => {
                error!(
                    problem,
                    "nobody but root may do anything until this is mended and read again \
                     (systemctl reload fleet): {problem}"
                );
                self.access.set(Policy::closed(access::load::myself()));
            }
        }
        self.set_trust(trust(&self.current).unwrap_or_else(|problem| {
            error!(
                problem,
                "no unit is written or started until this is mended and read again (systemctl \
                 reload fleet): {problem}"
            );
            Trust::only(Vec::new())
        }));
    }

    /// What was refused by other keys is looked at again.
    fn set_trust(&self, trust: Trust) {
        self.trust.send_if_modified(|current| {
            let changed = **current != trust;
            *current = Arc::new(trust);
            changed
        });
    }

    /// Whether a change of servers would be a change of the store: from none to some, or back.
    fn decides_the_store(&self, key: &Key, config: &Config) -> bool {
        key.name == "etcd_servers" && (self.etcd.is_none() || config.etcd_servers.is_empty())
    }

    /// Exchanges the connections to etcd, when something about them is new. The contents of TLS
    /// files may be, under the same name.
    fn reconnect(&self, config: &Config) -> Result<(), String> {
        let Some(etcd) = &self.etcd else {
            return Ok(());
        };
        let (old, new) = (
            EtcdConfig::from_config(&self.current),
            EtcdConfig::from_config(config),
        );
        if old == new && !new.tls.any() {
            return Ok(());
        }
        etcd.reconfigure(new).map_err(|error| error.to_string())
    }
}

/// Whether the files that a configuration names can be used.
///
/// # Errors
/// What is wrong with them.
pub fn check(config: &Config) -> Result<(), String> {
    policy(config)?;
    trust(config)?;
    Ok(())
}

/// Reads which unit files are taken.
fn trust(config: &Config) -> Result<Trust, String> {
    let directory = &config.trusted_keys;
    let required = config.require_signed_units;
    let trust = access::trust::load(required, directory, access::load::myself());
    let trust = trust.map_err(|problem| problem.to_string())?;
    match trust.n_keys() {
        Some(0) => warn!(
            "require_signed_units is set and there is no key in {}: no unit is written or started",
            directory.display()
        ),
        Some(keys) => info!(
            keys,
            "only units that are signed by a trusted key are taken"
        ),
        None => {}
    }
    Ok(trust)
}

/// Reads who may do what.
fn policy(config: &Config) -> Result<Policy, String> {
    let directory = &config.access_directory;
    let accounts = access::load::Accounts::of_this_machine();
    let loaded = access::load::load(directory, access::load::myself(), &accounts);
    let loaded = loaded.map_err(|problem| problem.to_string())?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    if !loaded.policy.is_open() {
        let (roles, grants) = loaded.policy.counts();
        info!(
            roles,
            grants,
            "who may do what was read from {}",
            directory.display()
        );
    }
    Ok(loaded.policy)
}

/// Takes the value of a key from one configuration into another.
fn keep(key: &Key, from: &Config, to: &mut Config) {
    // What is shown can be read: a test says so of every key.
    let _ = (key.apply)(to, &(key.show)(from));
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::*;
    use crate::config::load;

    const MACHINE: &str = "148a18ff6e954cd892dac9de9bb90d5a";

    fn loaded(text: &str) -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.conf");
        std::fs::write(&path, text).unwrap();
        let flag = format!("-config={}", path.display());
        load::load(["fleetd".to_owned(), flag].map(OsString::from), []).unwrap()
    }

    fn controls(text: &str) -> Controls {
        let config = loaded(text).config;
        let machine = MachineId::new(MACHINE);
        let etcd = (!config.etcd_servers.is_empty())
            .then(|| EtcdStore::new(EtcdConfig::from_config(&config)).unwrap());
        Controls {
            agent: watch::Sender::new(AgentConfig::from_config(&config, machine.clone())),
            engine: watch::Sender::new(EngineConfig::from_config(&config, machine.clone())),
            machine,
            token_limit: Arc::new(AtomicU16::new(config.token_limit)),
            insecure: Arc::new(AtomicBool::new(config.api_insecure)),
            access: Access::default(),
            api: ":49153".to_owned(),
            trust: watch::Sender::default(),
            pki: Pki::off(),
            current: config,
            etcd,
            verbosity: None,
        }
    }

    #[test]
    fn each_part_gets_what_has_changed() {
        let mut controls = controls("metadata=a=b\npublic_ip=10.0.0.1\ntoken_limit=7\n");
        let (mut agent, mut engine) = (controls.agent.subscribe(), controls.engine.subscribe());
        let mut apply = |text: &str| controls.apply(&loaded(text)).unwrap();
        // Nothing new.
        assert!(apply("metadata=a=b\npublic_ip=10.0.0.1\ntoken_limit=7\n").is_empty());
        assert!(
            !engine.has_changed().unwrap(),
            "the engine is not woken for nothing"
        );
        assert!(
            agent.has_changed().unwrap(),
            "the address is looked at anew"
        );

        apply(
            "metadata=c=d\npublic_ip=10.0.0.2\nagent_ttl=30s\ntoken_limit=9\napi_insecure=true\n",
        );
        // Leases that are renewed less often end further apart.
        let piece = engine.borrow_and_update().clone();
        assert_eq!(piece.spread, Duration::from_millis(5_500));
        let piece = agent.borrow_and_update().clone();
        assert_eq!(piece.ttl, Duration::from_secs(30));
        assert_eq!(piece.record.public_ip, "10.0.0.2");
        assert_eq!(piece.record.metadata["c"], "d");
        assert_eq!(piece.record.metadata.len(), 1);

        // A key that was removed falls back to its default.
        apply("lost_after=1h\nengine_reconcile_interval=2\ndisable_engine=true\n");
        let piece = agent.borrow_and_update().clone();
        assert_eq!(piece.ttl, Duration::from_secs(3));
        assert_eq!(piece.record.public_ip, "");
        assert!(piece.record.metadata.is_empty() && piece.record.disable_engine);
        let piece = engine.borrow_and_update().clone();
        assert_eq!(piece.lost_after, Duration::from_secs(3_600));
        assert_eq!(piece.safety_tick, Some(Duration::from_secs(2)));
        assert!(!piece.enabled);
        apply("disable_safety_ticks=true\napi_insecure=true\ntoken_limit=8\n");
        let piece = engine.borrow_and_update().clone();
        assert_eq!((piece.safety_tick, piece.enabled), (None, true));
        assert!(controls.insecure.load(Ordering::Relaxed));
        assert_eq!(controls.token_limit.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn what_is_built_in_stays_until_a_restart_and_is_named() {
        let before = controls("etcd_servers=http://127.0.0.1:1\n").current;
        let mut controls = controls("etcd_servers=http://127.0.0.1:1\n");
        let changed = "etcd_servers=http://127.0.0.1:1\nunits_directory=/u\nrun_directory=/r\n\
            state_directory=/s\nstore=etcd\netcd_key_prefix=/p/\napi_socket=/x\n\
            api_listen=127.0.0.1:1\n";
        assert_eq!(
            controls.apply(&loaded(changed)).unwrap(),
            [
                "store",
                "etcd_key_prefix",
                "units_directory",
                "run_directory",
                "state_directory",
                "api_socket",
                "api_listen"
            ]
        );
        assert_eq!(controls.current, before);
        // It is said again as long as it is so, and no more when it is not.
        assert_eq!(controls.apply(&loaded(changed)).unwrap().len(), 7);
        let back = "etcd_servers=http://127.0.0.1:1\nagent_ttl=5s\n";
        assert!(controls.apply(&loaded(back)).unwrap().is_empty());
        // A user's daemon is another one altogether.
        let mut user = loaded(back);
        user.config.systemd_user = true;
        assert_eq!(controls.apply(&user).unwrap(), ["systemd_user"]);
        assert!(!controls.current.systemd_user);
    }

    #[test]
    fn other_servers_are_taken_but_never_another_store() {
        let mut controls = controls("etcd_servers=http://127.0.0.1:1\nmetadata=a=b\n");
        let describe = |controls: &Controls| {
            use crate::store::Store;
            controls.etcd.as_ref().unwrap().describe()
        };
        let other = "etcd_servers=http://127.0.0.2:2,http://127.0.0.3:3\netcd_request_timeout=5\n";
        assert!(controls.apply(&loaded(other)).unwrap().is_empty());
        assert_eq!(
            describe(&controls),
            "etcd http://127.0.0.2:2, http://127.0.0.3:3"
        );
        // Without servers a restart would mean the embedded store.
        assert_eq!(controls.apply(&loaded("")).unwrap(), ["etcd_servers"]);
        assert_eq!(controls.current.etcd_servers.len(), 2);
        // What cannot be used changes nothing at all.
        let bad = "etcd_servers=https://127.0.0.2:2\netcd_cafile=/nonexist\nmetadata=c=d\n";
        let problem = controls.apply(&loaded(bad)).unwrap_err();
        assert!(problem.contains("/nonexist"), "{problem}");
        assert!(controls.current.metadata.is_empty());
        assert!(controls.agent.borrow().record.metadata.is_empty());
        assert_eq!(
            describe(&controls),
            "etcd http://127.0.0.2:2, http://127.0.0.3:3"
        );
    }

    #[test]
    fn a_policy_is_taken_over_and_one_that_makes_no_sense_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("access_directory={}\n", dir.path().display());
        let write = |text: &str| std::fs::write(dir.path().join("a.conf"), text).unwrap();
        let mut controls = controls(&text);
        controls.read_policy();
        assert!(controls.access.policy().is_open());

        write("[Grant viewer]\nTo=uid:1000\n");
        controls.apply(&loaded(&text)).unwrap();
        assert_eq!(controls.access.policy().counts(), (0, 1));

        write("[Grant pilot]\nTo=uid:1000\n");
        let more = format!("{text}metadata=a=b\n");
        let problem = controls.apply(&loaded(&more)).unwrap_err();
        assert!(problem.contains("[Grant pilot] names no role"), "{problem}");
        assert_eq!(controls.access.policy().counts(), (0, 1));
        assert!(controls.current.metadata.is_empty());
        // So it is with keys.
        write("[Grant viewer]\nTo=uid:1000\n");
        let keys = format!(
            "{text}require_signed_units=true\ntrusted_keys={}\n",
            dir.path().display()
        );
        controls.apply(&loaded(&keys)).unwrap();
        assert_eq!(controls.trust.borrow().n_keys(), Some(0));
        std::fs::write(dir.path().join("x.pub"), "nonsense\n").unwrap();
        assert!(
            controls
                .apply(&loaded(&keys))
                .unwrap_err()
                .contains("x.pub")
        );
        controls.apply(&loaded(&text)).unwrap();
        assert_eq!(controls.trust.borrow().n_keys(), None);
        write("[Grant pilot]\nTo=uid:1000\n");
        // A fleetd that starts with it has nothing to go on with.
        controls.read_policy();
        let policy = controls.access.policy();
        assert_eq!((policy.is_open(), policy.counts()), (false, (0, 0)));
    }

    #[test]
    fn a_machine_with_its_own_store_does_not_join_a_cluster_by_a_reload() {
        let mut controls = controls("");
        let joined = loaded("etcd_servers=http://127.0.0.1:1\n");
        assert_eq!(controls.apply(&joined).unwrap(), ["etcd_servers"]);
        assert!(controls.current.etcd_servers.is_empty());
    }
}
