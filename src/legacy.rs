//! The four tools of 2013, under their names and with their arguments.
//!
//! ```text
//!  disk.raw ─► gray-crawler ─► disk.bson ───────────────────────┐
//!  QEMU ─► disk.fifo ─► gray-ndb-queuer ─► Redis: writequeue ─► gray-inferencer ─► Redis: pub/sub
//!  disk.raw ─► gray-fs ─► a mount
//! ```
//!
//! Each is a few lines over what `gammaray` is made of.

pub mod crawler;
pub mod fs;
pub mod inferencer;
pub mod queuer;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::cli::Failure;
use crate::cli::failure::Stop;
use crate::config::sinks;
use crate::index::read::BadIndex;
use crate::sink::server::{Servers, Trouble};

/// Where Redis is if nobody says so.
const REDIS: &str = "redis://127.0.0.1:6379";
/// Says so.
const VARIABLE: &str = "GAMMARAY_REDIS";

/// The options that all tools have in common.
#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Say more on stderr.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Where the queue and the subscribers are.
#[derive(Args, Debug, Clone)]
pub struct RedisArgs {
    /// The Redis server (default: $GAMMARAY_REDIS, else redis://127.0.0.1:6379).
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
}

impl RedisArgs {
    fn url(&self) -> String {
        let named = self.redis.clone().or_else(|| std::env::var(VARIABLE).ok());
        named.filter(|u| !u.is_empty()).unwrap_or_else(|| REDIS.to_owned())
    }

    /// The server, for database `number`.
    fn servers(&self, number: i64) -> Result<Servers, Failure> {
        sinks::servers(&[self.url()], Some(number), None)
    }
}

/// Parse the number of a database.
fn database(text: &str) -> Result<i64, Failure> {
    let number = text.parse::<i64>().ok().filter(|n| (0..=i64::from(u16::MAX)).contains(n));
    number.ok_or_else(|| Failure::new(format_args!("{text:?} is no number of a Redis database"), "", "such as 4"))
}

/// The server cannot be used.
fn no_redis(servers: &Servers, why: &Trouble) -> Failure {
    let advice = "start one there, or name another with --redis URL or GAMMARAY_REDIS";
    Failure::new(format_args!("cannot use Redis: {why}"), servers.name(), advice)
}

/// An index cannot be used.
fn bad_index(path: &Path, why: &BadIndex) -> Failure {
    let advice = match why {
        BadIndex::Io(_) => "check the path",
        _ => "make it again with gray-crawler",
    };
    Failure::new(format_args!("cannot use the index: {why}"), path.display(), advice)
}

/// What each of the four programs is: parse the arguments, do it, and say how it went.
pub fn main<A: clap::Parser>(common: impl Fn(&A) -> Common, run: impl Fn(&A) -> Result<(), Failure>) -> ExitCode {
    let done = A::try_parse().map_err(Stop::from).and_then(|args| {
        crate::cli::start_log(common(&args).verbose)?;
        Ok(run(&args)?)
    });
    done.map_or_else(|stop| stop.report(), |()| ExitCode::SUCCESS)
}
