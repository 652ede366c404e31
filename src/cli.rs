//! The command line: what was typed. What it means is in [`crate::config`]; each subcommand is a module.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod attach;
pub mod cat;
pub mod crawl;
pub mod doctor;
pub mod failure;
pub mod follow;
mod human;
pub mod ls;
pub mod mount;
mod output;
pub(crate) mod quantity;
pub mod replay;
pub(crate) mod signals;
pub mod sinks;
pub mod stat;
pub mod usn;
pub mod volumes;

pub use failure::{Failure, Stop};

/// Tells from outside a virtual machine what happens to the files inside it.
#[derive(Parser, Debug)]
#[command(name = "gammaray", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more on stderr; twice for details of every transaction.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Which log messages to show, such as `gammaray::engine=debug` (overrides -v).
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Tell the file events of a recorded stream of writes.
    Replay(replay::ReplayArgs),
    /// Write an index of all files of a disk.
    Crawl(crawl::CrawlArgs),
    /// Serve a disk to a guest, follow what it writes, and say what happens to its files.
    Attach(attach::AttachArgs),
    /// Print the events of a running `attach` that Redis has.
    Follow(follow::FollowArgs),
    /// List what lies where on an image.
    Volumes(volumes::VolumesArgs),
    /// List a directory of an image.
    Ls(ls::LsArgs),
    /// Write a file's content to stdout.
    Cat(cat::CatArgs),
    /// Show all that is known about a file.
    Stat(stat::StatArgs),
    /// List what Windows noted of changes in the journals of NTFS volumes.
    Usn(usn::UsnArgs),
    /// Show the files of an image at rest as a read-only file system.
    Mount(mount::MountArgs),
    /// Say what this host offers, and how to get what is missing.
    Doctor(doctor::DoctorArgs),
}

/// The image of commands that look into one.
#[derive(Args, Debug, Clone)]
pub struct ImageArgs {
    /// Byte at which a file system starts, whatever the partition table says.
    #[arg(long, value_name = "BYTES")]
    pub offset: Option<u64>,
    /// Raw disk image or block device.
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
}

/// Whose bytes `write` events carry.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadArg {
    /// None.
    #[default]
    None,
    /// As they stand on the disk when the event is emitted.
    Disk,
    /// Exactly those that were written (attach keeps a copy of what is written in TMPDIR).
    Exact,
}

/// Send log messages to stderr: warnings, or more with a higher `verbose`.
pub(crate) fn start_log(verbose: u8) -> Result<(), Failure> {
    output::start_log(verbose, None)
}

/// Parse `args` and do what they say.
///
/// Errors: usage (exit 2), help (exit 0), or one line about what failed (exit 1).
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), Stop> {
    let cli = Cli::try_parse_from(args)?;
    output::start_log(cli.verbose, cli.log.as_deref())?;
    let done = match cli.command {
        Command::Replay(a) => replay::run(&a),
        Command::Crawl(a) => crawl::run(&a),
        Command::Attach(a) => attach::run(&a),
        Command::Follow(a) => follow::run(&a),
        Command::Volumes(a) => volumes::run(&a),
        Command::Ls(a) => ls::run(&a),
        Command::Cat(a) => cat::run(&a),
        Command::Stat(a) => stat::run(&a),
        Command::Usn(a) => usn::run(&a),
        Command::Mount(a) => mount::run(&a),
        Command::Doctor(a) => doctor::run(&a),
    };
    Ok(done?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for c in super::Cli::command().get_subcommands() {
            let help = c.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has no examples", c.get_name());
        }
    }
}
