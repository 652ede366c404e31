//! Where output goes: results to stdout, the log to stderr.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use tracing_subscriber::EnvFilter;

use super::Failure;

const BUFFER: usize = 64 << 10;

/// Buffered stdout whose errors become failures.
pub struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    /// Lock stdout.
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(BUFFER, io::stdout().lock()))
    }

    /// Flush what is left. To drop an `Out` without this may lose output silently.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.0.flush().map_err(|e| lost(&e))
    }
}

impl Write for Out {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Stdout cannot be written.
pub fn lost(why: &io::Error) -> Failure {
    Failure::output("stdout", why)
}

/// Write `value` as one line of JSON.
pub fn json_line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Send log messages to stderr: warnings, or more with `-v`, or what `filter` says.
pub fn start_log(verbose: u8, filter: Option<&str>) -> Result<(), Failure> {
    let default = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_new(filter.unwrap_or(default))
        .map_err(|e| Failure::new("cannot understand the log filter", e, "write it like gammaray=debug"))?;
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .try_init();
    // Already started only when a test runs several commands in one process.
    drop(started);
    Ok(())
}
