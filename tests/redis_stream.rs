//! The stream in Redis equals the JSON Lines, whatever becomes of Redis meanwhile: each event once,
//! in order. A guest works all the time and never waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests may fail")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::daemon::Attach;
use support::disk::{Loop, Mount, make, scratch};
use support::redis::{Consumer, DURABLE, Entry, STREAM, Server, VALKEY, all_entries, cluster, owner, query, wait};

/// A guest on a served disk, and where its events go.
struct Guest {
    mount: Option<Mount>,
    device: Option<Loop>,
    attach: Option<Attach>,
    events: PathBuf,
}

impl Guest {
    fn start(scratch: &Path, urls: &str, more: &[&str]) -> Self {
        let image = scratch.join("disk.raw");
        make(&image, 256 << 20, "ext4 -b 4096 -N 65536");
        Self::again(scratch, urls, more)
    }

    /// With the disk of before.
    fn again(scratch: &Path, urls: &str, more: &[&str]) -> Self {
        let spool = scratch.join("spool");
        let options = ["--redis", urls, "--spool", spool.to_str().unwrap()];
        let attach = Attach::start(&scratch.join("disk.raw"), scratch, false, &[&options, more].concat());
        let device = Loop::attach(&attach.disk);
        let mount = Mount::new(&device.device, &scratch.join("guest"), "noatime,commit=1");
        let events = attach.events.clone();
        Self { mount: Some(mount), device: Some(device), attach: Some(attach), events }
    }

    fn dir(&self) -> PathBuf {
        self.mount.as_ref().unwrap().dir.clone()
    }

    /// Make `files` small files, and wait until all is on the disk. How long the guest took.
    fn work(&self, name: &str, files: usize) -> Duration {
        let start = Instant::now();
        let dir = self.dir().join(name);
        fs::create_dir(&dir).unwrap();
        (0..files).for_each(|i| fs::write(dir.join(format!("f{i}")), "x").unwrap());
        self.mount.as_ref().unwrap().sync();
        start.elapsed()
    }

    /// Work until told to stop; how many files were made.
    fn load(&self) -> Load {
        let (stop, dir) = (Arc::new(AtomicBool::new(false)), self.dir());
        let ends = stop.clone();
        let work = move || {
            let mut n = 0;
            while !ends.load(Ordering::Relaxed) {
                let path = dir.join(format!("load{n}"));
                fs::write(&path, format!("{n}")).unwrap();
                if n % 3 == 0 {
                    fs::rename(&path, dir.join(format!("moved{n}"))).unwrap();
                }
                // No faster than the small disk, and what is kept for a Redis that forgets, can bear.
                if n % 8 == 7 {
                    std::thread::sleep(Duration::from_millis(10));
                }
                n += 1;
            }
            n
        };
        Load { stop, thread: Some(std::thread::spawn(work)) }
    }

    fn log(&self) -> String {
        self.attach.as_ref().unwrap().log()
    }

    /// Unmount and stop. The events, and what was said.
    fn stop(mut self) -> (Vec<String>, String) {
        self.mount.take().unwrap().unmount();
        self.device = None;
        let attach = self.attach.take().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let log = attach.log_file();
        attach.stop();
        let lines = fs::read_to_string(&self.events).unwrap().lines().map(str::to_owned).collect();
        (lines, fs::read_to_string(log).unwrap())
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Load {
    fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The entries are the events: each once, in order.
fn assert_same(what: &str, entries: &[Entry], events: &[String]) {
    let seqs: Vec<u64> = entries.iter().map(|e| e.seq).collect();
    let odd = seqs.windows(2).find(|w| w[1] != w[0] + 1);
    assert!(odd.is_none() && seqs.first() == Some(&1), "{what}: begins with {:?}, then {odd:?}", seqs.first());
    assert_eq!(entries.len(), events.len(), "{what}: number of events");
    let differs = entries.iter().zip(events).find(|(e, l)| e.json != **l);
    assert!(differs.is_none(), "{what}: {differs:?}");
}

fn lines(of: &Path) -> usize {
    fs::read(of).unwrap().iter().filter(|b| **b == b'\n').count()
}

/// Lines of the log that speak of Redis.
fn said(log: &str) -> Vec<&str> {
    log.lines().filter(|l| l.contains("Redis") || l.contains("gammaray:{")).collect()
}

#[test]
fn it_equals_the_json_lines() {
    need!(root, fuse, loop, "redis-server");
    let scratch = scratch();
    let redis = Server::start(scratch.path(), &[]);
    let guest = Guest::start(scratch.path(), &redis.url(), &["--payload", "disk"]);
    let running: Vec<(String, f64)> = {
        wait("the registry", || redis.run::<u64>("EXISTS gammaray:vms") == 1);
        redis.run("ZRANGE gammaray:vms 0 -1 WITHSCORES")
    };
    assert!(running.len() == 1 && running[0].0.ends_with(":testvm"), "{running:?}");
    assert!((1..=15_000).contains(&redis.run::<i64>("PTTL gammaray:vms")));
    assert!((1..=15_000).contains(&redis.run::<i64>("PTTL gammaray:{testvm}:agent")));
    guest.work("many", 3000);
    let (events, log) = guest.stop();
    assert!(events.len() > 6000 && events.iter().any(|e| e.contains("\"data\":\"eA==\"")));
    assert_same("the stream", &all_entries(&mut redis.connect()), &events);
    assert_eq!(said(&log), [""; 0]);
    assert_eq!(redis.run::<u64>("EXISTS gammaray:vms gammaray:{testvm}:agent"), 0);
}

#[test]
fn killed_and_restarted_five_times() {
    need!(root, fuse, loop, "redis-server");
    five_times(DURABLE);
}

/// It forgets all that it has taken; what consumers had not read yet is sent again.
#[test]
fn killed_without_a_journal() {
    need!(root, fuse, loop, "redis-server");
    five_times(&[]);
}

fn five_times(options: &[&str]) {
    let scratch = scratch();
    let mut redis = Server::start(scratch.path(), options);
    let guest = Guest::start(scratch.path(), &redis.url(), &[]);
    let consumer = Consumer::start(&[redis.url()]);
    let load = guest.load();
    for round in 1..=5 {
        // A reader that lags far behind would miss what Redis forgets.
        let before = lines(&guest.events) + 200;
        wait("the consumer", || consumer.count() > before);
        redis.kill();
        std::thread::sleep(Duration::from_millis(300 * round));
        redis.restart();
    }
    let files = load.stop();
    let (events, log) = guest.stop();
    wait("the last event", || consumer.count() >= events.len());
    assert_same("the consumer", &consumer.got(), &events);
    assert_same("the stream", &all_entries(&mut redis.connect()), &events);
    eprintln!("{files} files, {} events; said:\n{}", events.len(), said(&log).join("\n"));
    assert!(said(&log).len() <= 40, "{log}");
}

#[test]
fn valkey_killed_and_restarted_five_times() {
    need!(root, fuse, loop, "valkey-server");
    five_times(VALKEY);
}

#[test]
fn a_cluster_whose_nodes_are_killed() {
    need!(root, fuse, loop, "redis-server");
    nodes_are_killed("redis-server");
}

#[test]
fn a_valkey_cluster_whose_nodes_are_killed() {
    need!(root, fuse, loop, "valkey-server");
    nodes_are_killed("valkey-server");
}

fn nodes_are_killed(program: &str) {
    let scratch = scratch();
    let mut nodes = cluster(program, scratch.path(), 0);
    let owner = owner(&nodes);
    let urls: Vec<String> = nodes.iter().map(Server::url).collect();
    let guest = Guest::start(scratch.path(), &urls[(owner + 1) % 3], &[]);
    let consumer = Consumer::start(&urls);
    let load = guest.load();
    for victim in [owner, (owner + 1) % 3, owner] {
        let before = consumer.count();
        wait("the consumer", || consumer.count() > before + 200);
        nodes[victim].kill();
        std::thread::sleep(Duration::from_millis(2500));
        nodes[victim].restart();
    }
    let before = consumer.count();
    wait("the consumer", || consumer.count() > before + 200);
    load.stop();
    let (events, log) = guest.stop();
    wait("the last event", || consumer.count() >= events.len());
    assert_same("the consumer", &consumer.got(), &events);
    eprintln!("{} events; said:\n{}", events.len(), said(&log).join("\n"));
}

/// The one that has the stream dies for good, and its replica takes over: what had not reached it
/// yet is sent again.
#[test]
fn a_cluster_whose_replica_takes_over() {
    need!(root, fuse, loop, "redis-server");
    let scratch = scratch();
    let mut nodes = cluster("redis-server", scratch.path(), 1);
    let owner = owner(&nodes);
    let urls: Vec<String> = nodes.iter().map(Server::url).collect();
    let guest = Guest::start(scratch.path(), &urls[owner], &[]);
    let consumer = Consumer::start(&urls);
    let load = guest.load();
    wait("the consumer", || consumer.count() > 500);
    nodes[owner].kill();
    let before = consumer.count() + 500;
    wait("the consumer", || consumer.count() > before);
    load.stop();
    let (events, log) = guest.stop();
    wait("the last event", || consumer.count() >= events.len());
    assert_same("the consumer", &consumer.got(), &events);
    eprintln!("{} events; said:\n{}", events.len(), said(&log).join("\n"));
}

/// While something is wrong the guest works on, it is said once, and then all arrives.
fn through(what: &str, trouble: impl FnOnce(&Server), words: &str, relief: impl FnOnce(&Server)) {
    let scratch = scratch();
    let redis = Server::start(scratch.path(), &[]);
    let guest = Guest::start(scratch.path(), &redis.url(), &["--redis-form", "stream"]);
    guest.work("before", 300);
    wait("events", || redis.run::<u64>(&format!("EXISTS {STREAM}")) == 1);
    trouble(&redis);
    let took = guest.work("meanwhile", 2000);
    wait("the word of it", || guest.log().contains(words));
    std::thread::sleep(Duration::from_millis(2500));
    relief(&redis);
    guest.work("after", 300);
    let (events, log) = guest.stop();
    assert_same(what, &all_entries(&mut redis.connect()), &events);
    assert_eq!(said(&log).len(), 2, "{what}: {log}");
    assert!(took < Duration::from_secs(20), "{what}: the guest took {took:?}");
}

#[test]
fn out_of_memory() {
    need!(root, fuse, loop, "redis-server");
    through("OOM", |r| r.run("CONFIG SET maxmemory 1"), "out of memory", |r| r.run("CONFIG SET maxmemory 0"));
}

#[test]
fn a_read_only_replica() {
    need!(root, fuse, loop, "redis-server");
    // A replica that has lost its master keeps what it has.
    through("replica", |r| r.run("REPLICAOF 127.0.0.1 1"), "read-only replica", |r| r.run("REPLICAOF NO ONE"));
}

#[test]
fn a_wrong_password() {
    need!(root, fuse, loop, "redis-server");
    let drop_all = |r: &Server| {
        let mut c = r.connect();
        query::<()>(&mut c, "CONFIG SET requirepass secret");
        let _: Result<u64, _> =
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("no").query(&mut c);
    };
    let relief = |r: &Server| {
        let mut c = support::redis::connect(&format!("redis://:secret@127.0.0.1:{}", r.port));
        query::<redis::Value>(&mut c, "CONFIG SET requirepass nopass");
        query::<redis::Value>(&mut c, "ACL SETUSER default nopass");
    };
    through("password", drop_all, "wrong user or password", relief);
}

#[test]
fn it_does_not_answer() {
    need!(root, fuse, loop, "redis-server");
    let signal = |r: &Server, s| {
        let pid: String = r
            .run::<String>("INFO server")
            .lines()
            .find_map(|l| Some(l.strip_prefix("process_id:")?.to_owned()))
            .unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap(), s).unwrap();
        pid
    };
    let pid = std::cell::RefCell::new(String::new());
    through(
        "stopped",
        |r| *pid.borrow_mut() = signal(r, rustix::process::Signal::STOP),
        "does not answer in time",
        |_| {
            let pid = rustix::process::Pid::from_raw(pid.borrow().parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        },
    );
}

/// With an authority of its own; another one is not trusted.
#[test]
fn over_tls() {
    need!(root, fuse, loop, "redis-server", "openssl");
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let openssl =
        |words: &str| support::disk::run("openssl", words.split_whitespace().map(|w| w.replace("@", &at(""))));
    fs::write(at("ext"), "subjectAltName=IP:127.0.0.1").unwrap();
    for ca in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={ca} -keyout @/{ca}.key -out @/{ca}.pem"
        ));
    }
    openssl("req -newkey rsa:2048 -nodes -subj /CN=redis -keyout @/redis.key -out @/redis.csr");
    openssl(
        "x509 -req -in @/redis.csr -CA @/ca.pem -CAkey @/ca.key -CAcreateserial -days 2 -extfile @/ext -out @/redis.pem",
    );
    let port = support::redis::free_port().to_string();
    let (cert, key, ca) = (at("redis.pem"), at("redis.key"), at("ca.pem"));
    let tls = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let redis = Server::start(scratch.path(), &tls);
    let url = format!("rediss://127.0.0.1:{port}");
    let guest = Guest::start(scratch.path(), &url, &["--redis-ca", &at("other.pem")]);
    guest.work("first", 50);
    wait("the word of it", || said(&guest.log()).len() == 2);
    let (first, log) = guest.stop();
    assert!(log.contains("ertificate"), "{log}");
    let guest = Guest::again(scratch.path(), &url, &["--redis-ca", &ca]);
    guest.work("second", 50);
    let (second, log) = guest.stop();
    assert_eq!(said(&log), [""; 0]);
    let all = all_entries(&mut redis.connect());
    assert_same("the first run", &all[..first.len()], &first);
    assert_same("the second run", &all[first.len()..], &second);
}

/// What could not be delivered is delivered by the next run; ids go on rising.
#[test]
fn another_run_delivers_what_was_left() {
    need!(root, fuse, loop, "redis-server");
    let scratch = scratch();
    let mut redis = Server::start(scratch.path(), DURABLE);
    let guest = Guest::start(scratch.path(), &redis.url(), &[]);
    guest.work("first", 500);
    wait("events", || redis.run::<u64>(&format!("EXISTS {STREAM}")) == 1);
    redis.kill();
    guest.work("second", 500);
    let (first, log) = guest.stop();
    assert!(log.contains("are kept for the next run"), "{log}");
    redis.restart();
    let guest = Guest::again(scratch.path(), &redis.url(), &[]);
    guest.work("third", 500);
    let (second, _) = guest.stop();
    let all = all_entries(&mut redis.connect());
    let (a, b) = all.split_at(first.len());
    assert_same("the first run", a, &first);
    assert_same("the second run", b, &second);
    assert!(a.iter().all(|e| e.run == a[0].run) && b.iter().all(|e| e.run == b[0].run && e.run > a[0].run));
    let left: Vec<_> = fs::read_dir(scratch.path().join("spool")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| n.to_string_lossy().ends_with(".lock")), "{left:?}");
}

/// When the spool is full too, the oldest events go, and a gap stands for them.
#[test]
fn a_full_spool_leaves_a_gap() {
    need!(root, fuse, loop, "redis-server");
    let scratch = scratch();
    let mut redis = Server::stopped(support::redis::free_port(), scratch.path(), &[]);
    let guest = Guest::start(
        scratch.path(),
        &redis.url(),
        &["--redis-form", "stream", "--payload", "disk", "--spool-limit", "8M"],
    );
    for n in 0..20 {
        fs::write(guest.dir().join(format!("big{n}")), vec![n; 3 << 20]).unwrap();
        guest.mount.as_ref().unwrap().sync();
    }
    let spooled: u64 =
        fs::read_dir(scratch.path().join("spool")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!((4 << 20..14 << 20).contains(&spooled), "{spooled} bytes in the spool");
    redis.restart();
    let (events, log) = guest.stop();
    let all = all_entries(&mut redis.connect());
    let json = |e: &Entry| serde_json::from_str::<serde_json::Value>(&e.json).unwrap();
    let gaps: Vec<_> = all.iter().map(json).filter(|e| e["type"] == "gap").collect();
    assert!(!gaps.is_empty(), "{log}");
    let mut next = 1;
    for e in all.iter().map(json) {
        let seq = e["seq"].as_u64().unwrap();
        assert_eq!(seq, next + e["events"].as_u64().map_or(0, |n| n - 1), "{e}");
        if e["type"] != "gap" {
            assert_eq!(e, serde_json::from_str::<serde_json::Value>(&events[seq as usize - 1]).unwrap());
        }
        next = seq + 1;
    }
    assert_eq!(next, events.len() as u64 + 1);
    let missing: u64 = gaps.iter().map(|g| g["events"].as_u64().unwrap()).sum();
    assert!(log.contains("had to be dropped") && missing > 5, "{missing}: {log}");
}

#[test]
fn it_keeps_as_much_as_it_is_told() {
    need!(root, fuse, loop, "redis-server");
    let scratch = scratch();
    let redis = Server::start(scratch.path(), &[]);
    let guest = Guest::start(scratch.path(), &redis.url(), &["--redis-maxlen", "1000", "--redis-retention", "3s"]);
    guest.work("many", 2000);
    wait("events", || redis.run::<u64>(&format!("EXISTS {STREAM}")) == 1);
    std::thread::sleep(Duration::from_millis(500));
    let len = redis.run::<u64>(&format!("XLEN {STREAM}"));
    assert!((900..1200).contains(&len), "{len} entries");
    wait("the retention", || redis.run::<u64>(&format!("XLEN {STREAM}")) == 0);
    guest.work("more", 10);
    wait("new events", || redis.run::<u64>(&format!("XLEN {STREAM}")) > 10);
    guest.stop();
}
