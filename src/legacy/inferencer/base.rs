//! From an index, and the image if it is at hand, to the disk that inference starts from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::Failure;
use crate::image::Disk;
use crate::index::read::Index;
use crate::open;
use crate::source::known_disk::KnownDisk;

/// The disk that `index`, read from `path`, describes. `named` is the image that the user gave.
pub fn disk(path: &Path, index: Index, named: Option<&Path>) -> Result<Arc<KnownDisk>, Failure> {
    let snapshot = index.snapshot.as_ref().is_some_and(|s| !s.is_empty());
    let image = match image(&index, named) {
        Ok(image) => Some(image),
        // With the bytes in the index the image is a help and no need.
        Err(why) if snapshot && named.is_none() => {
            tracing::warn!("{why}: where writes are missing, what happened will not be found out");
            None
        }
        Err(why) => {
            let advice = "give the image with --image, or make the index again with gray-crawler";
            return Err(Failure::new(why, path.display(), advice));
        }
    };
    if !snapshot {
        tracing::warn!("{}: it holds no bytes of the disk: what is on the image now is the start", path.display());
    }
    let size = index.disk_size.or_else(|| image.as_ref().map(|i| i.size())).unwrap_or(0);
    KnownDisk::new(size, index.snapshot.filter(|_| snapshot), image)
        .map(Arc::new)
        .map_err(|e| Failure::new(format_args!("cannot make a temporary file: {e}"), "", "make room in TMPDIR"))
}

/// The image, if it is the one that was indexed.
fn image(index: &Index, named: Option<&Path>) -> Result<Disk, String> {
    let path: PathBuf = match (named, &index.image) {
        (Some(path), _) => path.into(),
        (None, Some(path)) => path.clone(),
        (None, None) => return Err("the index does not say where the image is".into()),
    };
    let shown = path.display();
    let disk = open::image(&path).map_err(|e| format!("cannot use the image {shown}: {e}"))?;
    match index.disk_size {
        Some(size) if size != disk.size() => {
            return Err(format!("{shown} has {} bytes, and the disk that was indexed {size}", disk.size()));
        }
        _ => {}
    }
    check_layout(index, &disk).map_err(|why| format!("{shown} is not the disk that was indexed: {why}"))?;
    Ok(disk)
}

/// Whether the file systems of the index are on the disk. A guest may be writing to it.
fn check_layout(index: &Index, disk: &Disk) -> Result<(), String> {
    for fs in &index.file_systems {
        let area = open::at(disk, fs.offset).map_err(|e| e.to_string())?;
        let found = area.fs.unwrap_or("nothing known");
        if !same_family(found, &fs.kind) {
            return Err(format!("at byte {} there is {found}, not {}", fs.offset, fs.kind));
        }
        if let Some(uuid) = fs.uuid.as_ref().filter(|u| area.uuid.as_ref() != Some(u)) {
            return Err(format!("at byte {} there is another file system than {uuid}", fs.offset));
        }
    }
    Ok(())
}

/// The C program called all of them ext4.
fn same_family(found: &str, indexed: &str) -> bool {
    let family = |kind: &str| {
        if kind.to_ascii_lowercase().starts_with("ext") { "ext".into() } else { kind.to_ascii_lowercase() }
    };
    family(found) == family(indexed)
}
