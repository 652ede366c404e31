//! What a transport (ublk, FUSE file, NBD) tells its owner.

/// Hears of every change to the disk.
///
/// A transport calls these *after* the change completed on the backing image and *before* the guest
/// is told, from whatever thread carried it out; several threads may call at once. A failed backing
/// operation is never reported. Implementations must not block for long: the guest waits.
pub trait Tap: Send + Sync + 'static {
    /// Whether anybody wants the bytes of a write to `offset..offset + len` (bytes on the disk).
    ///
    /// Transports whose data already lies in a buffer of ours need not ask. Zero-copy transports
    /// do: if `false`, they may call [`Tap::write`] with `data` = `None`.
    fn wants(&self, offset: u64, len: u64) -> bool;

    /// `len` bytes at `offset` were written. `data`, when given, holds exactly `len` bytes.
    fn write(&self, offset: u64, len: u64, data: Option<&[u8]>);

    /// `offset..offset + len` now reads as zeros (write-zeroes, or a discard of an image that
    /// punches holes) .
    fn zero(&self, offset: u64, len: u64);

    /// `offset..offset + len` was discarded; what it reads as is whatever the image now holds.
    fn discard(&self, offset: u64, len: u64);

    /// Everything that completed before this call is durable.
    fn flush(&self);
}
