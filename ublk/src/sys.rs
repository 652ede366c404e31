//! Threads and memory, as the standard library does not offer them.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use nix::libc;

/// Bytes of a page on the hosts that we build for.
pub const PAGE: usize = 4096;

/// A mapping of memory, a file or a device, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Private zeroed memory that takes up room only where it is touched, page by page: a huge page
    /// for each small request's buffer would cost 2 MiB of memory, and the time to clear them.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mapping = Self::map(len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
        // SAFETY: advice on a range of ours. A kernel without huge pages refuses it, and rightly.
        unsafe { libc::madvise(mapping.start().cast(), len, libc::MADV_NOHUGEPAGE) };
        Ok(mapping)
    }

    /// `len` bytes of `fd` from byte `offset` on, shared.
    pub fn shared(fd: RawFd, offset: libc::off_t, len: usize, writable: bool) -> io::Result<Self> {
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        Self::map(len, prot, libc::MAP_SHARED, fd, offset)
    }

    fn map(len: usize, prot: i32, flags: i32, fd: RawFd, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: the kernel chooses the address, so no memory of ours is replaced.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) };
        match NonNull::new(start.cast::<u8>()) {
            Some(first) if start != libc::MAP_FAILED => Ok(Self { start: first, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Map the pages of `len` bytes at byte `offset` at once, which must lie inside, rather than by a
    /// fault each (MADV_POPULATE_READ, Linux 5.14). Failing costs only time.
    pub fn populate(&self, offset: usize, len: usize) {
        let first = offset - offset % PAGE;
        // SAFETY: advice on whole pages of this mapping, which changes no byte.
        unsafe {
            libc::madvise(self.start().wrapping_add(first).cast(), len + (offset - first), libc::MADV_POPULATE_READ)
        };
    }

    /// The first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this very range came from mmap and is unmapped once.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// SAFETY: a mapping is plain memory that no thread owns; accesses go through raw pointers.
unsafe impl Send for Mapping {}

/// The calling thread's id, as the kernel counts.
pub fn thread_id() -> libc::pid_t {
    // SAFETY: takes nothing and always succeeds.
    unsafe { libc::gettid() }
}

/// linux/prctl.h
const PR_SET_IO_FLUSHER: i32 = 57;

/// Tell the kernel that this thread carries out other processes' I/O, so that its own memory
/// allocations never wait for that very I/O (prctl(2), PR_SET_IO_FLUSHER, Linux 5.6).
pub fn become_io_flusher() {
    // SAFETY: plain numbers; PR_SET_IO_FLUSHER takes no pointers.
    let rc = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    if rc != 0 {
        tracing::debug!("PR_SET_IO_FLUSHER: {}", io::Error::last_os_error());
    }
}

/// Take no signals on this thread: they are the main thread's business, and would interrupt
/// control commands halfway.
pub fn block_signals() {
    let _ = nix::sys::signal::SigSet::all().thread_block();
}

/// linux/capability.h
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAP_SYS_ADMIN: u32 = 21;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Give up CAP_SYS_ADMIN on this thread only.
pub fn drop_sys_admin() -> io::Result<()> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads one header and fills two data records, which is what it gets.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(low) = data.first_mut() {
        low.effective &= !(1 << CAP_SYS_ADMIN);
    }
    // SAFETY: as above; the kernel only reads both.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
