//! From a path in a guest to the file: across its volumes, following symbolic links inside the guest.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::guest::{Guest, Mounted};
use crate::name::GuestPath;
use crate::tree::{Kind, Tree};
use crate::units::InodeNo;

/// Linux `include/linux/namei.h`: MAXSYMLINKS.
const MAX_LINKS: u32 = 40;
/// More names than this in one path, links included, is a trap.
const MAX_STEPS: u32 = 100_000;

/// Where a path leads.
#[derive(Clone)]
pub enum Place {
    /// The folder of a guest's several volumes. It exists on no disk.
    Top(Arc<[Mounted]>),
    /// A file of a volume.
    File {
        /// The volume.
        tree: Arc<dyn Tree>,
        /// The file.
        ino: InodeNo,
    },
}

/// The place at which a guest's paths start.
pub fn root(guest: &Guest) -> Place {
    let volumes = guest.volumes();
    match &*volumes {
        [one] => volume(one),
        _ => Place::Top(volumes),
    }
}

/// The root of a volume.
pub fn volume(m: &Mounted) -> Place {
    Place::File { tree: m.tree.clone(), ino: m.tree.root() }
}

/// Find `path` (with or without a leading slash; `.` and `..` as usual). Links on the way are
/// followed within their volume; the last name only if `follow`. Also returns the path without
/// links, `.` and `..`.
///
/// Errors: `NotFound`, `NotADirectory`, a loop of links, or what reading the volume gives.
pub fn find(guest: &Guest, path: &[u8], follow: bool) -> Result<(Place, GuestPath)> {
    let top = root(guest);
    let mut todo: Vec<Vec<u8>> = names(path).rev().collect();
    let mut way: Vec<(Vec<u8>, Place)> = Vec::new();
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = todo.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            return Err(Error::NotFound);
        }
        let here = way.last().map_or(&top, |(_, p)| p);
        match name.as_slice() {
            b"." => ensure_dir(here)?,
            b".." => drop(way.pop()),
            _ => {
                let next = step(here, &name)?;
                let link = target(&next)?.filter(|_| follow || !todo.is_empty());
                match link {
                    None => way.push((name, next)),
                    Some(_) if links == MAX_LINKS => {
                        return Err(Error::corrupt("symbolic link", 0, "an end", "a loop"));
                    }
                    Some(target) => {
                        links += 1;
                        if target.first() == Some(&b'/') {
                            way.truncate(usize::from(matches!(top, Place::Top(_))));
                        }
                        todo.extend(names(&target).rev());
                    }
                }
            }
        }
    }
    let clean = way.iter().fold(GuestPath(b"/".to_vec()), |p, (name, _)| p.join(name));
    Ok((way.pop().map_or(top, |(_, p)| p), clean))
}

fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|b| *b == b'/').filter(|n| !n.is_empty()).map(<[u8]>::to_vec)
}

fn ensure_dir(place: &Place) -> Result<()> {
    match place {
        Place::File { tree, ino } if tree.attr(*ino)?.kind != Kind::Dir => Err(Error::NotADirectory),
        _ => Ok(()),
    }
}

fn step(here: &Place, name: &[u8]) -> Result<Place> {
    ensure_dir(here)?;
    match here {
        Place::Top(volumes) => volumes.iter().find(|m| m.name.as_bytes() == name).map(volume).ok_or(Error::NotFound),
        Place::File { tree, ino } => {
            let ino = tree.lookup(*ino, name)?.ok_or(Error::NotFound)?;
            Ok(Place::File { tree: tree.clone(), ino })
        }
    }
}

fn target(place: &Place) -> Result<Option<Vec<u8>>> {
    match place {
        Place::File { tree, ino } if tree.attr(*ino)?.kind == Kind::Symlink => tree.read_link(*ino).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
