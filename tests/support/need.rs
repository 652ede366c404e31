//! Skipping out loud: a test that lacks something says so, and fails where nothing may be lacking.

use std::path::{Path, PathBuf};

/// Return from the test, with a line on stderr, unless the host offers all that is named:
/// `root`, `fuse`, `loop`, or a program as a string literal.
#[macro_export]
macro_rules! need {
    ($($what:tt),+) => {
        if let Some(reason) = [$($crate::support::need::missing(stringify!($what))),+].into_iter().flatten().next() {
            $crate::support::need::skip(&reason);
            return;
        }
    };
}

/// Why `what` cannot be used here, if so.
pub fn missing(what: &str) -> Option<String> {
    match what.trim_matches('"') {
        "root" => (!rustix::process::geteuid().is_root()).then(|| "needs root".into()),
        "fuse" => std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .err()
            .map(|e| format!("/dev/fuse: {e}")),
        "loop" => (!Path::new("/dev/loop-control").exists()).then(|| "no /dev/loop-control".into()),
        program => find_program(program).is_none().then(|| format!("no program `{program}`")),
    }
}

/// Say that the running test is skipped; where everything should be there (CI), fail it.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    assert!(std::env::var_os("CI").is_none(), "{test} may not be skipped in CI: {reason}");
    eprintln!("SKIP {test}: {reason}");
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|p| p.is_file())
}
