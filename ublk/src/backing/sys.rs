//! The system calls that the standard library does not offer.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

mod ioctls {
    // linux/fs.h: BLKDISCARD, BLKSSZGET, BLKZEROOUT are "_IO" by number; BLKGETSIZE64 is a real _IOR.
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_write_ptr_bad!(blkzeroout, nix::request_code_none!(0x12, 127), [u64; 2]);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), std::ffi::c_int);
    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
}

/// Discard `len` bytes of a block device from `offset` on.
pub fn block_discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two u64 from a pointer that is valid for the call.
    unsafe { ioctls::blkdiscard(file.as_raw_fd(), &[offset, len]) }?;
    Ok(())
}

/// Zero `len` bytes of a block device from `offset` on; the kernel writes zeros if it must.
pub fn block_zero(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT reads two u64 from a pointer that is valid for the call.
    unsafe { ioctls::blkzeroout(file.as_raw_fd(), &[offset, len]) }?;
    Ok(())
}

/// A block device's logical block size in bytes.
pub fn block_logical_size(file: &File) -> io::Result<u32> {
    let mut size: c_int = 0;
    // SAFETY: BLKSSZGET writes one int to a pointer that is valid for the call.
    unsafe { ioctls::blksszget(file.as_raw_fd(), &mut size) }?;
    u32::try_from(size).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A block device's size in bytes.
pub fn block_size(file: &File) -> io::Result<u64> {
    let mut size = 0usize;
    // SAFETY: BLKGETSIZE64 writes one u64 (usize on the 64-bit hosts we build for).
    unsafe { ioctls::blkgetsize64(file.as_raw_fd(), &mut size) }?;
    Ok(size as u64)
}

/// `fallocate(2)` with `mode`, whose FALLOC_FL_KEEP_SIZE the caller sets.
pub fn fallocate(file: &File, mode: c_int, offset: u64, len: u64) -> io::Result<()> {
    let to_off = |v: u64| libc::off_t::try_from(v).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
    let (offset, len) = (to_off(offset)?, to_off(len)?);
    // SAFETY: no pointers are passed.
    let rc = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `pwritev2(2)` of one buffer with RWF_DSYNC: the data is durable when it returns. May be short.
pub fn write_durable(file: &File, offset: u64, data: &[u8]) -> io::Result<usize> {
    let at = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: one iovec that describes `data`, which the kernel only reads and which outlives the call.
    let n = unsafe { libc::pwritev2(file.as_raw_fd(), &iov, 1, at, libc::RWF_DSYNC) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// What `O_DIRECT` asks for, from statx(2) STATX_DIOALIGN (Linux 6.1): the alignment in bytes of
/// memory and of file offsets. `None` if the file system does not say; zeros if it can't do it.
pub fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    // SAFETY: an all-zero statx is a valid value of this plain struct.
    let mut st: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty, NUL-terminated path with AT_EMPTY_PATH, and a statx that the kernel fills.
    let rc =
        unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &raw mut st) };
    let known = rc == 0 && st.stx_mask & libc::STATX_DIOALIGN != 0;
    known.then_some((st.stx_dio_mem_align, st.stx_dio_offset_align))
}
