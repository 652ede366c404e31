//! The registry of running agents. The sorted set `gammaray:vms` holds `HOST:VM` by the time, in
//! milliseconds since 1970, until which it counts as running; the key `gammaray:{VM}:agent` tells
//! more of it and expires by itself. Both are renewed every few seconds.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::sink::server::{Link, Servers, Trouble};
use crate::units::Timestamp;

/// The sorted set.
pub const VMS: &str = "gammaray:vms";
/// How often agents say that they live.
const PERIOD: Duration = Duration::from_secs(5);
/// How long the end may wait for the last word.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long that holds.
const TTL_MS: u64 = 15_000;

/// The key that tells of a VM's agent.
pub fn key(vm: &str) -> String {
    format!("gammaray:{{{vm}}}:agent")
}

/// Says that this agent runs, until it is dropped.
pub struct Heartbeat {
    stop: Option<Sender<()>>,
    done: Receiver<()>,
}

impl Heartbeat {
    /// Start.
    pub fn start(servers: Servers, host: &str, vm: &str) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let (is_done, done) = channel::<()>();
        let mut beat = Beat::new(servers, host, vm);
        let run = move || {
            let mut wait = Duration::ZERO;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                // The sink tells of troubles.
                if let Err(e) = beat.once() {
                    tracing::debug!("registry of agents: {e}");
                }
                wait = PERIOD;
            }
            let _ = beat.last();
            drop(is_done);
        };
        std::thread::Builder::new().name("heartbeat".into()).spawn(run)?;
        Ok(Self { stop: Some(stop), done })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop = None;
        // A server that does not answer is not worth waiting for: what it knows expires.
        let _ = self.done.recv_timeout(GOODBYE);
    }
}

/// The two keys may lie on two nodes of a cluster.
struct Beat {
    vms: Link,
    agent: Link,
    member: String,
    key: String,
    about: String,
}

impl Beat {
    fn new(servers: Servers, host: &str, vm: &str) -> Self {
        let about = serde_json::json!({
            "host": host, "vm": vm, "pid": std::process::id(), "since": Timestamp::now().to_string(),
            "version": env!("CARGO_PKG_VERSION"), "stream": super::key(vm),
        });
        Self {
            vms: Link::new(servers.clone()),
            agent: Link::new(servers),
            member: format!("{host}:{vm}"),
            key: key(vm),
            about: about.to_string(),
        }
    }

    fn once(&mut self) -> Result<(), Trouble> {
        let now = u64::try_from(Timestamp::now().as_nanos() / 1_000_000).unwrap_or(0);
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(&self.about).arg("PX").arg(TTL_MS);
        let mut add = redis::cmd("ZADD");
        add.arg(VMS).arg(now + TTL_MS).arg(&self.member);
        let mut clean = redis::cmd("ZREMRANGEBYSCORE");
        clean.arg(VMS).arg("-inf").arg(now);
        let mut expire = redis::cmd("PEXPIRE");
        expire.arg(VMS).arg(TTL_MS);
        twice(|| self.agent.run(&set).map(drop))?;
        twice(|| [&add, &clean, &expire].into_iter().try_for_each(|c| self.vms.run(c).map(drop)))
    }

    fn last(&mut self) -> Result<(), Trouble> {
        // Not worth waiting for: it expires.
        if !self.vms.is_up() {
            return Ok(());
        }
        self.vms.run(redis::cmd("ZREM").arg(VMS).arg(&self.member))?;
        self.agent.run(redis::cmd("DEL").arg(&self.key)).map(drop)
    }
}

/// A cluster's node may send us to another one.
fn twice(mut act: impl FnMut() -> Result<(), Trouble>) -> Result<(), Trouble> {
    act().or_else(|e| if e.is_routine() { act() } else { Err(e) })
}
