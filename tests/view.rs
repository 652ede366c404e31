//! The view: its logic against a tree in memory, and the same through a real mount.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

#[path = "support/fuse_support.rs"]
mod fuse_support;
#[path = "view/ext4.rs"]
mod ext4;
#[path = "view/logic.rs"]
mod logic;
#[path = "support/mem_tree.rs"]
mod mem_tree;
#[path = "view/mounted.rs"]
mod mounted;

use std::sync::Arc;

use gammaray::event::{Body, Event, Origin};
use gammaray::guest::{Guest, Mounted};
use gammaray::name::GuestPath;
use gammaray::units::{InodeNo, Timestamp};

use mem_tree::MemTree;

fn volume(name: &str, tree: &Arc<MemTree>) -> Mounted {
    Mounted { name: name.into(), tree: tree.clone() }
}

fn guest(volumes: &[(&str, &Arc<MemTree>)]) -> Arc<Guest> {
    Arc::new(Guest::new(volumes.iter().map(|(n, t)| volume(n, t)).collect()))
}

/// An event of the volume `disk`.
fn event(path: &str, ino: u64, parent: u64, body: Body) -> Event {
    Event {
        seq: 1,
        time: Timestamp::default(),
        vm: "vm".into(),
        volume: Some("disk".into()),
        path: Some(GuestPath(path.into())),
        inode: Some(InodeNo(ino)),
        kind: None,
        txn: None,
        origin: Origin::Journal,
        body,
        stream: None,
        parent: Some(InodeNo(parent)),
        write: 1,
    }
}

fn wrote(path: &str, ino: u64, offset: u64, length: u64) -> Event {
    event(path, ino, 2, Body::Write { offset, length, zero: false, data: None })
}
