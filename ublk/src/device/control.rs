//! A device's life, on one thread: add, start its queues, start it, wait, stop, delete. Every way
//! out of here removes the device.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use libublk::ctrl::{UblkCtrl, UblkCtrlBuilder};
use libublk::io::UblkDev;
use libublk::{UblkError, UblkFlags, sys};
use nix::libc;

use super::params::params;
use super::{Error, Message, Options};
use crate::backing::Backing;
use crate::queue::{Image, Queue, Shared, Transfer};
use crate::request::Geometry;
use crate::sys as host;
use crate::tap::Tap;

/// Threads beyond this only take CPUs from the guest.
const MOST_QUEUES: u16 = 4;

pub struct Setup {
    pub backing: Arc<Backing>,
    pub tap: Arc<dyn Tap>,
    pub options: Options,
    pub ask: Sender<Message>,
}

/// Serve from beginning to end. `started` gets the device's number once it exists.
pub fn run(setup: Setup, messages: &Receiver<Message>, started: &Sender<u32>) -> Result<(), Error> {
    host::block_signals();
    let transfer = transfer(&setup);
    let ctrl = add(&setup).map_err(driver("add a device"))?;
    let geometry = geometry(&setup, &ctrl);
    let served = serve(&setup, &ctrl, geometry, transfer, messages, started);
    remove(&ctrl);
    served
}

fn transfer(setup: &Setup) -> Transfer {
    let mappable = setup.options.map_memory && setup.backing.is_in_memory();
    let image = mappable.then(|| Image::new(setup.backing.as_raw_fd(), setup.backing.size()).ok()).flatten();
    image.map_or(Transfer::Copy, |i| Transfer::Mapped(Arc::new(i)))
}

fn add(setup: &Setup) -> Result<UblkCtrl, UblkError> {
    let cpus = std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(MOST_QUEUES));
    UblkCtrlBuilder::default()
        .name("gammaray")
        .nr_queues(setup.options.queues.unwrap_or(cpus.min(MOST_QUEUES)).max(1))
        .depth(setup.options.depth.max(1))
        .io_buf_bytes(setup.options.max_io)
        .ctrl_flags(sys::UBLK_F_USER_COPY.into())
        .dev_flags(UblkFlags::UBLK_DEV_F_ADD_DEV)
        .build()
}

/// What the driver made of our wishes.
fn geometry(setup: &Setup, ctrl: &UblkCtrl) -> Geometry {
    let block = setup.backing.logical_block();
    let size = setup.backing.size() - setup.backing.size() % u64::from(block);
    Geometry { size, block, max_io: ctrl.dev_info().max_io_buf_bytes }
}

fn serve(
    setup: &Setup,
    ctrl: &UblkCtrl,
    geometry: Geometry,
    transfer: Transfer,
    messages: &Receiver<Message>,
    started: &Sender<u32>,
) -> Result<(), Error> {
    let describe = |dev: &mut UblkDev| {
        dev.tgt.dev_size = geometry.size;
        dev.tgt.params = params(&geometry);
        Ok(())
    };
    let dev = UblkDev::new(ctrl.get_name(), describe, ctrl).map_err(driver("open the character device"))?;
    let info = ctrl.dev_info();
    let shared = Shared {
        backing: setup.backing.clone(),
        tap: setup.tap.clone(),
        geometry,
        transfer,
        device: *dev.tgt.fds.first().unwrap_or(&-1),
        depth: info.queue_depth,
    };
    let mut threads = Vec::new();
    let served = start_queues(setup, ctrl, &shared, info.nr_hw_queues, &mut threads)
        .and_then(|()| ctrl.start_dev(&dev).map_err(driver("start the device")))
        .and_then(|_| {
            // Nobody waits for it: then the caller is gone, and so will the device be.
            let _ = started.send(info.dev_id);
            wait(messages)
        });
    if let Err(e) = ctrl.kill_dev() {
        tracing::debug!("stop: {e}");
    }
    // The queues' threads use the character device and the rings that point to it: `dev` goes last.
    for thread in threads {
        let _ = thread.join();
    }
    drop(dev);
    served
}

/// Start a thread per queue and wait until each has asked for its first requests.
fn start_queues(
    setup: &Setup,
    ctrl: &UblkCtrl,
    shared: &Shared,
    queues: u16,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<(), Error> {
    for queue in 0..queues {
        let failed = |why: io::Error| Error::Queue { queue, why: why.to_string() };
        let (ready, answer) = channel();
        let (shared, ask, scan) = (shared.clone(), setup.ask.clone(), setup.options.scan_partitions);
        let thread = std::thread::Builder::new()
            .name(format!("ublk-queue-{queue}"))
            .spawn(move || run_queue(queue, shared, scan, &ready, &ask))
            .map_err(failed)?;
        threads.push(thread);
        let tid = answer.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(failed)?;
        // On the CPUs whose requests it serves.
        ctrl.set_thread_affinity(queue, tid);
    }
    Ok(())
}

fn run_queue(
    number: u16,
    shared: Shared,
    scan_partitions: bool,
    ready: &Sender<io::Result<libc::pid_t>>,
    ask: &Sender<Message>,
) {
    host::become_io_flusher();
    // The driver scans for partitions only if all who serve the disk could mount it (ublk_drv.c,
    // GD_SUPPRESS_PART_SCAN): the one switch that every version of it has.
    let allowed = if scan_partitions { Ok(()) } else { host::drop_sys_admin() };
    let queue = match allowed.and_then(|()| Queue::new(number, shared)) {
        Ok(queue) => queue,
        Err(e) => return ready.send(Err(e)).unwrap_or_default(),
    };
    let _ = ready.send(Ok(host::thread_id()));
    // A panic must not leave a device that nobody serves.
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| queue.run()));
    let result = run.map_or_else(|_| Err("panicked".into()), |r| r.map_err(|e| e.to_string()));
    let _ = ask.send(Message::Ended { queue: number, result });
}

/// Until somebody wants the end, or it comes.
fn wait(messages: &Receiver<Message>) -> Result<(), Error> {
    match messages.recv() {
        Ok(Message::Stop) | Err(_) => Ok(()),
        Ok(Message::Ended { result: Ok(()), .. }) => Err(Error::Removed),
        Ok(Message::Ended { queue, result: Err(why) }) => Err(Error::Queue { queue, why }),
    }
}

/// Delete the device. Not waiting for those who still hold it open: the node is gone, and they get
/// errors. Older drivers can only wait.
fn remove(ctrl: &UblkCtrl) {
    if ctrl.del_dev_async().is_err()
        && let Err(e) = ctrl.del_dev()
    {
        // Somebody else was faster.
        tracing::debug!("delete: {e}");
    }
}

fn driver(step: &'static str) -> impl Fn(UblkError) -> Error {
    move |e| {
        let why = match e {
            UblkError::UringIOError(n) | UblkError::OtherError(n) => io::Error::from_raw_os_error(-n).to_string(),
            other => other.to_string(),
        };
        Error::Driver { step, why }
    }
}
