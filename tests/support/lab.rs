//! Tests on a Debian kernel in the lab VM (`scripts/vm`): this host's kernel may lack what they need.
//! The VM runs the same test program again, with the tests that are ignored on the host. Where the
//! VM can't be had the test is skipped, out loud.

use std::path::Path;
use std::process::Command;

use super::disk::all;
use super::need;

/// What `scripts/vm` exits with where there can be no VM.
const NO_VM: i32 = 77;
/// Set in the VM.
const IN_LAB: &str = "GAMMARAY_IN_LAB";

/// Run the tests whose names start with `inside_the_vm`, for at most `seconds`.
pub fn run_inside(seconds: u32) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(root.join("scripts/vm"))
        .args(["-t", &seconds.to_string(), "-d", "1024", "--", "env"])
        .args([&format!("{IN_LAB}=1"), "CI=true", "GAMMARAY_OPERATIONS=1500", "GAMMARAY_ROUNDS=2", "RUST_BACKTRACE=0"])
        .arg(root.join("tests/lab-guest"))
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--test-threads=1", "inside_the_vm"])
        .output()
        .unwrap();
    if out.status.code() == Some(NO_VM) {
        return need::skip(String::from_utf8_lossy(&out.stderr).trim());
    }
    assert!(out.status.success(), "in the lab VM: {}\n{}", out.status, all(&out));
    print!("{}", all(&out));
}

/// Whether this runs in the lab VM; says so if not.
pub fn is_here() -> bool {
    let is = std::env::var_os(IN_LAB).is_some();
    if !is {
        eprintln!("SKIP: the lab VM runs this");
    }
    is
}
