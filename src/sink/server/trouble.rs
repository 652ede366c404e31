//! What a server has against us, in words for an operator.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};

/// Why events do not arrive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// Without changing parts (ports, numbers): two that are equal are one piece of news.
    what: String,
    redirect: Option<(String, u16)>,
    is_id: bool,
}

impl Trouble {
    /// In words.
    pub fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), redirect: None, is_id: false }
    }

    /// The node to ask instead.
    pub fn redirect(&self) -> Option<&(String, u16)> {
        self.redirect.as_ref()
    }

    /// The stream has a later entry than the one that was to be added.
    pub fn is_stale_id(&self) -> bool {
        self.is_id
    }

    /// Only another node has to be asked: no news for anybody.
    pub fn is_routine(&self) -> bool {
        self.redirect.is_some()
    }

    fn server(code: &str, detail: &str, kind: Option<ServerErrorKind>) -> Self {
        let advice = match (code, kind) {
            ("OOM", _) => "it is out of memory (maxmemory)",
            ("READONLY", _) => "it is a read-only replica",
            ("WRONGPASS" | "NOAUTH", _) => "wrong user or password",
            ("NOPERM", _) => "this user may not do that (ACL)",
            ("LOADING", _) => "it is loading its data",
            ("CLUSTERDOWN", _) => "the cluster is down",
            ("MISCONF", _) => "it cannot save to its disk (MISCONF)",
            ("NOREPLICAS", _) => "it has too few replicas",
            ("MASTERDOWN", _) => "its master is down",
            ("WRONGTYPE", _) => "the key is no stream",
            _ => return Self::new(format_args!("{code} {detail}").to_string().trim_end()),
        };
        Self::new(advice)
    }
}

impl From<&ServerError> for Trouble {
    fn from(e: &ServerError) -> Self {
        let detail = e.details().unwrap_or_default();
        let mut this = Self::server(e.code(), detail, e.kind());
        this.is_id = detail.contains("equal or smaller than the target stream top item");
        // `MOVED slot host:port`; an IPv6 address has colons of its own.
        if let ("MOVED" | "ASK", Some((_, node))) = (e.code(), detail.split_once(' ')) {
            this.redirect = node.rsplit_once(':').and_then(|(h, p)| Some((h.to_owned(), p.parse().ok()?)));
        }
        this
    }
}

impl From<RedisError> for Trouble {
    fn from(e: RedisError) -> Self {
        let mut this = match e.kind() {
            ErrorKind::AuthenticationFailed => Self::new("wrong user or password"),
            ErrorKind::Io if e.is_timeout() => Self::new("it does not answer in time"),
            ErrorKind::Io if e.is_connection_refusal() => Self::new("connection refused"),
            ErrorKind::Io if e.is_connection_dropped() => Self::new("the connection broke"),
            _ => match e.code() {
                Some(code) => Self::server(code, e.detail().unwrap_or_default(), None),
                None => Self::new(&e),
            },
        };
        this.redirect = e.redirect_node().map(|(host, port)| (host.to_owned(), port));
        this
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A server's words are not ours: nothing in them may reach a terminal as it is.
        f.write_str(&crate::name::one_line(&self.what))
    }
}

impl std::error::Error for Trouble {}
