//! Which of the kernel's cached names, attributes and pages an event makes stale.

use super::node::{Layout, Node, Slot};
use crate::event::{Body, Event};
use crate::name::GuestPath;
use crate::units::InodeNo;

/// Something that the kernel may have cached and that is true no longer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stale {
    /// Attributes of a file.
    Attr(Node),
    /// Attributes of a file and its bytes in `offset..offset + length`; length 0: to the end.
    Bytes {
        /// The file.
        node: Node,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// What a name stands for.
    Name {
        /// The directory.
        parent: Node,
        /// The name.
        name: Vec<u8>,
    },
    /// A name that is gone with its file: whoever watches it is told so.
    Gone {
        /// The directory.
        parent: Node,
        /// The name.
        name: Vec<u8>,
        /// The file that had it.
        child: Node,
    },
    /// Everything.
    All,
}

/// What `event` makes stale.
pub fn stale(event: &Event, layout: &Layout) -> Vec<Stale> {
    if matches!(event.body, Body::Volume { .. } | Body::Gap { .. } | Body::Missed { .. }) {
        return vec![Stale::All];
    }
    // A volume that is not shown is not cached either.
    let Some(slot) = layout.slot(event.volume.as_deref()) else { return Vec::new() };
    Changed { event, layout, slot }.list().unwrap_or_else(|| vec![Stale::All])
}

struct Changed<'a> {
    event: &'a Event,
    layout: &'a Layout,
    slot: &'a Slot,
}

impl Changed<'_> {
    /// `None` if the event does not tell enough to be exact.
    fn list(&self) -> Option<Vec<Stale>> {
        let node = self.node(self.event.stream.as_ref().map_or(self.event.inode, |s| Some(s.ino))?)?;
        Some(match &self.event.body {
            Body::Write { offset, length, .. } => vec![Stale::Bytes { node, offset: *offset, length: *length }],
            Body::Truncate { old, new } => vec![Stale::Bytes { node, offset: *old.min(new), length: 0 }],
            Body::Metadata { .. } => vec![Stale::Attr(node)],
            Body::Create(_) | Body::Link | Body::Unlink => {
                let (parent, name) = self.place()?;
                vec![Stale::Name { parent, name }, Stale::Attr(parent), Stale::Attr(node)]
            }
            Body::Delete => {
                let (parent, name) = self.place()?;
                vec![Stale::Gone { parent, name, child: node }, Stale::Attr(parent), Stale::Attr(node)]
            }
            Body::Rename { from, from_parent, .. } => {
                let (parent, name) = self.place()?;
                let old_parent = self.node(*from_parent)?;
                vec![
                    Stale::Name { parent: old_parent, name: last_name(from)? },
                    Stale::Name { parent, name },
                    Stale::Attr(old_parent),
                    Stale::Attr(parent),
                    Stale::Attr(node),
                ]
            }
            Body::Volume { .. } | Body::Gap { .. } | Body::Missed { .. } => vec![Stale::All],
            Body::Aside { .. } => Vec::new(),
        })
    }

    /// Directory and name of the event's path.
    fn place(&self) -> Option<(Node, Vec<u8>)> {
        Some((self.node(self.event.parent?)?, last_name(self.event.path.as_ref()?)?))
    }

    fn node(&self, ino: InodeNo) -> Option<Node> {
        self.layout.node(self.slot, ino)
    }
}

fn last_name(path: &GuestPath) -> Option<Vec<u8>> {
    path.0.rsplit(|b| *b == b'/').next().filter(|n| !n.is_empty()).map(<[u8]>::to_vec)
}
