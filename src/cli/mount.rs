//! `gammaray mount`: the read-only view of an image at rest.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::signals::Signals;
use super::{Failure, ImageArgs};
use crate::config::Target;
use crate::view::View;

/// How often to look whether somebody has unmounted the view.
const LOOK: Duration = Duration::from_millis(300);

/// Arguments of `mount`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gammaray mount disk.raw /mnt/guest\n  gammaray mount --offset 1048576 disk.raw /mnt/guest\n\n\
    Runs until Ctrl-C, SIGTERM, or `umount DIR`."
)]
pub struct MountArgs {
    /// The image.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Directory to show the files at.
    pub dir: PathBuf,
}

/// Run it until somebody asks for its end or unmounts it.
pub fn run(args: &MountArgs) -> Result<(), Failure> {
    let guest = Arc::new(Target::open(&args.image)?.into_guest());
    let signals = Signals::catch()?;
    let view = View::mount(guest, &args.dir).map_err(Failure::line)?;
    tracing::info!("{} is shown at {}", args.image.image.display(), view.dir().display());
    while !view.has_ended() && !signals.came_within(LOOK) {}
    view.stop();
    Ok(())
}
