//! What the options of sinks mean.

use crate::cli::Failure;
use crate::cli::sinks::{RedisForm, SinkArgs, SpoolArgs};
use crate::sink::Sink;
use crate::sink::outlet::spool::SpoolOptions;
use crate::sink::outlet::{OutletOptions, Undelivered};
use crate::sink::pubsub::PubSub;
use crate::sink::server::Servers;
use crate::sink::stream::{Keep, Stream};

/// The server that `urls` name, trusted by `ca`.
pub fn servers(urls: &[String], database: Option<i64>, ca: Option<&std::path::Path>) -> Result<Servers, Failure> {
    let unreadable = |p: &std::path::Path, e| {
        Failure::new(format_args!("cannot read the certificate: {e}"), p.display(), "check --redis-ca")
    };
    let root = ca.map(|p| std::fs::read(p).map_err(|e| unreadable(p, e))).transpose()?;
    let advice = "write it as redis://[:PASSWORD@]HOST[:PORT][/DB], rediss://… for TLS, or redis+unix://PATH";
    Servers::new(urls, database, root).map_err(|e| Failure::new("cannot use the Redis server", e, advice))
}

/// Start the sinks that `args` name for the events of `vm`; `with_data`: `write` events have bytes.
pub fn start(
    args: &SinkArgs,
    vm: &str,
    with_data: bool,
    options: &OutletOptions,
) -> Result<Vec<Box<dyn Sink>>, Failure> {
    if args.redis.is_empty() {
        return Ok(Vec::new());
    }
    let servers = servers(&args.redis, None, args.redis_ca.as_deref())?;
    let host = host();
    let unusable = |e: std::io::Error| match spool_dir(options) {
        Some(dir) => Failure::new(format_args!("cannot use the spool: {e}"), dir, "name another folder with --spool"),
        None => Failure::new(format_args!("cannot start a thread: {e}"), "", "check the limits of this process"),
    };
    let mut all: Vec<Box<dyn Sink>> = Vec::new();
    if args.redis_form.contains(&RedisForm::Stream) {
        let keep = Keep { entries: args.redis_maxlen, time: args.redis_retention };
        all.push(Box::new(Stream::start(servers.clone(), &host, vm, keep, with_data, options).map_err(unusable)?));
    }
    if args.redis_form.contains(&RedisForm::Pubsub) {
        all.push(Box::new(PubSub::start(servers, &host, vm, options).map_err(unusable)?));
    }
    Ok(all)
}

fn spool_dir(options: &OutletOptions) -> Option<String> {
    match &options.when_full {
        crate::sink::outlet::WhenFull::Spool(Some(s)) => Some(s.dir.display().to_string()),
        _ => None,
    }
}

/// Where events wait that Redis does not take.
pub fn spooling(args: &SpoolArgs) -> OutletOptions {
    OutletOptions::spooling(Some(SpoolOptions { dir: args.spool.clone(), limit: args.spool_limit }))
}

/// The name of this host, as channels have it.
pub fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| "localhost".into(), |h| h.to_string_lossy().into_owned())
}

/// A sink failed: `to` is the file of JSON Lines.
pub fn failure(to: &std::path::Path, why: &std::io::Error) -> Failure {
    match why.get_ref().and_then(|e| e.downcast_ref::<Undelivered>()) {
        Some(e) => Failure::line(e),
        None => Failure::output(to.display(), why),
    }
}
