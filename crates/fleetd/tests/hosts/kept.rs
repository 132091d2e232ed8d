//! What was acknowledged is kept, and nothing counts twice.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fleet_sandbox::{Host, Sandbox, wait_for};

use crate::cluster::{Cluster, FAILOVER, SOON, sleeper, told};

/// A person who asks for one thing after the other, each until there is an answer: to restart a
/// unit, to create one, and to destroy every second one again. Goes on behind what was answered.
const PERSON: &str = r#"
n=$(($(tail -n 1 /answered 2>/dev/null || echo 0) + 1))
while [ $n -le $1 ]; do
    last=$((n - 1))
    units="{\"name\":\"busy.service\",\"restart\":true}"
    units="$units,{\"name\":\"k-$n.service\",\"text\":\"[Service]\\nExecStart=/bin/true\\n\",\"desiredState\":\"inactive\"}"
    [ $((n % 2)) -eq 0 ] && units="$units,{\"name\":\"k-$last.service\",\"desiredState\":\"destroyed\"}"
    body="{\"requestId\":\"r$n\",\"units\":[$units]}"
    until answer=$(curl -s -f -m 10 --unix-socket /run/fleet.sock -X POST -d "$body" http://fleet/fleet/v2/units) \
        && case $answer in *'"outcome":"error"'*) false ;; esac
    do
        echo "$n $answer" >>/refused
        sleep 0.1
    done
    echo $n >>/answered
    sync /answered
    n=$((n + 1))
done
"#;

fn person(cluster: &Cluster, until: usize) -> Child {
    let host = cluster.host(0);
    host.write_file("/person.sh", PERSON).unwrap();
    host.command(&["sh", "/person.sh", &until.to_string()])
        .unwrap()
        .spawn()
        .unwrap()
}

/// It is restarted more often in a while than systemd allows by itself.
fn start_busy(cluster: &Cluster) {
    let text = sleeper("").replace("[Service]", "StartLimitIntervalSec=0\n\n[Service]");
    let path = cluster.file("busy.service", &text);
    cluster.ok(&["start", &path]);
}

fn n_answered(host: &Host) -> usize {
    let answered = host.read_file("/answered").unwrap_or_default();
    String::from_utf8(answered).unwrap().lines().count()
}

#[track_caller]
fn wait_for_answers(cluster: &Cluster, n: usize) {
    wait_for(&format!("{n} answers"), FAILOVER, || {
        let host = cluster.host(0);
        match n_answered(&host) {
            found if found >= n => Ok(()),
            found => {
                let refused = host.read_file("/refused").unwrap_or_default();
                let refused = String::from_utf8_lossy(&refused).into_owned();
                Err(format!("{found}; {:?}", refused.lines().last()))
            }
        }
    })
    .unwrap();
}

/// Everything that was asked for is there, once.
#[track_caller]
fn all_is_there(cluster: &Cluster, n_asked: usize) {
    cluster.wait_until_complete();
    let listed = cluster.ok(&["list-unit-files", "--no-legend", "--fields=unit"]);
    let mut listed: Vec<&str> = listed.lines().map(str::trim).collect();
    listed.sort_unstable();
    let mut expected: Vec<String> = (1..=n_asked)
        .filter(|n| n % 2 == 0 || *n == n_asked)
        .map(|n| format!("k-{n}.service"))
        .collect();
    expected.push("busy.service".to_owned());
    expected.sort_unstable();
    assert_eq!(listed, expected);
    let key = "/_coreos.com/fleet/units/busy.service";
    let wish = cluster
        .sandbox
        .etcd(0)
        .etcdctl(&["get", "--print-value-only", key])
        .unwrap();
    assert!(wish.contains(&format!("\"restarts\":{n_asked},")), "{wish}");
    cluster.wait_for_place("busy.service", FAILOVER);
}

#[track_caller]
fn ended_well(mut person: Child) {
    let status = person.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn what_was_acknowledged_outlives_kill_9_of_everything_and_a_power_cut_of_all() {
    const ASKED: usize = 60;
    let cluster = Cluster::up(2);
    let etcd = cluster.sandbox.etcd(0);
    start_busy(&cluster);
    let asking = person(&cluster, ASKED);
    for n in [8, 20] {
        wait_for_answers(&cluster, n);
        for host in cluster.sandbox.hosts() {
            let kill = [
                "systemctl",
                "kill",
                "--kill-whom=main",
                "-s",
                "KILL",
                "fleet.service",
            ];
            // It may be dead already, of etcd's end.
            host.exec(&kill).unwrap();
        }
        etcd.kill().unwrap();
        etcd.start().unwrap();
    }
    // Whoever lives while etcd is away acknowledges nothing.
    wait_for_answers(&cluster, 28);
    let n_refused = || {
        let refused = cluster.host(0).read_file("/refused").unwrap_or_default();
        refused.iter().filter(|byte| **byte == b'\n').count()
    };
    let before = n_refused();
    etcd.kill().unwrap();
    wait_for("a request to be refused", FAILOVER, || match n_refused() {
        n if n > before => Ok(()),
        n => Err(n),
    })
    .unwrap();
    etcd.start().unwrap();
    wait_for_answers(&cluster, 36);
    std::thread::scope(|scope| {
        for host in cluster.sandbox.hosts() {
            scope.spawn(move || host.kill().unwrap());
        }
        scope.spawn(|| etcd.kill().unwrap());
    });
    drop(asking);
    let n_before = n_answered(&cluster.host(0));
    assert!(n_before < ASKED, "it was cut short: {n_before}");
    etcd.start().unwrap();
    for host in cluster.sandbox.hosts() {
        host.boot().unwrap();
    }
    ended_well(person(&cluster, ASKED));
    all_is_there(&cluster, ASKED);
}

/// What each connection is answered before it ends; with none it is reset.
pub(crate) type Pose = Option<&'static [u8]>;

/// What a person's request has in it when it is written, and not when anything is read.
const WRITE: &[u8] = b"ExecStart=/bin/true";

/// What a way loses of a write. The connection is of no use any more then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    Answer,
    /// It never arrives.
    Write,
}

/// A way to etcd that passes everything on, or loses a write or its answer.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    /// What is there in the place of etcd, if anything is.
    pub(crate) poses: Arc<Mutex<Option<Pose>>>,
    /// Of the next write.
    loses_next: Arc<Mutex<Option<Loss>>>,
    n_lost: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
}

impl Way {
    /// Leads the fleetds of all hosts to etcd by this way.
    pub(crate) fn of(cluster: &Cluster) -> Way {
        let etcd = SocketAddr::from((cluster.sandbox.etcd(0).record().unwrap().address, 2379));
        let gateway = cluster.sandbox.record().unwrap().subnet.gateway();
        let way = Way::to(etcd, SocketAddr::from((gateway, 0)));
        for host in cluster.sandbox.hosts() {
            let conf = host.read_file("/etc/fleet/fleet.conf").unwrap();
            let conf = String::from_utf8(conf).unwrap();
            assert!(conf.contains(&etcd.to_string()), "{conf}");
            let conf = conf.replace(&etcd.to_string(), &way.address.to_string());
            host.write_file("/etc/fleet/fleet.conf", conf).unwrap();
            host.run(&["systemctl", "restart", "fleet.service"])
                .unwrap();
        }
        cluster.wait_until_complete();
        way
    }

    fn to(etcd: SocketAddr, from: SocketAddr) -> Way {
        let listener = TcpListener::bind(from).unwrap();
        let way = Way {
            address: listener.local_addr().unwrap(),
            poses: Arc::default(),
            loses_next: Arc::default(),
            n_lost: Arc::default(),
            ends: Arc::default(),
        };
        let (loses_next, n_lost) = (Arc::clone(&way.loses_next), Arc::clone(&way.n_lost));
        let (ends, poses) = (Arc::clone(&way.ends), Arc::clone(&way.poses));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let pose = *poses.lock().unwrap();
                if let (Ok(client), Some(pose)) = (&client, pose) {
                    let client = client.try_clone().unwrap();
                    std::thread::spawn(move || answer_as(client, pose));
                    continue;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(etcd)) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (loses_next, n_lost) = (Arc::clone(&loses_next), Arc::clone(&n_lost));
                let is_deaf = Arc::new(AtomicBool::new(false));
                let (hears_no_more, n_unsaid) = (Arc::clone(&is_deaf), Arc::clone(&n_lost));
                std::thread::spawn(move || {
                    let mut is_mute = false;
                    pass_on(from, to, |bytes| {
                        let is_write = bytes.windows(WRITE.len()).any(|word| word == WRITE);
                        if is_write && let Some(loss) = loses_next.lock().unwrap().take() {
                            hears_no_more.store(true, Ordering::SeqCst);
                            is_mute = loss == Loss::Write;
                        }
                        if is_mute {
                            n_unsaid.fetch_add(bytes.len(), Ordering::SeqCst);
                        }
                        !is_mute
                    });
                });
                std::thread::spawn(move || {
                    pass_on(server, client, |bytes| {
                        let is_lost = is_deaf.load(Ordering::SeqCst);
                        if is_lost {
                            n_lost.fetch_add(bytes.len(), Ordering::SeqCst);
                        }
                        !is_lost
                    });
                });
            }
        });
        way
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer_as(mut client: TcpStream, pose: Pose) {
    // Who says nothing is not waited for.
    let _ = client.set_read_timeout(Some(SOON));
    match pose {
        Some(answer) => {
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(answer);
        }
        // What was sent and is not read makes the end a reset.
        None => {
            let _ = client.peek(&mut [0; 1]);
        }
    }
}

/// Passes on what the look at it says, until one of the two ends.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8]) -> bool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut bytes) {
        if n == 0 || look(&bytes[..n]) && to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[test]
fn a_change_that_was_lost_on_the_way_or_whose_answer_was_counts_once() {
    const ROUNDS: usize = 8;
    const ASKED: usize = 4 * ROUNDS;
    let cluster = Cluster::up(1);
    let way = Way::of(&cluster);
    start_busy(&cluster);
    let asking = person(&cluster, ASKED);
    for round in 0..ROUNDS {
        wait_for_answers(&cluster, 3 * round + 1);
        let before = way.n_lost.load(Ordering::SeqCst);
        let loss = [Loss::Answer, Loss::Write][round % 2];
        *way.loses_next.lock().unwrap() = Some(loss);
        wait_for("something to be lost", FAILOVER, || {
            match way.n_lost.load(Ordering::SeqCst) > before {
                true => Ok(()),
                false => Err(format!("{before}")),
            }
        })
        .unwrap();
    }
    ended_well(asking);
    all_is_there(&cluster, ASKED);
}

/// A small disk below etcd's data; taken away before the sandbox is.
struct SmallDisk<'a> {
    cluster: &'a Cluster,
    at: PathBuf,
}

impl SmallDisk<'_> {
    fn below_etcd(cluster: &Cluster, megabytes: usize) -> SmallDisk<'_> {
        let etcd = cluster.sandbox.etcd(0);
        let at = etcd.record().unwrap().data;
        etcd.kill().unwrap();
        let before = PathBuf::from(format!("{}.before", at.display()));
        std::fs::rename(&at, &before).unwrap();
        std::fs::create_dir(&at).unwrap();
        let size = format!("size={megabytes}m");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&at));
        let disk = SmallDisk { cluster, at };
        run(Command::new("cp")
            .arg("-a")
            .arg(before.join("member"))
            .arg(&disk.at));
        etcd.start().unwrap();
        disk
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.sandbox.etcd(0).kill();
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {out:?}");
}

/// Writes a file until there is no room for a byte more.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).unwrap();
    for size in [1 << 20, 4096, 1] {
        let zeros = vec![0; size];
        while file.write_all(&zeros).is_ok() {}
    }
}

/// A unit with a long text, submitted; what fleetctl said.
fn submit_large(cluster: &Cluster, name: &str) -> fleet_sandbox::Output {
    // A line of a unit file has at most 2048 bytes.
    let line = format!("# {}\n", "x".repeat(2_000));
    let text = format!("{}{}", sleeper(""), line.repeat(100));
    let path = cluster.file(name, &text);
    cluster.fleetctl(&["submit", &path])
}

/// Most units of 200 kB that a full disk may still take: etcd has some room of its own.
const MAX_LARGE: usize = 400;

/// Submits until it is refused; the names that were taken, and what the refusal said.
fn submit_until_refused(cluster: &Cluster) -> (Vec<String>, String) {
    let mut taken = Vec::new();
    for n in 0..MAX_LARGE {
        let name = format!("large-{n:03}.service");
        let out = submit_large(cluster, &name);
        if !out.success() {
            return (taken, told(&out));
        }
        taken.push(name);
    }
    panic!("the disk is not full after {MAX_LARGE} units");
}

#[track_caller]
fn are_all_listed(cluster: &Cluster, names: &[String]) {
    let listed = cluster.ok(&["list-unit-files", "--no-legend", "--fields=unit"]);
    for name in names {
        assert!(
            listed.lines().any(|line| line.trim() == name),
            "{name} in\n{listed}"
        );
    }
}

#[track_caller]
fn wait_until_taken(cluster: &Cluster, name: &str) {
    wait_for(&format!("{name} to be taken"), FAILOVER, || {
        let out = submit_large(cluster, name);
        match out.success() {
            true => Ok(()),
            false => Err(told(&out)),
        }
    })
    .unwrap();
}

#[test]
fn without_room_etcd_takes_no_change_and_loses_none_and_units_run_on() {
    let cluster = Cluster::up(1);
    let etcd = cluster.sandbox.etcd(0);
    start_busy(&cluster);
    let before = cluster.invocations(&["busy.service"]);

    // Its quota: etcd says so, and how it ends.
    let status = etcd.post_json("/v3/maintenance/status", "{}").unwrap();
    let member = status["header"]["member_id"].as_str().unwrap();
    let alarm =
        format!("{{\"action\":\"ACTIVATE\",\"memberID\":\"{member}\",\"alarm\":\"NOSPACE\"}}");
    etcd.post_json("/v3/maintenance/alarm", &alarm).unwrap();
    let out = submit_large(&cluster, "refused.service");
    for word in ["out of space", "etcdctl alarm disarm", "etcdctl defrag"] {
        assert!(out.stderr.contains(word), "{}", told(&out));
    }
    assert_ne!(out.code, 0);
    let argv = [
        "curl",
        "-s",
        "-w",
        " %{http_code}",
        "--unix-socket",
        "/run/fleet.sock",
        "-X",
        "DELETE",
        "http://fleet/fleet/v1/units/busy.service",
    ];
    let said = cluster.host(0).run(&argv).unwrap();
    assert!(
        said.ends_with(" 507") && said.contains("alarm disarm"),
        "{said}"
    );
    assert_eq!(cluster.invocations(&["busy.service"]), before);
    etcd.etcdctl(&["alarm", "disarm"]).unwrap();
    wait_until_taken(&cluster, "disarmed.service");
    let listed = cluster.ok(&["list-unit-files", "--no-legend", "--fields=unit"]);
    assert!(!listed.contains("refused"), "what was refused is not done");

    // Its disk: etcd ends.
    let disk = SmallDisk::below_etcd(&cluster, 200);
    wait_until_taken(&cluster, "moved.service");
    let filler = disk.at.join("filler");
    fill(&filler);
    let (mut taken, refusal) = submit_until_refused(&cluster);
    assert!(
        refusal.contains("unable to communicate with etcd"),
        "{refusal}"
    );
    assert_eq!(cluster.invocations(&["busy.service"]), before);
    std::fs::remove_file(&filler).unwrap();
    // It may still live, or lie there.
    etcd.kill().unwrap();
    etcd.start().unwrap();
    wait_until_taken(&cluster, "afterwards.service");
    taken.extend(["disarmed.service", "moved.service", "afterwards.service"].map(str::to_owned));
    are_all_listed(&cluster, &taken);
    assert_eq!(cluster.invocations(&["busy.service"]), before);
    drop(disk);
}

#[test]
fn without_room_the_embedded_store_takes_no_change_and_goes_on_by_itself_when_there_is() {
    let cluster = Cluster::with(Sandbox::builder().hosts(1).etcd(0));
    let host = cluster.host(0);
    start_busy(&cluster);
    let before = cluster.invocations(&["busy.service"]);
    host.run(&["systemctl", "stop", "fleet.service"]).unwrap();
    let script = "cp -a /var/lib/fleet /var/lib/fleet.before && \
                  mount -t tmpfs -o size=16m,mode=0755 tmpfs /var/lib/fleet && \
                  cp -a /var/lib/fleet.before/. /var/lib/fleet";
    host.run(&["sh", "-c", script]).unwrap();
    host.run(&["systemctl", "start", "fleet.service"]).unwrap();
    cluster.wait_until_complete();
    wait_until_taken(&cluster, "moved.service");
    host.exec(&["sh", "-c", "cat /dev/zero >/var/lib/fleet/filler"])
        .unwrap();
    let (mut taken, refusal) = submit_until_refused(&cluster);
    for word in ["out of space", "/var/lib/fleet/store.redb"] {
        assert!(refusal.contains(word), "{refusal}");
    }
    assert_eq!(cluster.invocations(&["busy.service"]), before);
    are_all_listed(&cluster, &taken);
    host.run(&["rm", "/var/lib/fleet/filler"]).unwrap();
    wait_until_taken(&cluster, "afterwards.service");
    // What was taken is on the disk.
    let kill = [
        "systemctl",
        "kill",
        "--kill-whom=main",
        "-s",
        "KILL",
        "fleet.service",
    ];
    host.run(&kill).unwrap();
    cluster.wait_until_complete();
    taken.extend(["moved.service", "afterwards.service"].map(str::to_owned));
    are_all_listed(&cluster, &taken);
    wait_for("busy.service to be as it was", SOON, || {
        match cluster.invocations(&["busy.service"]) == before {
            true => Ok(()),
            false => Err("it is another one".to_owned()),
        }
    })
    .unwrap();
}
