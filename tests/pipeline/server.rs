//! A Redis server on loopback, and who listens to it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Gone when dropped.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub fn start(dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()])
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, port };
        let start = Instant::now();
        while this.client(0).get_connection().is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "redis-server does not get up");
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn client(&self, database: i64) -> redis::Client {
        redis::Client::open(format!("{}/{database}", self.url())).unwrap()
    }

    /// Listen to all channels from now on.
    pub fn listen(&self) -> Receiver<Message> {
        let mut connection = self.client(0).get_connection().unwrap();
        let (tell, told) = channel();
        let (ready, is_ready) = channel();
        std::thread::spawn(move || {
            let mut all = connection.as_pubsub();
            all.psubscribe("*").unwrap();
            ready.send(()).unwrap();
            while let Ok(m) = all.get_message() {
                let document = bson::Document::from_reader(m.get_payload_bytes()).unwrap();
                let channel = m.get_channel::<Vec<u8>>().unwrap();
                if tell.send(Message { channel: String::from_utf8(channel).unwrap(), document }).is_err() {
                    return;
                }
            }
        });
        is_ready.recv().unwrap();
        told
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came.
#[derive(Clone, Debug)]
pub struct Message {
    pub channel: String,
    pub document: bson::Document,
}

impl Message {
    pub fn kind(&self) -> &str {
        self.document.get_str("type").unwrap()
    }

    /// The path in the guest.
    pub fn path(&self) -> &str {
        self.channel.splitn(3, ':').nth(2).unwrap()
    }

    /// A mutation in words: `create /dir name`.
    pub fn mutation(&self) -> Option<String> {
        (self.kind() == "mutation").then(|| {
            let what = ["create", "delete", "rename"].into_iter().find(|w| self.document.contains_key(w)).unwrap();
            let to = self.document.get_str("to").map_or_else(|_| String::new(), |to| format!(" {to}"));
            format!("{what} {} {}{to}", self.path(), self.document.get_str(what).unwrap())
        })
    }

    /// Path, start and bytes of written data.
    pub fn data(&self) -> Option<(&str, i64, Vec<u8>)> {
        (self.kind() == "data").then(|| {
            let d = &self.document;
            let bytes = d.get_binary_generic("write").unwrap();
            let (start, end) = (d.get_i64("start").unwrap(), d.get_i64("end").unwrap());
            assert_eq!(usize::try_from(end - start).unwrap(), bytes.len());
            (self.path(), start, bytes.clone())
        })
    }
}
