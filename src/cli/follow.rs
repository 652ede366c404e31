//! `gammaray follow`: print what a running `attach` tells.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use super::Failure;
use super::output::{Out, lost};
use crate::config::sinks::servers;
use crate::follow::messages;
use crate::follow::pattern::Pattern;
use crate::follow::show::{self, Form};
use crate::follow::streams::{Since, Streams};
use crate::sink::server::{Servers, Trouble};

/// Pause before another attempt to reach a server that went away.
const PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `follow`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gammaray follow 'web1:/var/log/*'\n  \
    gammaray follow --redis redis://events:6379 --since 0 --json 'web*:*.conf' | jq .path\n  \
    gammaray follow --pubsub 'node7:web1:/etc/*'\n\n\
    In PATTERN * stands for any characters, / too.")]
pub struct FollowArgs {
    /// What to follow: [HOST:]VM[:PATH], each a glob.
    #[arg(value_name = "PATTERN")]
    pub pattern: String,
    /// The server, or nodes of a cluster.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        env = "GAMMARAY_REDIS",
        default_value = "redis://127.0.0.1:6379",
        hide_env_values = true
    )]
    pub redis: Vec<String>,
    /// Certificate of the authority to trust with rediss://, in PEM (default: the system's).
    #[arg(long, value_name = "FILE")]
    pub redis_ca: Option<std::path::PathBuf>,
    /// Read the streams (the default).
    #[arg(long, conflicts_with = "pubsub")]
    pub stream: bool,
    /// Hear the messages of 2013.
    #[arg(long)]
    pub pubsub: bool,
    /// Begin with this event of the latest run; 0: with the first that is kept (default: with the next).
    #[arg(long, value_name = "SEQ", conflicts_with = "pubsub")]
    pub since: Option<u64>,
    /// End after so many.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Lines for people (the default on a terminal).
    #[arg(long, conflicts_with = "json")]
    pub pretty: bool,
    /// JSON Lines (the default elsewhere).
    #[arg(long)]
    pub json: bool,
}

/// Run it.
pub fn run(args: &FollowArgs) -> Result<(), Failure> {
    let advice = "such as 'web1:/var/log/*'";
    let pattern = Pattern::parse(&args.pattern).map_err(|e| Failure::new(e, &args.pattern, advice))?;
    let servers = servers(&args.redis, None, args.redis_ca.as_deref())?;
    let unreachable = |e: Trouble| Failure::new(e, servers.name(), "name the server with --redis or GAMMARAY_REDIS");
    servers.any().map_err(unreachable)?;
    let form = match (args.json, args.pretty, io::stdout().is_terminal()) {
        (false, true, _) | (false, false, true) => Form::Pretty,
        (_, _, true) => Form::SafeJson,
        (_, _, false) => Form::Json,
    };
    let mut printer = Printer { out: Out::new(), form, left: args.count.unwrap_or(u64::MAX), error: None };
    let mut state = State { name: servers.name(), is_down: false };
    if args.pubsub {
        by_messages(&servers, &pattern, &mut printer, &mut state);
    } else {
        let since = args.since.map_or(Since::Now, |s| if s == 0 { Since::First } else { Since::Seq(s) });
        by_streams(Streams::new(servers.clone(), pattern.clone(), since), &pattern, &mut printer, &mut state);
    }
    printer.error.map_or(Ok(()), |e| Err(lost(&e)))
}

fn by_streams(mut streams: Streams, pattern: &Pattern, printer: &mut Printer, state: &mut State) {
    while !printer.is_done() {
        match streams.news() {
            Ok(all) => {
                state.up();
                all.iter().for_each(|text| printer.event(text, pattern));
                printer.flush();
            }
            Err(e) => state.down(&e),
        }
    }
}

fn by_messages(servers: &Servers, pattern: &Pattern, printer: &mut Printer, state: &mut State) {
    while !printer.is_done() {
        let heard = messages::listen(servers, &pattern.channels(), &mut |message| {
            state.up();
            if let Some((channel, document)) = message {
                printer.message(channel, document);
            }
            printer.flush();
            !printer.is_done()
        });
        if let Err(e) = heard {
            state.down(&e);
        }
    }
}

/// Says once that the server went or came.
struct State {
    name: String,
    is_down: bool,
}

impl State {
    fn up(&mut self) {
        if std::mem::take(&mut self.is_down) {
            tracing::warn!("Redis {}: there again", self.name);
        }
    }

    fn down(&mut self, why: &Trouble) {
        if why.is_routine() {
            return;
        }
        if !std::mem::replace(&mut self.is_down, true) {
            tracing::warn!("Redis {}: {why}: waiting for it", self.name);
        }
        std::thread::sleep(PAUSE);
    }
}

struct Printer {
    out: Out,
    form: Form,
    left: u64,
    error: Option<io::Error>,
}

impl Printer {
    fn is_done(&self) -> bool {
        self.left == 0 || self.error.is_some()
    }

    fn event(&mut self, text: &[u8], pattern: &Pattern) {
        let Ok(event) = serde_json::from_slice::<serde_json::Value>(text) else { return };
        let paths: Vec<_> = ["path", "from"].iter().filter_map(|k| show::path_of(&event, k)).collect();
        if pattern.is_path(paths.iter().map(Vec::as_slice)) {
            self.line(&show::event(self.form, text, &event));
        }
    }

    fn message(&mut self, channel: &[u8], document: &[u8]) {
        match show::message(self.form, channel, document) {
            Some(line) => self.line(&line),
            None => tracing::warn!("a message that is no BSON on {}", crate::name::escape(channel)),
        }
    }

    fn line(&mut self, line: &str) {
        if !self.is_done() {
            self.left -= 1;
            self.error = writeln!(self.out, "{line}").err();
        }
    }

    fn flush(&mut self) {
        if self.error.is_none() {
            self.error = self.out.flush().err();
        }
    }
}
