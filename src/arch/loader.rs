//! The loader: a bundle over the console, before any VM starts.
//!
//! Not here: the protocol (the library's `ymodem`).

use aarch64_cpu::registers::{CNTFRQ_EL0, Readable};
use trapeze::addr::{PAGE_BYTES, Pa, Region};
use trapeze::platform::board::Board;
use trapeze::platform::ymodem::{Outcome, Receiver};

use super::monitor::Monitor;
use super::{boot, console, memory, power, timer};

/// Offers to receive a bundle into `room`, free RAM, if the boot arguments have `trapeze.loader`, or
/// `trapeze.loader=SECONDS` for an offer that ends; gives VMs what the bundle does not take.
///
/// Returns the bundle to start: `bundle` is the one that is there. A machine that has offered comes back when its VMs
/// have ended.
pub fn offer(
    board: &Board,
    monitor: &Monitor,
    room: Region<Pa>,
    bundle: Option<&'static mut [u8]>,
) -> Option<&'static mut [u8]> {
    let received = board.argument("trapeze.loader").and_then(|seconds| {
        power::come_back();
        receive(room, seconds.parse().ok()).and_then(|length| Region::<Pa>::new(room.start, length as u64))
    });
    let taken = received.map_or(0, |bundle| bundle.size_bytes.next_multiple_of(PAGE_BYTES));
    if let Some(rest) = boot::without(room, taken) {
        boot::add_free(&mut monitor.frames.lock(), rest);
    }
    match received {
        // SAFETY: RAM that is mapped, and that nobody else has: these pages of `room` go to no VM.
        Some(received) => Some(unsafe { memory::bytes(received) }),
        None => bundle,
    }
}

/// Offers until a bundle is there, whose length it returns, or none is wanted.
fn receive(room: Region<Pa>, seconds: Option<u32>) -> Option<usize> {
    loop {
        log::info!(
            "loader: send a bundle by YMODEM (sb bundle.itb), or press Enter for the one that is there"
        );
        // SAFETY: the region is RAM that is mapped, and nobody else has it.
        let memory = unsafe { memory::bytes(room) };
        let mut receiver = Receiver::new(memory, CNTFRQ_EL0.get(), timer::now(), seconds);
        match outcome(&mut receiver) {
            Outcome::Received(length) => {
                log::info!("loader: {length} bytes received");
                return Some(length);
            }
            Outcome::Declined => return None,
            Outcome::Failed(failure) => log::error!("loader: {failure}"),
        }
    }
}

fn outcome(receiver: &mut Receiver<'_>) -> Outcome {
    loop {
        let step = receiver.take(console::get(), timer::now());
        step.reply.iter().copied().for_each(console::put);
        if let Some(outcome) = step.outcome {
            return outcome;
        }
    }
}
