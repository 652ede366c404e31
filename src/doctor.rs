//! What the host offers to gammaray.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use serde::Serialize;

const UBLK_CONTROL: &str = "/dev/ublk-control";
/// `linux/capability.h`
const CAP_SYS_ADMIN: u32 = 21;

/// One thing that was looked at.
#[derive(Serialize, Debug)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// How to get it, if it is missing.
    pub advice: Option<&'static str>,
}

impl Finding {
    fn new(name: &'static str, found: Result<String, String>, advice: &'static str) -> Self {
        let ok = found.is_ok();
        let found = found.unwrap_or_else(|why| why);
        Self { name, ok, found, advice: (!ok).then_some(advice) }
    }
}

/// Look at everything. Changes nothing on the host.
pub fn examine() -> Vec<Finding> {
    vec![
        Finding::new("kernel", kernel(), "mount /proc"),
        Finding::new("privileges", privileges(), "run as root: mounts and block devices need CAP_SYS_ADMIN"),
        Finding::new(
            "ublk",
            ublk(),
            "modprobe ublk_drv (Linux 6.0 or later, CONFIG_BLK_DEV_UBLK); until then use --via file",
        ),
        Finding::new(
            "io_uring",
            io_uring(),
            "sysctl kernel.io_uring_disabled=0; containers: allow io_uring in the seccomp profile",
        ),
        Finding::new("fuse", device("/dev/fuse"), "modprobe fuse, or hand /dev/fuse to this container"),
        Finding::new(
            "loop",
            loop_devices(),
            "modprobe loop: needed only to mount a disk served by --via file on this host",
        ),
        Finding::new(
            "direct I/O",
            direct_io(),
            "put images on a file system with O_DIRECT (ext4, xfs); buffered I/O works, slower",
        ),
    ]
}

fn kernel() -> Result<String, String> {
    read("/proc/sys/kernel/osrelease").map(|release| format!("Linux {release}"))
}

fn privileges() -> Result<String, String> {
    let status = read("/proc/self/status")?;
    let caps = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    let caps = caps.and_then(|c| u64::from_str_radix(c, 16).ok()).ok_or("no CapEff in /proc/self/status")?;
    let who = if nix::unistd::geteuid().is_root() { "root" } else { "not root" };
    if caps >> CAP_SYS_ADMIN & 1 == 1 {
        Ok(format!("{who}, CAP_SYS_ADMIN"))
    } else {
        Err(format!("{who}, no CAP_SYS_ADMIN"))
    }
}

fn ublk() -> Result<String, String> {
    if !is_device(UBLK_CONTROL) {
        let module = if Path::new("/sys/module/ublk_drv").exists() { "the module is loaded" } else { "no module" };
        return Err(format!("no {UBLK_CONTROL}, {module}"));
    }
    OpenOptions::new().read(true).write(true).open(UBLK_CONTROL).map_err(|e| format!("{UBLK_CONTROL}: {e}"))?;
    Ok(UBLK_CONTROL.to_owned())
}

/// The sysctl says who may; whether a container's seccomp profile agrees shows only by asking for a ring.
fn io_uring() -> Result<String, String> {
    match read("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Ok("0") | Err(_) => io_uring::IoUring::new(2).map(|_| "allowed".into()).map_err(|e| format!("refused: {e}")),
        Ok("1") => Err("only for privileged processes (kernel.io_uring_disabled=1)".into()),
        Ok(value) => Err(format!("switched off (kernel.io_uring_disabled={value})")),
    }
}

fn loop_devices() -> Result<String, String> {
    device("/dev/loop-control")
}

fn device(path: &str) -> Result<String, String> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|e| format!("{path}: {e}"))?;
    Ok(path.to_owned())
}

fn is_device(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|m| m.file_type().is_char_device())
}

/// Whether files in the current directory can be opened with O_DIRECT.
fn direct_io() -> Result<String, String> {
    let here = std::env::current_dir().map_err(|e| e.to_string())?;
    let probe = |dir: &Path| -> io::Result<()> {
        let flags = OFlag::O_TMPFILE | OFlag::O_DIRECT;
        OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(dir).map(drop)
    };
    probe(&here).map(|()| format!("works in {}", here.display())).map_err(|e| format!("not in {}: {e}", here.display()))
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map(|s| s.trim().to_owned()).map_err(|e| format!("{path}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_advice() {
        for f in examine() {
            assert_eq!(f.ok, f.advice.is_none(), "{f:?}");
            assert!(!f.found.contains('\n'));
        }
    }
}
