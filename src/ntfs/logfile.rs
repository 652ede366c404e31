//! $LogFile: whether Windows' own log holds changes that the volume itself may lack.

use super::data;
use super::fixup;
use super::record::kind;
use super::volume::{Volume, fixed};
use crate::error::Result;

/// How the log stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing to replay, or never used.
    Clean,
    /// A driver was using it: a mount by Windows would replay it first.
    Dirty,
    /// Neither restart page makes sense.
    Unknown,
}

const PAGE: usize = 4096;
/// `struct RESTART_HDR` (Linux `fs/ntfs3/fslog.c`): where the restart area stands.
const AREA_AT: usize = 24;
/// `struct RESTART_AREA`: `client_idx[1]`, `flags`.
const CLIENTS_IN_USE: usize = 12;
const FLAGS: usize = 14;
const NO_CLIENT: u16 = 0xFFFF;
const VOLUME_IS_CLEAN: u16 = 2;

/// Look at the restart pages. The one with the higher LSN counts.
pub fn state(volume: &Volume) -> Result<State> {
    let Some(file) = volume.file(fixed::LOG_FILE)? else { return Ok(State::Unknown) };
    let Some(log) = file.attribute(kind::DATA) else { return Ok(State::Unknown) };
    let mut bytes = vec![0; 2 * PAGE];
    let len = data::read(volume, &log.value, 0, &mut bytes)?;
    bytes.truncate(len);
    if bytes.iter().all(|b| *b == 0xFF) {
        return Ok(State::Clean);
    }
    let pages = bytes.chunks_exact(PAGE).filter_map(restart);
    Ok(pages.max_by_key(|(lsn, _)| *lsn).map_or(State::Unknown, |(_, state)| state))
}

/// LSN and state by one restart page.
fn restart(page: &[u8]) -> Option<(u64, State)> {
    let mut page = page.to_vec();
    fixup::apply(&mut page, b"RSTR", "restart page", 0).ok()?;
    let u16_at = |at: usize| page.get(at..).and_then(<[u8]>::first_chunk).map(|b| u16::from_le_bytes(*b));
    let area = usize::from(u16_at(AREA_AT)?);
    let lsn = page.get(area..).and_then(<[u8]>::first_chunk).map(|b| u64::from_le_bytes(*b))?;
    let used = u16_at(area + CLIENTS_IN_USE)? != NO_CLIENT && u16_at(area + FLAGS)? & VOLUME_IS_CLEAN == 0;
    Some((lsn, if used { State::Dirty } else { State::Clean }))
}
