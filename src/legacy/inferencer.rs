//! `gray-inferencer disk.bson 4 NAME`

mod base;
mod follow;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;

use self::follow::Follow;
use super::{Common, RedisArgs, bad_index, database, no_redis};
use crate::cli::Failure;
use crate::cli::signals::Signals;
use crate::config::sinks;
use crate::engine::{Engine, EngineOptions, Payload};
use crate::index::read;
use crate::sink::pubsub::PubSub;
use crate::source::redis_queue::Consumer;

/// Infer from the writes in the queue what happens to the files, and publish it.
#[derive(Parser, Debug)]
#[command(name = "gray-inferencer", version, max_term_width = 100)]
#[command(after_help = "Example:\n  gray-inferencer disk.bson 4 guest\n\n\
    The index of gray-crawler holds all that is needed to start. The image, whose path is in the index, is\n\
    only read to find out what happened where writes are missing. Runs until Ctrl-C or SIGTERM.")]
pub struct InferencerArgs {
    /// The disk's index.
    pub index: PathBuf,
    /// The number of the Redis database with the queue.
    #[arg(value_name = "DATABASE")]
    pub database: String,
    /// The VM's name, for the channels HOST:NAME:PATH.
    pub name: String,
    /// The server.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// The image, if it is not where it was when it was crawled, or the index is one of 2013.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<PathBuf>,
    /// End when the trace ends, which that of a FIFO does when its writer closes it.
    #[arg(long)]
    pub drain: bool,
    /// Shared options.
    #[command(flatten)]
    pub common: Common,
}

/// Run it until somebody asks for the end.
pub fn run(args: &InferencerArgs) -> Result<(), Failure> {
    let servers = args.redis.servers(database(&args.database)?)?;
    let index = read::load(&args.index).map_err(|e| bad_index(&args.index, &e))?;
    let disk = base::disk(&args.index, index, args.image.as_deref())?;
    let signals = Signals::catch()?;
    let queue = Consumer::new(servers.clone()).map_err(|e| no_redis(&servers, &e))?;
    let sink = PubSub::connect(&args.redis.url(), None, &sinks::host(), &args.name).map_err(|e| {
        Failure::new(format_args!("cannot use Redis: {e}"), "", "start it, or name another with --redis")
    })?;
    let options = EngineOptions { vm: args.name.clone(), payload: Payload::Disk };
    let engine = Engine::new(disk.clone(), options, Box::new(sink)).map_err(|e| {
        let advice = "give its image with --image, or make the index again with gray-crawler";
        Failure::new(format_args!("cannot start from the index: {e}"), args.index.display(), advice)
    })?;
    if engine.guest().volumes().is_empty() {
        let advice = "give its image with --image, or make the index again with gray-crawler";
        return Err(Failure::new("no file system can be followed", args.index.display(), advice));
    }
    Follow::new(engine, Arc::clone(&disk), queue).run(&signals, args.drain)
}
