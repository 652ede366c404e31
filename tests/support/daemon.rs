//! The program under test: one-shot commands, and a running `attach`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::disk::{all, output};
use super::record::{Listing, parse_listing};

const BINARY: &str = env!("CARGO_BIN_EXE_gammaray");
/// A daemon that hangs would hang the kernel's mounts on it, and the test with them.
const LONGEST_LIFE: Duration = Duration::from_secs(240);
const LONGEST_START: Duration = Duration::from_secs(30);
const LONGEST_STOP: Duration = Duration::from_secs(30);

/// Run `gammaray` to its end; panics with its words unless it exits with 0.
pub fn gammaray<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let args: Vec<OsString> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
    let out = output(BINARY, &args);
    assert!(out.status.success(), "gammaray {args:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("gammaray prints UTF-8")
}

/// `gammaray ls -R --json --hash IMAGE`.
pub fn listing(image: &Path) -> Listing {
    let text = gammaray([OsStr::new("ls"), "-R".as_ref(), "--json".as_ref(), "--hash".as_ref(), image.as_ref()]);
    parse_listing(&text).unwrap_or_else(|e| panic!("gammaray ls: {e}"))
}

/// How the guest reaches the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// A file, to be made a block device by a loop device.
    File,
    /// A block device.
    Ublk,
}

/// `gammaray attach`, running.
pub struct Attach {
    child: Option<Child>,
    watchdog: Option<Sender<()>>,
    via: Via,
    /// The disk as the guest sees it.
    pub disk: PathBuf,
    /// Where the events go.
    pub events: PathBuf,
    /// The live view, if asked for.
    pub view: Option<PathBuf>,
    export: PathBuf,
    log: PathBuf,
}

impl Attach {
    /// Serve `image` as a file; everything else it needs is made in `scratch`.
    pub fn start(image: &Path, scratch: &Path, with_view: bool, more: &[&str]) -> Self {
        Self::start_via(Via::File, image, scratch, with_view, more)
    }

    /// The same, in one way or the other.
    pub fn start_via(via: Via, image: &Path, scratch: &Path, with_view: bool, more: &[&str]) -> Self {
        let dir = |name: &str| {
            let dir = scratch.join(name);
            std::fs::create_dir_all(&dir).unwrap();
            dir
        };
        let export = dir("export");
        let mut this = Self {
            child: None,
            watchdog: None,
            via,
            disk: export.join(image.file_name().unwrap()),
            events: scratch.join("events.jsonl"),
            view: with_view.then(|| dir("view")),
            export,
            log: scratch.join("gammaray.log"),
        };
        let child = this.command(image, more).spawn().unwrap();
        this.watchdog = Some(watch(&child));
        this.child = Some(child);
        this.wait_until_up(std::fs::metadata(image).unwrap().len());
        this
    }

    fn command(&self, image: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("attach").arg(image).args(["--vm", "testvm"]);
        match self.via {
            Via::File => command.args(["--via", "file", "--export"]).arg(&self.export),
            Via::Ublk => command.args(["--via", "ublk"]),
        };
        command.arg("--events").arg(&self.events).args(more);
        if let Some(view) = &self.view {
            command.arg("--mount").arg(view);
        }
        let log = File::create(&self.log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    fn wait_until_up(&mut self, size: u64) {
        let start = Instant::now();
        while !self.is_up(size) {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().unwrap());
            assert!(ended.is_none(), "gammaray attach ended: {ended:?}\n{}", self.log());
            assert!(start.elapsed() < LONGEST_START, "gammaray attach does not get up\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_up(&mut self, size: u64) -> bool {
        let viewed = self.view.is_none() || self.is_viewed();
        viewed
            && match self.via {
                Via::File => std::fs::metadata(&self.disk).is_ok_and(|m| m.len() == size),
                Via::Ublk => self.named_device().inspect(|d| self.disk.clone_from(d)).is_some(),
            }
    }

    /// The block device that it said it serves, once that is there.
    fn named_device(&self) -> Option<PathBuf> {
        let log = self.log();
        let device = log.lines().find_map(|l| Some(PathBuf::from(l.split_once(" is served at ")?.1)))?;
        device.exists().then_some(device)
    }

    /// Whether something is mounted where the view should be.
    fn is_viewed(&self) -> bool {
        let device = |p: &Path| rustix::fs::stat(p).map(|s| s.st_dev).ok();
        self.view.as_deref().is_some_and(|v| device(v).is_some() && device(v) != v.parent().and_then(device))
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Where it says so.
    pub fn log_file(&self) -> PathBuf {
        self.log.clone()
    }

    /// Stop as Ctrl-C would; it must end well and leave no mount behind.
    pub fn stop(mut self) {
        let mut child = self.child.take().expect("runs until it is stopped or dropped");
        terminate(&child);
        let start = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() > LONGEST_STOP => {
                    self.child = Some(child);
                    panic!("gammaray attach does not stop\n{}", self.log());
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert!(status.success(), "gammaray attach: {status}\n{}", self.log());
        assert!(!self.disk.exists(), "the exported disk is still there after the end");
        assert!(!self.is_viewed(), "the view is still mounted after the end");
    }
}

impl Drop for Attach {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            terminate(&child);
            std::thread::sleep(Duration::from_secs(1));
            // Ended by itself or not: both calls may fail, and nothing is left to be done then.
            let _ = child.kill();
            let _ = child.wait();
            eprintln!("gammaray said: {}", self.log());
        }
        for dir in [Some(&self.export), self.view.as_ref()].into_iter().flatten() {
            let out = output("umount", [OsStr::new("-l"), dir.as_os_str()]);
            if out.status.success() {
                eprintln!("a mount was left behind: {}{}", dir.display(), all(&out));
            }
        }
    }
}

/// Ask it to end, as Ctrl-C would.
pub fn terminate(child: &Child) {
    let pid = Pid::from_raw(child.id() as i32).expect("a child's id is not 0");
    // It may have ended by itself just now.
    let _ = kill_process(pid, Signal::TERM);
}

/// End the child when it lives too long; dropping the sender calls the watchdog off.
fn watch(child: &Child) -> Sender<()> {
    let (sender, receiver) = channel::<()>();
    let pid = Pid::from_raw(child.id() as i32).expect("a child's id is not 0");
    std::thread::spawn(move || {
        if receiver.recv_timeout(LONGEST_LIFE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("gammaray attach runs for too long and is killed");
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    sender
}
