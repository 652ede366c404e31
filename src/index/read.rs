//! Reading an index: ours, or one that the C program wrote.
//!
//! In its indexes the values of `sectors` are 32-bit, the keys of arrays repeat, and binary values
//! have arbitrary subtypes. All numbers are taken in 32 or 64 bits.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::SECTOR;
use super::elements::{Fields, Value, as_number, elements};
use super::snapshot::Snapshot;

/// The largest document that is read, in bytes: what BSON allows.
const LARGEST: i32 = i32::MAX;
/// The smallest is empty.
const SMALLEST: i32 = 5;
/// More partitions or file systems than this make no index.
const MANY: usize = 4096;

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadIndex {
    /// The host cannot read it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is none, or damaged.
    #[error("document {number} at byte {at}: {why}")]
    Document {
        /// Which document, counted from 1.
        number: u64,
        /// Where it starts in the file.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It is one, and lacks something.
    #[error("it has no {0} document")]
    Lacks(&'static str),
}

/// A partition, in sectors of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its number.
    pub number: u64,
    /// First sector.
    pub first: u64,
    /// Last sector on a GPT disk, the one behind it on others.
    pub last: u64,
}

/// A file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSystem {
    /// Number of its partition; 0 if there are none.
    pub partition: u64,
    /// What it is: `ext4`, ….
    pub kind: String,
    /// Where it is mounted, as far as the crawler knew.
    pub mount_point: String,
    /// Byte of the disk where it starts.
    pub offset: u64,
    /// Bytes in a block; 0 if it is not said.
    pub block_size: u64,
    /// Groups that it says it has, and groups that were described.
    pub groups: (u64, u64),
    /// Its UUID, in new indexes.
    pub uuid: Option<String>,
}

/// What a `file` document says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileEntry {
    /// Path in the guest, its exact bytes where they are known.
    pub path: Vec<u8>,
    /// Inode number.
    pub inode: u64,
    /// Where the inode stands on the disk, in bytes.
    pub inode_at: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes.
    pub size: u64,
    /// Type and permissions.
    pub mode: u64,
    /// Target of a symbolic link.
    pub link: Option<Vec<u8>>,
    /// Byte of the disk where each of its blocks starts, in the order of the file.
    pub blocks: Vec<u64>,
    /// Names in a directory, with their inodes. Old indexes hold them too.
    pub names: Vec<(u64, Vec<u8>)>,
}

/// An index.
#[derive(Default, Debug)]
pub struct Index {
    /// Whether the disk has a GPT.
    pub gpt: bool,
    /// Version of the extra fields; 1 for those of the C program, which has none.
    pub version: u64,
    /// The last event that it includes.
    pub sequence: u64,
    /// Bytes of the disk, in new indexes.
    pub disk_size: Option<u64>,
    /// The image that was crawled, in new indexes.
    pub image: Option<PathBuf>,
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// The file systems.
    pub file_systems: Vec<FileSystem>,
    /// How many names there are.
    pub files: u64,
    /// Bit n: 4 KiB block n of the disk holds metadata.
    pub filter: Vec<u8>,
    /// What inference needs to start, if the crawler put it in.
    pub snapshot: Option<Snapshot>,
}

/// Read the index at `path`.
///
/// # Errors
/// [`BadIndex`] says where it is damaged.
pub fn load(path: &Path) -> Result<Index, BadIndex> {
    load_with(path, |_| ())
}

/// What the first document of the index at `path` says: that of our own indexes holds the disk's size.
///
/// # Errors
/// As [`load`].
pub fn head(path: &Path) -> Result<Index, BadIndex> {
    let mut documents = Documents { from: File::open(path)?, number: 0, at: 0 };
    let mut index = Index { version: 1, ..Index::default() };
    let mut bytes = Vec::new();
    if !documents.next(&mut bytes)? {
        return Err(BadIndex::Lacks("mbr"));
    }
    let doc = Fields::new(&bytes).map_err(|why| documents.bad(why.into()))?;
    match text(&doc, "type").as_deref() {
        Some("mbr") => index.take("mbr", &doc, &mut |_| ()).map_err(|why| documents.bad(why))?,
        _ => return Err(documents.bad("it is no `mbr`, which comes first in an index".into())),
    }
    Ok(index)
}

/// The same, and show each file to `each`.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, mut each: impl FnMut(FileEntry)) -> Result<Index, BadIndex> {
    let mut documents = Documents { from: BufReader::with_capacity(1 << 20, File::open(path)?), number: 0, at: 0 };
    let mut index = Index { version: 1, ..Index::default() };
    let mut has_mbr = false;
    let mut bytes = Vec::new();
    while documents.next(&mut bytes)? {
        let taken = Fields::new(&bytes).map_err(str::to_owned).and_then(|doc| {
            let kind = text(&doc, "type").ok_or("no type")?;
            has_mbr |= kind == "mbr";
            index.take(&kind, &doc, &mut each)
        });
        taken.map_err(|why| documents.bad(why))?;
        documents.at += bytes.len() as u64;
    }
    if !has_mbr {
        return Err(BadIndex::Lacks("mbr"));
    }
    Ok(index)
}

struct Documents<R> {
    from: R,
    number: u64,
    at: u64,
}

impl<R: Read> Documents<R> {
    /// The next document's bytes; `false` at the end.
    fn next(&mut self, bytes: &mut Vec<u8>) -> Result<bool, BadIndex> {
        self.number += 1;
        bytes.clear();
        let got = self.from.by_ref().take(4).read_to_end(bytes)?;
        if got == 0 {
            return Ok(false);
        }
        let length = bytes.first_chunk::<4>().map(|b| i32::from_le_bytes(*b));
        let Some(length) = length.filter(|l| (SMALLEST..=LARGEST).contains(l)) else {
            return Err(self.bad("no length of a BSON document".into()));
        };
        // Memory grows with what is there, not with what is claimed.
        let rest = u64::from(length.unsigned_abs()) - 4;
        let got = self.from.by_ref().take(rest).read_to_end(bytes)? as u64;
        if got < rest {
            return Err(self.bad(format!("it is cut: {} of its {length} bytes are missing", rest - got)));
        }
        Ok(true)
    }

    fn bad(&self, why: String) -> BadIndex {
        BadIndex::Document { number: self.number, at: self.at, why }
    }
}

impl Index {
    fn take(&mut self, kind: &str, doc: &Fields<'_>, each: &mut impl FnMut(FileEntry)) -> Result<(), String> {
        match kind {
            "mbr" => {
                self.gpt |= doc.bool("gpt").unwrap_or(false);
                self.version = doc.number("version").unwrap_or(1);
                self.sequence = doc.number("sequence").unwrap_or(0);
                self.disk_size = doc.number("disk_size");
                self.image = exact(doc, "image", "image_bytes").map(path_of);
            }
            "gpt" => self.gpt = true,
            "partition" if self.partitions.len() < MANY => self.partitions.push(partition(doc)?),
            "fs" if self.file_systems.len() < MANY => self.file_systems.push(file_system(doc)?),
            "bgd" => {
                let fs = self.file_systems.last_mut().ok_or("a group without a file system")?;
                fs.groups.1 += 1;
            }
            "file" => {
                each(file(doc)?);
                self.files += 1;
            }
            "metadata_filter" => self.end(doc)?,
            "partition" | "fs" => return Err(format!("more than {MANY} of {kind}")),
            // Written by somebody who knows more than we do.
            _ => tracing::debug!("the index has a document of type {kind:?}"),
        }
        Ok(())
    }

    fn end(&mut self, doc: &Fields<'_>) -> Result<(), String> {
        self.filter = doc.bytes("bitarray").ok_or("no bitarray")?.to_vec();
        if let Some(blocks) = doc.bytes("blocks") {
            self.snapshot = Some(Snapshot::new(blocks.to_vec())?);
        }
        Ok(())
    }
}

fn partition(doc: &Fields<'_>) -> Result<Partition, String> {
    let of = |key: &str| doc.number(key).ok_or_else(|| format!("no {key}"));
    Ok(Partition { number: of("pte_num")?, first: of("first_sector_lba")?, last: of("final_sector_lba")? })
}

fn file_system(doc: &Fields<'_>) -> Result<FileSystem, String> {
    let old = || doc.number("superblock_sector")?.checked_mul(SECTOR);
    Ok(FileSystem {
        partition: doc.number("pte_num").unwrap_or(0),
        kind: text(doc, "fs").ok_or("no fs")?,
        mount_point: text(doc, "mount_point").unwrap_or_default(),
        offset: doc.number("offset").or_else(old).ok_or("no superblock_sector")?,
        block_size: doc.number("block_size").unwrap_or(0),
        groups: (doc.number("num_block_groups").unwrap_or(0), 0),
        uuid: text(doc, "uuid").filter(|u| !u.is_empty()),
    })
}

fn file(doc: &Fields<'_>) -> Result<FileEntry, String> {
    let at = doc.number("inode_sector").and_then(|s| s.checked_mul(SECTOR)?.checked_add(doc.number("inode_offset")?));
    Ok(FileEntry {
        path: exact(doc, "path", "path_bytes").ok_or("no path")?,
        inode: doc.number("inode_num").unwrap_or(0),
        inode_at: at.unwrap_or(0),
        is_dir: doc.bool("is_dir").unwrap_or(false),
        size: doc.number("size").unwrap_or(0),
        mode: doc.number("mode").unwrap_or(0),
        link: exact(doc, "link_name", "link_name_bytes"),
        blocks: values(doc, "sectors", |v| as_number(v)?.checked_mul(SECTOR))?,
        names: values(doc, "files", name)?,
    })
}

/// The values of an array, whatever their keys: they may have gaps and repetitions.
fn values<T>(doc: &Fields<'_>, key: &str, of: impl Fn(Value<'_>) -> Option<T>) -> Result<Vec<T>, String> {
    let Some(Value::Nested(array)) = doc.get(key) else { return Ok(Vec::new()) };
    let value = |element: Result<(&[u8], Value<'_>), _>| {
        let (_, value) = element.map_err(|e: &str| format!("{key}: {e}"))?;
        of(value).ok_or_else(|| format!("{key}: a value of another kind"))
    };
    elements(array).map_err(|e| format!("{key}: {e}"))?.map(value).collect()
}

/// A name in a directory: the inode as u64 and the bytes.
fn name(value: Value<'_>) -> Option<(u64, Vec<u8>)> {
    let Value::Bytes(bytes) = value else { return None };
    let (inode, name) = bytes.split_first_chunk::<8>()?;
    // The C program counted the end of the string in.
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some((u64::from_le_bytes(*inode), name.to_vec()))
}

fn text(doc: &Fields<'_>, key: &str) -> Option<String> {
    doc.text(key).map(|t| String::from_utf8_lossy(t).into_owned())
}

/// A text's bytes, or its exact bytes where it is no text.
fn exact(doc: &Fields<'_>, key: &str, exact: &str) -> Option<Vec<u8>> {
    doc.bytes(exact).or_else(|| doc.text(key)).map(<[u8]>::to_vec)
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}
