//! The four tools, running.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::server::Server;

const LONG: Duration = Duration::from_secs(60);

pub fn program(name: &str) -> &'static str {
    match name {
        "gray-crawler" => env!("CARGO_BIN_EXE_gray-crawler"),
        "gray-ndb-queuer" => env!("CARGO_BIN_EXE_gray-ndb-queuer"),
        "gray-inferencer" => env!("CARGO_BIN_EXE_gray-inferencer"),
        "gray-fs" => env!("CARGO_BIN_EXE_gray-fs"),
        _ => env!("CARGO_BIN_EXE_gammaray"),
    }
}

/// One of them, in its folder; ended when dropped.
pub struct Tool {
    child: Child,
    log: PathBuf,
}

impl Tool {
    pub fn start<S: AsRef<OsStr>>(
        dir: &Path,
        server: Option<&Server>,
        name: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(program(name));
        command
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        if let Some(server) = server {
            command.env("GAMMARAY_REDIS", server.url());
        }
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Until it ends by itself.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(start.elapsed() < LONG, "it does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// End it as Ctrl-C would.
    pub fn stop(self) -> (ExitStatus, String) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        self.wait()
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Run one to its end: whether it ended well, and what it said on stderr.
pub fn say(dir: &Path, name: &str, args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(program(name))
        .args(args)
        .current_dir(dir)
        .env("GAMMARAY_REDIS", "redis://127.0.0.1:1")
        .output()
        .unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Wait until something is true.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < LONG, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
