//! Where events go besides JSON Lines: the options that `attach` and `replay` share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Forms in which Redis gets events.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisForm {
    /// A durable stream, gammaray:{VM}:events.
    Stream,
    /// The messages of 2013 on channels HOST:VM:PATH.
    Pubsub,
}

/// Options of sinks.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Redis")]
pub struct SinkArgs {
    /// Send events to the Redis or Valkey server at URL too (redis://[:PASSWORD@]HOST[:PORT][/DB],
    /// rediss:// with TLS, redis+unix://PATH). Several are nodes of one cluster.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub redis: Vec<String>,
    /// In which form.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "stream,pubsub", requires = "redis")]
    pub redis_form: Vec<RedisForm>,
    /// Certificate of the authority to trust with rediss://, in PEM (default: the system's).
    #[arg(long, value_name = "FILE", requires = "redis")]
    pub redis_ca: Option<PathBuf>,
    /// About how many events the stream keeps; 0: all.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, requires = "redis")]
    pub redis_maxlen: u64,
    /// For how long the stream keeps events (90s, 15m, 12h, 30d; default: for as long as --redis-maxlen lets it).
    #[arg(long, value_name = "TIME", value_parser = super::quantity::duration, requires = "redis")]
    pub redis_retention: Option<std::time::Duration>,
}

/// Options of the spool.
#[derive(Args, Debug, Clone)]
pub struct SpoolArgs {
    /// Where events wait on disk while Redis is away.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/gammaray/spool", requires = "redis")]
    pub spool: PathBuf,
    /// How much may wait there, for each form (64M, 2G); beyond that the oldest events are dropped, and a `gap` says so.
    #[arg(long, value_name = "SIZE", value_parser = super::quantity::bytes, default_value = "1G", requires = "redis")]
    pub spool_limit: u64,
}
