//! Real Redis servers on loopback ports, each with a folder of its own; they end with the test.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, Value};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server, running or not.
pub struct Server {
    pub port: u16,
    dir: PathBuf,
    options: Vec<String>,
    child: Option<Child>,
}

/// A port that nobody uses now.
pub fn free_port() -> u16 {
    // A cluster's node uses a second port, 10,000 above.
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bus = port.checked_add(10_000).filter(|b| TcpListener::bind(("127.0.0.1", *b)).is_ok());
        if bus.is_some() {
            return port;
        }
    }
}

/// What makes a server keep what it has taken when it is killed.
pub const DURABLE: &[&str] = &["--appendonly", "yes"];
/// The same for Valkey: the first option may name the program.
pub const VALKEY: &[&str] = &["valkey-server", "--appendonly", "yes"];

impl Server {
    /// Start one with more options; without `DURABLE` it forgets everything when it ends.
    pub fn start(dir: &Path, options: &[&str]) -> Self {
        Self::at(free_port(), dir, options)
    }

    /// The same at a given port.
    pub fn at(port: u16, dir: &Path, options: &[&str]) -> Self {
        let mut this = Self::stopped(port, dir, options);
        this.restart();
        this
    }

    /// One that does not run yet.
    pub fn stopped(port: u16, dir: &Path, options: &[&str]) -> Self {
        let dir = dir.join(format!("redis-{port}"));
        std::fs::create_dir_all(&dir).unwrap();
        Self { port, dir, options: options.iter().map(ToString::to_string).collect(), child: None }
    }

    /// Start it again, and wait until it answers.
    pub fn restart(&mut self) {
        let log = File::create(self.dir.join("log")).unwrap();
        let (program, options) = match self.options.split_first() {
            Some((program, rest)) if !program.starts_with("--") => (program.as_str(), rest),
            _ => ("redis-server", &*self.options),
        };
        let mut command = Command::new(program);
        let port = self.port.to_string();
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(&self.dir);
        command.args(options).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        wait("the server", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Kill it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> Connection {
        connect(&self.url())
    }

    /// Run a command given as words.
    pub fn run<T: FromRedisValue>(&self, words: &str) -> T {
        query(&mut self.connect(), words)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn connect(url: &str) -> Connection {
    let client = redis::Client::open(url).unwrap();
    let mut last = None;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match client.get_connection_with_timeout(Duration::from_secs(5)) {
            Ok(c) => return c,
            Err(e) => last = Some(e),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{url}: {last:?}");
}

pub fn query<T: FromRedisValue>(c: &mut Connection, words: &str) -> T {
    let mut all = words.split_whitespace();
    let mut command = redis::cmd(all.next().unwrap());
    all.for_each(|w| {
        command.arg(w);
    });
    command.query(c).unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

/// Wait until it is so.
pub fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A message as it came.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    pub channel: Vec<u8>,
    pub document: bson::Document,
}

impl Message {
    pub fn channel(&self) -> String {
        String::from_utf8_lossy(&self.channel).into_owned()
    }

    pub fn text(&self, key: &str) -> &str {
        self.document.get_str(key).unwrap_or("")
    }

    pub fn long(&self, key: &str) -> i64 {
        self.document.get_i64(key).unwrap_or_else(|e| panic!("{key}: {e}: {:?}", self.document))
    }
}

/// Hears all channels of a server. Connects anew when the server was away.
pub struct Subscriber {
    heard: Arc<Mutex<Vec<Message>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    pub fn start(url: &str) -> Self {
        let (heard, stop) = (Arc::<Mutex<Vec<Message>>>::default(), Arc::<AtomicBool>::default());
        let (theirs, ends, url) = (heard.clone(), stop.clone(), url.to_owned());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let mut connection = connect(&url);
                let mut all = connection.as_pubsub();
                if all.psubscribe("*").is_err() || all.set_read_timeout(Some(Duration::from_millis(100))).is_err() {
                    continue;
                }
                let _ = ready.send(());
                loop {
                    match all.get_message() {
                        Ok(m) => theirs.lock().unwrap().push(Message {
                            channel: m.get_channel().unwrap(),
                            document: bson::Document::from_reader(m.get_payload_bytes()).unwrap(),
                        }),
                        Err(e) if e.is_timeout() && !ends.load(Ordering::Relaxed) => {}
                        Err(_) => break,
                    }
                }
            }
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self { heard, stop, thread: Some(thread) }
    }

    /// All so far.
    pub fn heard(&self) -> Vec<Message> {
        self.heard.lock().unwrap().clone()
    }

    /// What was heard, once one of them is as said, and forget it.
    pub fn until(&self, what: &str, is_last: impl Fn(&Message) -> bool) -> Vec<Message> {
        wait(what, || self.heard.lock().unwrap().iter().any(&is_last));
        // What came with the same write.
        std::thread::sleep(Duration::from_millis(100));
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An entry of a stream: its id, the event as JSON text, and as BSON.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    pub run: u64,
    pub seq: u64,
    pub json: String,
    pub bson: bson::Document,
}

pub const STREAM: &str = "gammaray:{testvm}:events";

/// The entries after an id, in the order of the stream.
pub fn entries(c: &mut Connection, after: (u64, u64)) -> redis::RedisResult<Vec<Entry>> {
    let from = format!("({}-{}", after.0, after.1);
    let found: Vec<(String, BTreeMap<String, Vec<u8>>)> =
        redis::cmd("XRANGE").arg(STREAM).arg(from).arg("+").arg("COUNT").arg(5000).query(c)?;
    Ok(found.into_iter().map(entry).collect())
}

fn entry((id, mut fields): (String, BTreeMap<String, Vec<u8>>)) -> Entry {
    let (run, seq) = id.split_once('-').unwrap();
    let entry = Entry {
        run: run.parse().unwrap(),
        seq: seq.parse().unwrap(),
        json: String::from_utf8(fields.remove("event").unwrap()).unwrap(),
        bson: bson::Document::from_reader(&*fields.remove("bson").unwrap()).unwrap(),
    };
    assert!(fields.is_empty(), "odd fields {fields:?}");
    let json: serde_json::Value = serde_json::from_str(&entry.json).unwrap();
    assert_eq!(json["seq"], entry.seq, "the id is not the event's");
    assert_eq!(entry.bson.get_i64("seq").unwrap(), entry.seq as i64);
    entry
}

/// All of them.
pub fn all_entries(c: &mut Connection) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let more = entries(c, all.last().map_or((0, 0), |e| (e.run, e.seq))).unwrap();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

/// Reads a stream as it grows, from any of several servers, whatever becomes of them.
pub struct Consumer {
    got: Arc<Mutex<Vec<Entry>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Consumer {
    pub fn start(urls: &[String]) -> Self {
        let (got, stop) = (Arc::<Mutex<Vec<Entry>>>::default(), Arc::<AtomicBool>::default());
        let (theirs, ends, urls) = (got.clone(), stop.clone(), urls.to_vec());
        let thread = std::thread::spawn(move || {
            let (mut last, mut turn) = ((0, 0), 0);
            while !ends.load(Ordering::Relaxed) {
                let client = redis::Client::open(urls[turn % urls.len()].as_str()).unwrap();
                turn += 1;
                let Ok(mut c) = client.get_connection_with_timeout(Duration::from_secs(2)) else {
                    std::thread::sleep(Duration::from_millis(30));
                    continue;
                };
                // A node of a cluster that has not the stream refuses: the next one is asked.
                while let Ok(more) = entries(&mut c, last) {
                    last = more.last().map_or(last, |e| (e.run, e.seq));
                    theirs.lock().unwrap().extend(more);
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Self { got, stop, thread: Some(thread) }
    }

    pub fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    pub fn got(&self) -> Vec<Entry> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Three masters that share the slots. The first three have the slots.
pub fn cluster(program: &str, dir: &Path, replicas_of_owner: usize) -> Vec<Server> {
    let options = [program, "--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--appendonly", "yes"];
    let mut nodes: Vec<Server> = (0..3).map(|_| Server::start(dir, &options)).collect();
    for (i, n) in nodes.iter().enumerate() {
        let (from, to) = (i * 5462, (i * 5462 + 5461).min(16_383));
        n.run::<()>(&format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
        n.run::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1));
        n.run::<()>(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port));
    }
    let is_up = |n: &Server| n.run::<String>("CLUSTER INFO").contains("cluster_state:ok");
    wait("the cluster", || nodes.iter().all(is_up));
    let owner = owner(&nodes);
    let id: String = nodes[owner].run("CLUSTER MYID");
    for _ in 0..replicas_of_owner {
        let node = Server::start(dir, &options);
        node.run::<()>(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port));
        wait("the replica's knowledge", || node.run::<String>("CLUSTER NODES").contains(&id));
        node.run::<()>(&format!("CLUSTER REPLICATE {id}"));
        wait("the replica", || node.run::<String>("INFO replication").contains("master_link_status:up"));
        nodes.push(node);
    }
    wait("the cluster", || nodes.iter().all(is_up));
    nodes
}

/// Which of them has the stream.
pub fn owner(nodes: &[Server]) -> usize {
    let refuses = |n: &Server| redis::cmd("EXISTS").arg(STREAM).query::<Value>(&mut n.connect()).is_err();
    nodes.iter().position(|n| !refuses(n)).unwrap()
}
