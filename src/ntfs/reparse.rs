//! Reparse points: links, and files that something else than NTFS makes sense of.

use super::names::wtf8;
use super::record::utf16;
use super::wof::Algorithm;
use crate::tree::Kind;

/// What a reparse point says (\[MS-FSCC\] 2.1.2; WSL's tags as in Linux `fs/smb/client/reparse.h`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reparse {
    /// A symbolic link, also of WSL, or a junction: the target as it stands there.
    Link(Vec<u8>),
    /// A special file of WSL.
    Special(Kind),
    /// Compressed; the file is an ordinary one.
    Wof(Algorithm),
    /// Something else.
    Other,
}

const SYMLINK: u32 = 0xA000_000C;
const MOUNT_POINT: u32 = 0xA000_0003;
const WOF: u32 = 0x8000_0017;
const LX_SYMLINK: u32 = 0xA000_001D;
const AF_UNIX: u32 = 0x8000_0023;
const LX_FIFO: u32 = 0x8000_0024;
const LX_CHR: u32 = 0x8000_0025;
const LX_BLK: u32 = 0x8000_0026;

/// The tag of a reparse point.
pub fn tag(bytes: &[u8]) -> Option<u32> {
    u32_at(bytes, 0)
}

/// Make sense of the value of $REPARSE_POINT.
pub fn parse(bytes: &[u8]) -> Reparse {
    understood(bytes).unwrap_or(Reparse::Other)
}

fn understood(bytes: &[u8]) -> Option<Reparse> {
    let length = usize::from(u16_at(bytes, 4)?);
    let data = bytes.get(8..8 + length)?;
    Some(match tag(bytes)? {
        SYMLINK => Reparse::Link(substitute_name(data, 12)?),
        MOUNT_POINT => Reparse::Link(substitute_name(data, 8)?),
        LX_SYMLINK => Reparse::Link(data.get(4..).filter(|t| !t.is_empty() && !t.contains(&0))?.to_vec()),
        AF_UNIX => Reparse::Special(Kind::Sock),
        LX_FIFO => Reparse::Special(Kind::Fifo),
        LX_CHR => Reparse::Special(Kind::Chr),
        LX_BLK => Reparse::Special(Kind::Blk),
        // Version 1, provider "file", version 1.
        WOF if (u32_at(data, 0)?, u32_at(data, 4)?, u32_at(data, 8)?) == (1, 2, 1) => {
            Reparse::Wof(Algorithm::from_number(u32_at(data, 12)?)?)
        }
        _ => Reparse::Other,
    })
}

/// The names stand behind a header of `header` bytes.
fn substitute_name(data: &[u8], header: usize) -> Option<Vec<u8>> {
    let start = header + usize::from(u16_at(data, 0)?);
    let name = data.get(start..start + usize::from(u16_at(data, 2)?))?;
    Some(wtf8(&utf16(name)))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

/// Interix, and ntfs-3g by default, keep links and devices in system files (ntfs-3g `layout.h`:
/// `INTX_FILE`).
pub mod interix {
    use super::{Kind, utf16, wtf8};

    /// Longer contents are no link: `PATH_MAX` characters and the magic.
    pub const LONGEST: u64 = 8 + 2 * 4096;

    /// Major and minor number.
    type Device = (u32, u32);

    /// What a system file with this content is, and the target or device number.
    pub fn parse(content: &[u8]) -> Option<(Kind, Vec<u8>, Option<Device>)> {
        let Some((magic, rest)) = content.split_first_chunk::<8>() else {
            return match content.len() {
                0 => Some((Kind::Fifo, Vec::new(), None)),
                1 => Some((Kind::Sock, Vec::new(), None)),
                _ => None,
            };
        };
        let number = |at: usize| {
            let field = rest.get(at..)?.first_chunk::<8>()?;
            u32::try_from(u64::from_le_bytes(*field)).ok()
        };
        let device = || Some((number(0)?, number(8)?));
        match magic {
            b"IntxLNK\x01" => Some((Kind::Symlink, wtf8(&utf16(rest)), None)),
            b"IntxCHR\0" if rest.len() == 16 => Some((Kind::Chr, Vec::new(), device())),
            b"IntxBLK\0" if rest.len() == 16 => Some((Kind::Blk, Vec::new(), device())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_strangers() {
        let mut b = 0xA000_0003_u32.to_le_bytes().to_vec();
        b.extend([16, 0, 0, 0, 0, 0, 4, 0, 6, 0, 2, 0]);
        b.extend(b"C\0:\0\0\0x\0");
        assert_eq!(parse(&b), Reparse::Link(b"C:".to_vec()));
        b[4] = 17;
        assert_eq!(parse(&b), Reparse::Other);
        assert_eq!(parse(&[1, 2, 3]), Reparse::Other);
        assert_eq!(parse(&[0x1A, 0x10, 0, 0x90, 0, 0, 0, 0]), Reparse::Other);
        assert_eq!(interix::parse(b"IntxLNK\x01a\0"), Some((Kind::Symlink, b"a".to_vec(), None)));
        assert_eq!(interix::parse(b"ordinary content"), None);
    }
}
