//! Windows image files, as far as it takes to get at a packed file: their chunks are packed as
//! those of files that Windows compressed (WOF).

use std::path::Path;

use super::disk::run;

/// Pack `plain` with wimlib; the table of chunks and the chunks. `how` is options of `wimcapture`.
pub fn pack(plain: &[u8], how: &[&str], scratch: &Path) -> Vec<u8> {
    let (dir, wim) = (scratch.join("to-pack"), scratch.join("packed.wim"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("file"), plain).unwrap();
    // An existing file would be refused.
    let _ = std::fs::remove_file(&wim);
    let paths = [dir.to_str().unwrap(), wim.to_str().unwrap()];
    run("wimcapture", ["--no-acls"].iter().chain(&paths).chain(how));
    let bytes = std::fs::read(&wim).unwrap();
    let table = Resource::parse(&bytes[48..]);
    let entries = bytes[table.offset..table.offset + table.packed].chunks(50).map(Resource::parse);
    let is_file = |r: &Resource| r.plain == plain.len() && r.flags & METADATA == 0;
    let file = entries.into_iter().find(is_file).expect("the file is in the image");
    assert!(file.flags & COMPRESSED != 0, "wimlib did not pack it");
    bytes[file.offset..file.offset + file.packed].to_vec()
}

const METADATA: u8 = 2;
const COMPRESSED: u8 = 4;

/// `struct wim_reshdr_disk` (wimlib `resource.h`).
struct Resource {
    packed: usize,
    flags: u8,
    offset: usize,
    plain: usize,
}

impl Resource {
    fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        Self {
            packed: (word(0) & 0x00FF_FFFF_FFFF_FFFF) as usize,
            flags: bytes[7],
            offset: word(8) as usize,
            plain: word(16) as usize,
        }
    }
}
