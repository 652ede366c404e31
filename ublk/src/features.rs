//! What this host's ublk driver offers, asked of the driver itself: distributions backport features,
//! so a kernel's version says nothing.

use std::fs::OpenOptions;
use std::io;

use libublk::ctrl::UblkCtrl;
use libublk::sys;

const CONTROL: &str = "/dev/ublk-control";

/// The driver's features (UBLK_F_* of linux/ublk_cmd.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    bits: u64,
}

impl Features {
    /// All bits as the driver reports them.
    pub fn bits(self) -> u64 {
        self.bits
    }

    /// The server may copy a request's bytes itself, by reading and writing the character device.
    pub fn user_copy(self) -> bool {
        self.has(sys::UBLK_F_USER_COPY)
    }

    /// A device can outlive its server and be taken over by another.
    pub fn user_recovery(self) -> bool {
        self.has(sys::UBLK_F_USER_RECOVERY)
    }

    /// A request's pages can be used by io_uring without a copy, registered by the driver.
    pub fn auto_buf_reg(self) -> bool {
        self.has(sys::UBLK_F_AUTO_BUF_REG)
    }

    fn has(self, flag: u32) -> bool {
        self.bits & u64::from(flag) != 0
    }
}

/// Why there is no ublk here, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The driver is not loaded, or not built.
    #[error("this kernel has no ublk driver loaded (no /dev/ublk-control): try `modprobe ublk_drv`")]
    NoDriver,
    /// The control device may not be opened.
    #[error("no permission to use /dev/ublk-control ({0}): run as root")]
    NoPrivilege(io::Error),
    /// io_uring is switched off or forbidden by a sandbox.
    #[error("io_uring cannot be used ({0}): check the sysctl kernel.io_uring_disabled and the sandbox's rules")]
    NoIoUring(io::Error),
    /// The driver is there and lacks what we need.
    #[error("the ublk driver is too old (no feature report or no user copy): Linux 6.5 or later is needed")]
    TooOld,
    /// Something else is wrong with the control device.
    #[error("cannot open /dev/ublk-control: {0}")]
    Other(io::Error),
}

/// Ask whether disks can be served, and how. Leaves nothing behind.
///
/// # Errors
/// [`Unavailable`] says why not.
pub fn probe() -> Result<Features, Unavailable> {
    if let Err(e) = OpenOptions::new().read(true).write(true).open(CONTROL) {
        return Err(match e.kind() {
            io::ErrorKind::NotFound => Unavailable::NoDriver,
            io::ErrorKind::PermissionDenied => Unavailable::NoPrivilege(e),
            _ if e.raw_os_error() == Some(nix::libc::ENODEV) => Unavailable::NoDriver,
            _ => Unavailable::Other(e),
        });
    }
    io_uring::IoUring::new(2).map_err(Unavailable::NoIoUring)?;
    // On a thread of its own: libublk keeps a ring per calling thread until that ends.
    let asked = std::thread::spawn(UblkCtrl::get_features).join();
    let features = asked.ok().flatten().map(|bits| Features { bits });
    features.filter(|f| f.user_copy()).ok_or(Unavailable::TooOld)
}
