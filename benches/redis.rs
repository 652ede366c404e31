//! How many events Redis gets in a second, in either form, and what that costs on both sides: a real
//! server on loopback, fed as fast as it takes (`GAMMARAY_EVENTS`, default 200,000, in `GAMMARAY_ROUNDS`
//! interleaved rounds, default 5). Beside it what redis-benchmark makes of the same server with one
//! connection and pipelines of the same length. `cargo bench --bench redis`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench may fail"
)]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers")]

#[path = "common/mod.rs"]
mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::{median, number};
use gammaray::event::{Body, Created, Event, Origin, Value};
use gammaray::name::GuestPath;
use gammaray::sink::Sink;
use gammaray::sink::outlet::OutletOptions;
use gammaray::sink::pubsub::PubSub;
use gammaray::sink::server::Servers;
use gammaray::sink::stream::{Keep, Stream};
use gammaray::tree::Kind;
use gammaray::units::{InodeNo, Timestamp};
use support::redis::Server;

/// What a batch of ours holds at most.
const PIPELINE: u64 = 1000;

#[derive(Clone, Copy, Default)]
struct Cost {
    wall: f64,
    ours: f64,
    theirs: f64,
    commands: f64,
}

fn main() {
    let (events, rounds) = (number("GAMMARAY_EVENTS", 200_000), number("GAMMARAY_ROUNDS", 5));
    let dir = support::disk::scratch();
    let all: Vec<Event> = (1..=events).map(event).collect();
    let entry = serde_json::to_vec(&all[0]).unwrap().len() * 2;
    let forms = ["pub/sub", "stream", "stream, append-only file", "redis-benchmark PUBLISH", "redis-benchmark XADD"];
    let mut costs = vec![Vec::new(); forms.len()];
    for _ in 0..rounds {
        for (form, costs) in forms.iter().zip(&mut costs) {
            costs.push(match *form {
                "pub/sub" => measure(dir.path(), &all, &[], |s| {
                    Box::new(PubSub::start(s, "host", "vm", &OutletOptions::waiting()).unwrap())
                }),
                "stream" => measure(dir.path(), &all, &[], stream),
                "stream, append-only file" => measure(dir.path(), &all, support::redis::DURABLE, stream),
                "redis-benchmark PUBLISH" => peer(dir.path(), events, &["publish", "host:vm:/var/log/a"], entry),
                _ => peer(dir.path(), events, &["xadd", "stream", "MAXLEN", "~", "1000000", "*", "event"], entry),
            });
        }
    }
    println!(
        "{events} events (a fifth creates, a third writes of 4 KiB, the rest names and attributes), median of {rounds}"
    );
    println!();
    println!("| | events/s | commands/s | our CPU | Redis' CPU | our CPU per event |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (form, costs) in forms.iter().zip(&costs) {
        let n = events as f64;
        println!(
            "| {form} | {:.0} | {:.0} | {:.0} % | {:.0} % | {:.1} µs |",
            median(costs, |c| n / c.wall),
            median(costs, |c| c.commands / c.wall),
            median(costs, |c| 100.0 * c.ours / c.wall),
            median(costs, |c| 100.0 * c.theirs / c.wall),
            median(costs, |c| 1e6 * c.ours / n),
        );
    }
}

fn stream(servers: Servers) -> Box<dyn Sink> {
    let keep = Keep { entries: 1_000_000, time: None };
    Box::new(Stream::start(servers, "host", "vm", keep, false, &OutletOptions::waiting()).unwrap())
}

/// Feed a sink with all events, until the last one has arrived.
fn measure(dir: &Path, all: &[Event], options: &[&str], sink: impl Fn(Servers) -> Box<dyn Sink>) -> Cost {
    let server = Server::start(dir, options);
    let mut sink = sink(Servers::new(&[server.url()], None, None).unwrap());
    let (start, ours, theirs) = (Instant::now(), own_cpu("self"), server_cpu(&server));
    for e in all {
        sink.emit(e).unwrap();
    }
    sink.close().unwrap();
    let (wall, ours, theirs) = (start.elapsed().as_secs_f64(), own_cpu("self") - ours, server_cpu(&server) - theirs);
    Cost { wall, ours, theirs, commands: commands(&server) }
}

/// The same from the server's own tool.
fn peer(dir: &Path, events: u64, words: &[&str], size: usize) -> Cost {
    let server = Server::start(dir, &[]);
    let (start, theirs) = (Instant::now(), server_cpu(&server));
    let mut child = Command::new("redis-benchmark")
        .args(["-q", "-c", "1", "-p", &server.port.to_string()])
        .args(["-P", &PIPELINE.to_string(), "-n", &events.to_string()])
        .args(words)
        .arg("x".repeat(size))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut ours = 0.0;
    while child.try_wait().unwrap().is_none() {
        ours = own_cpu(&child.id().to_string()).max(ours);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (wall, theirs) = (start.elapsed().as_secs_f64(), server_cpu(&server) - theirs);
    Cost { wall, ours, theirs, commands: events as f64 }
}

/// Seconds of CPU that a process has used: fields 14 and 15 of its stat, in ticks of 10 ms.
fn own_cpu(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, r)| r);
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

fn server_cpu(server: &Server) -> f64 {
    let info: String = server.run("INFO cpu");
    let field = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)?.parse::<f64>().ok()).unwrap();
    field("used_cpu_sys:") + field("used_cpu_user:")
}

/// PUBLISH and XADD so far.
fn commands(server: &Server) -> f64 {
    let info: String = server.run("INFO commandstats");
    let calls = |l: &str| l.split_once("calls=")?.1.split_once(',')?.0.parse::<f64>().ok();
    let ours = |l: &&str| l.starts_with("cmdstat_publish:") || l.starts_with("cmdstat_xadd:");
    info.lines().filter(ours).filter_map(calls).sum()
}

fn event(seq: u64) -> Event {
    let now = Timestamp { secs: 1_795_388_748, nanos: (seq % 1_000_000_000) as u32 };
    let path = GuestPath(format!("/var/log/dir{:03}/file-{seq:06}", seq % 200).into());
    let body = match seq % 9 {
        0 | 1 => Body::Create(Created {
            mode: Some(0o644),
            size: 4096,
            nlink: 1,
            uid: Some(1000),
            gid: Some(1000),
            mtime: now,
            atime: now,
            ctime: now,
            crtime: Some(now),
            ..Created::default()
        }),
        2..=4 => Body::Write { offset: 0, length: 4096, zero: false, data: Some(vec![seq as u8; 4096]) },
        5 => Body::Rename { from: GuestPath(b"/var/log/old".into()), from_parent: InodeNo(2), exchange: false },
        6 => Body::Delete,
        _ => Body::Metadata {
            field: "mtime".into(),
            old: Some(Value::Time(Timestamp::default())),
            new: Some(Value::Time(now)),
        },
    };
    let blank = Event::new(now, Origin::Journal, body);
    let volume = Some("disk".into());
    Event {
        seq,
        write: seq,
        vm: "vm".into(),
        volume,
        path: Some(path),
        inode: Some(InodeNo(seq)),
        kind: Some(Kind::File),
        txn: Some(seq / 100),
        ..blank
    }
}
