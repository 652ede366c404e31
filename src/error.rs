//! What can go wrong with a disk. Three kinds that must not be confused: the disk contradicts
//! itself ([`Error::Corrupt`]), it uses something we do not read ([`Error::Unsupported`]), or the
//! host could not read it ([`Error::Io`]).

use std::io;

/// The result of anything that reads a disk.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error while reading a disk, with its position.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes on disk contradict the format.
    #[error("{what} at byte {at}: expected {expected}, found {found}")]
    Corrupt {
        /// The structure or field.
        what: &'static str,
        /// Byte offset on the volume.
        at: u64,
        /// What the format asks for.
        expected: String,
        /// What stood there.
        found: String,
    },
    /// Well-formed, but of a kind that we do not read.
    #[error("{what} at byte {at} is not supported")]
    Unsupported {
        /// The feature or structure.
        what: String,
        /// Byte offset on the volume.
        at: u64,
    },
    /// The host could not read the image.
    #[error("{what} at byte {at}: {source}")]
    Io {
        /// What was being read.
        what: &'static str,
        /// Byte offset on the image.
        at: u64,
        /// The host's error.
        source: io::Error,
    },
    /// No such file, directory or extended attribute in the guest.
    #[error("no such file or directory")]
    NotFound,
    /// A directory was asked for and something else found.
    #[error("not a directory")]
    NotADirectory,
    /// A file's content was asked of a directory.
    #[error("is a directory")]
    IsADirectory,
    /// A symbolic link was asked for and something else found.
    #[error("not a symbolic link")]
    NotASymlink,
}

impl Error {
    /// A contradiction in `what` at volume byte `at`.
    pub fn corrupt(what: &'static str, at: u64, expected: impl ToString, found: impl ToString) -> Self {
        Self::Corrupt { what, at, expected: expected.to_string(), found: found.to_string() }
    }
}
