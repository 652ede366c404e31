//! A Redis or Valkey server, or the nodes of one cluster: where it is, and one connection to it.
//!
//! A cluster needs no more than one connection: all keys of a VM lie in one slot. A node that does
//! not have the slot names the one that has (`MOVED`), and we go there; when that node is gone, any
//! other that we have heard of is asked.

pub mod trouble;

use std::time::Duration;

use redis::{
    Client, Cmd, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    TlsCertificates, Value,
};

pub use self::trouble::Trouble;

/// What a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// What a server may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// So many addresses of nodes are remembered.
const MAX_NODES: usize = 64;

/// Where a server or the nodes of a cluster are, and how to log in.
#[derive(Clone)]
pub struct Servers {
    nodes: Vec<ConnectionAddr>,
    login: RedisConnectionInfo,
    root: Option<Vec<u8>>,
}

impl Servers {
    /// From URLs such as `redis://:password@host:6379/2`, `rediss://host` (TLS) or
    /// `redis+unix:///run/redis.sock`. Several are nodes of one cluster; the first one's login
    /// counts. `database` goes before the URL's. `root` is a certificate to trust, in PEM, in place
    /// of those of the system.
    ///
    /// Errors: what is wrong with which URL, without its password.
    pub fn new(urls: &[String], database: Option<i64>, root: Option<Vec<u8>>) -> Result<Self, String> {
        // Another part of the program may have chosen one before; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut all = Vec::new();
        for url in urls.iter().flat_map(|u| u.split(',')) {
            let info = url.into_connection_info().map_err(|e| format!("{}: {e}", without_password(url)))?;
            all.push(info);
        }
        let first = all.first().ok_or("no server is named")?;
        let mut login = first.redis_settings().clone().set_skip_set_lib_name();
        if let Some(n) = database {
            login = login.set_db(n);
        }
        Ok(Self { nodes: all.iter().map(|i| i.addr().clone()).collect(), login, root })
    }

    /// The address for messages: of the first node.
    pub fn name(&self) -> String {
        self.nodes.first().map_or_else(String::new, ToString::to_string)
    }

    fn client(&self, addr: ConnectionAddr) -> Result<Client, Trouble> {
        let tls = matches!(addr, ConnectionAddr::TcpTls { .. });
        let info: ConnectionInfo = addr.into_connection_info()?.set_redis_settings(self.login.clone());
        Ok(match (&self.root, tls) {
            (Some(root), true) => {
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root.clone()) })?
            }
            _ => Client::open(info)?,
        })
    }

    /// A new connection to the node at `addr`.
    fn connect(&self, addr: &ConnectionAddr) -> Result<Connection, Trouble> {
        let connection = self.client(addr.clone())?.get_connection_with_timeout(CONNECT)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        Ok(connection)
    }

    /// A new connection to any of the nodes, for readers.
    pub fn any(&self) -> Result<Connection, Trouble> {
        let mut last = None;
        for addr in &self.nodes {
            match self.connect(addr) {
                Ok(c) => return Ok(c),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| Trouble::new("no server is named")))
    }
}

/// A URL as it may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    rest.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("{scheme}://…@{host}"))
}

/// One connection, made when it is needed, to the node that has our keys.
pub struct Link {
    servers: Servers,
    /// Nodes that are known besides those that were named.
    learned: Vec<ConnectionAddr>,
    connection: Option<(Connection, ConnectionAddr)>,
    /// Where we were sent.
    sent_to: Option<ConnectionAddr>,
    next: usize,
}

impl Link {
    /// Not connected yet.
    pub fn new(servers: Servers) -> Self {
        Self { servers, learned: Vec::new(), connection: None, sent_to: None, next: 0 }
    }

    /// Whether there is a connection, as far as is known.
    pub fn is_up(&self) -> bool {
        self.connection.is_some()
    }

    /// Connect if we are not connected. Each failure turns to another node.
    pub fn connect(&mut self) -> Result<(), Trouble> {
        if self.connection.is_some() {
            return Ok(());
        }
        let addr = self.sent_to.take().or_else(|| self.turn()).ok_or_else(|| Trouble::new("no server is named"))?;
        let connection = self.servers.connect(&addr)?;
        self.connection = Some((connection, addr));
        self.learn();
        Ok(())
    }

    /// The next address to try.
    fn turn(&mut self) -> Option<ConnectionAddr> {
        let all = self.servers.nodes.len() + self.learned.len();
        let i = self.next.checked_rem(all)?;
        self.next = i + 1;
        self.servers.nodes.iter().chain(&self.learned).nth(i).cloned()
    }

    /// The connection is of no use any more.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Run one command. An answer that is an error is one of ours.
    pub fn run(&mut self, command: &Cmd) -> Result<Value, Trouble> {
        match self.run_all(redis::pipe().add_command(command.clone()))?.pop() {
            Some(Value::ServerError(e)) => Err(self.failed(Trouble::from(&e))),
            Some(value) => Ok(value),
            None => Err(Trouble::new("it gives no answer")),
        }
    }

    /// Run a pipeline that is not atomic; its answers, errors among them.
    ///
    /// The library's own function goes on reading after an answer did not come in time, once for
    /// each command.
    pub fn run_all(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, Trouble> {
        self.connect()?;
        let Some((connection, _)) = &mut self.connection else { return Err(Trouble::new("not connected")) };
        let answers = talk(connection, pipeline);
        answers.map_err(|e| self.failed(e.into()))
    }

    /// Draw the consequences of an answer that is an error: go where it sends us, or hang up and
    /// turn to another node. Whatever was sent and not answered is to be looked at again.
    pub fn failed(&mut self, trouble: Trouble) -> Trouble {
        if let (Some((host, port)), Some((_, here))) = (trouble.redirect(), &self.connection) {
            self.sent_to = Some(like(here, host, *port));
        }
        self.hang_up();
        trouble
    }

    /// Ask the node for the others of its cluster; a server that is no cluster says so.
    fn learn(&mut self) {
        let Some((connection, here)) = &mut self.connection else { return };
        let Ok(Value::Array(slots)) = redis::cmd("CLUSTER").arg("SLOTS").query::<Value>(connection) else { return };
        let found: Vec<_> = slots.iter().flat_map(nodes_of).map(|(host, port)| like(here, &host, port)).collect();
        for addr in found {
            let known = self.servers.nodes.contains(&addr) || self.learned.contains(&addr);
            if !known && self.learned.len() < MAX_NODES {
                self.learned.push(addr);
            }
        }
    }
}

fn talk(connection: &mut Connection, pipeline: &Pipeline) -> redis::RedisResult<Vec<Value>> {
    connection.send_packed_command(&pipeline.get_packed_pipeline())?;
    (0..pipeline.len()).map(|_| connection.recv_response()).collect()
}

/// The same kind of address elsewhere. An empty host is the one that said so.
fn like(here: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    let host = |own: &String| if host.is_empty() { own.clone() } else { host.to_owned() };
    match here {
        ConnectionAddr::TcpTls { host: own, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: host(own), port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        ConnectionAddr::Tcp(own, _) => ConnectionAddr::Tcp(host(own), port),
        other => other.clone(),
    }
}

/// The nodes in one entry of `CLUSTER SLOTS`: first slot, last slot, and then [host, port, …] each.
fn nodes_of(entry: &Value) -> Vec<(String, u16)> {
    let Value::Array(parts) = entry else { return Vec::new() };
    let node = |part: &Value| {
        let Value::Array(node) = part else { return None };
        let host = match node.first()? {
            Value::BulkString(b) => String::from_utf8(b.clone()).ok()?,
            Value::Nil => String::new(),
            _ => return None,
        };
        let Some(Value::Int(port)) = node.get(1) else { return None };
        Some((host, u16::try_from(*port).ok()?))
    };
    parts.iter().skip(2).filter_map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("redis://user:p@ss@host:1/2"), "redis://…@host:1/2");
        assert_eq!(without_password("nonsense"), "nonsense");
        let error = |url: &str| Servers::new(&[url.into()], None, None).err().unwrap();
        assert!(!error("redis://:secret@host:99999/").contains("secret"));
        assert!(error("http://host/").contains("http://host/"));
    }

    #[test]
    fn several_urls_are_nodes_of_one_cluster() {
        let s = Servers::new(&["redis://:pw@a:1/3,redis://b:2".into()], None, None).unwrap();
        assert_eq!(s.nodes, [ConnectionAddr::Tcp("a".into(), 1), ConnectionAddr::Tcp("b".into(), 2)]);
        assert_eq!((s.login.db(), s.login.password()), (3, Some("pw")));
    }
}
