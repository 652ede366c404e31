//! What tests with mounts and loop devices share: prerequisites that are missing are skipped out
//! loud (and fail under CI), and whatever was set up is taken down even if a test fails.
#![allow(dead_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a test cannot do without.
pub enum Need {
    /// To be root, and `/dev/fuse`.
    Fuse,
    /// Loop devices.
    Loop,
    /// A program.
    Program(&'static str),
}

/// Whether all of it is there. If not, say so (`false`), or fail where `CI` is set.
pub fn have(needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find_map(missing) else { return true };
    assert!(std::env::var_os("CI").is_none(), "CI lacks {missing}");
    // Past the test harness's capture, which would swallow it.
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED {name}: {missing}");
    false
}

fn missing(need: &Need) -> Option<String> {
    match need {
        Need::Fuse if !nix::unistd::geteuid().is_root() => Some("root".into()),
        Need::Fuse => (!Path::new("/dev/fuse").exists()).then(|| "/dev/fuse".into()),
        Need::Loop => (!Path::new("/dev/loop-control").exists()).then(|| "/dev/loop-control".into()),
        Need::Program(p) => {
            let found = Command::new("sh").args(["-c", &format!("command -v {p}")]).stdout(Stdio::null()).status();
            (!found.is_ok_and(|s| s.success())).then(|| format!("the program {p}"))
        }
    }
}

/// Run a program and return its output; fail with what it said if it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = output(program, args);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {}\n{text}{err}", out.status);
    text
}

/// Run a program, whether or not it fails.
pub fn output(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Run a shell script that stops at the first failure.
pub fn sh(script: &str) -> String {
    run("sh", &["-euc", script])
}

/// Wait until `done` holds, and fail after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Whether something is mounted on `dir`.
pub fn is_mounted(dir: &Path) -> bool {
    let dir = dir.to_str().unwrap();
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    table.lines().any(|l| l.split(' ').nth(1) == Some(dir))
}

/// A mount made by mount(8); unmounted on drop.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(args: &[&str], dir: &Path) -> Self {
        run("mount", &[args, &[dir.to_str().unwrap()]].concat());
        Self(dir.into())
    }

    pub fn unmount(self) {
        run("umount", &[self.0.to_str().unwrap()]);
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        output("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// A loop device; detached on drop.
pub struct Loop(pub String);

impl Loop {
    pub fn new(file: &Path, direct_io: bool) -> Self {
        let direct = format!("--direct-io={}", if direct_io { "on" } else { "off" });
        let node = run("losetup", &["--find", "--show", &direct, file.to_str().unwrap()]);
        Self(node.trim().into())
    }

    /// Whether the kernel really bypasses its page cache under this device.
    pub fn is_direct(&self) -> bool {
        let attr = format!("/sys/block/{}/loop/dio", self.0.trim_start_matches("/dev/"));
        std::fs::read_to_string(attr).is_ok_and(|s| s.trim() == "1")
    }

    /// Detach it and wait until the kernel has closed the file.
    pub fn detach(self) {
        let node = self.0.clone();
        drop(self);
        let attr = format!("/sys/block/{}/loop", node.trim_start_matches("/dev/"));
        wait_for("the loop device to detach", Duration::from_secs(5), || !Path::new(&attr).exists());
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        output("losetup", &["-d", &self.0]);
    }
}
