//! Taking interrupts: a handler that writes down what it acknowledged, silences the source and ends the interrupt.

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use trapeze_kit::console::UART;
use trapeze_kit::cpu::{self, MAX_CPUS};
use trapeze_kit::exception::{self, Frame};
use trapeze_kit::gic::Gic;
use trapeze_kit::timer::{self, ENABLE, IMASK, Timer};
use trapeze_kit::{ins, mmio, msr};

const LOG_LENGTH: usize = 64;
/// INTID of the PL011.
pub const UART_INTID: u32 = 33;
/// INTID of the performance monitors' overflow: PPI 7.
pub const PMU_INTID: u32 = 23;
const UART_IMSC: u64 = UART + 0x38;
/// Bits of the INTID in what was acknowledged.
pub const INTID: u32 = 0xff_ffff;

/// What a CPU has taken since [`listen`].
struct Log {
    count: AtomicUsize,
    acknowledged: [AtomicU32; LOG_LENGTH],
    vector: AtomicU64,
    interrupted: AtomicU64,
}

static LOGS: [Log; MAX_CPUS] = [const {
    Log {
        count: AtomicUsize::new(0),
        acknowledged: [const { AtomicU32::new(0) }; LOG_LENGTH],
        vector: AtomicU64::new(0),
        interrupted: AtomicU64::new(0),
    }
}; MAX_CPUS];

/// Empties all logs and takes the interrupts of all CPUs from now on.
pub fn listen() {
    LOGS.iter().for_each(|log| log.count.store(0, SeqCst));
    exception::set_interrupt(Some(take));
}

fn take(frame: &mut Frame) {
    let gic = Gic::detect();
    let acknowledged = gic.acknowledge();
    let log = &LOGS[cpu::slot()];
    let count = log.count.load(SeqCst);
    log.acknowledged[count % LOG_LENGTH].store(acknowledged, SeqCst);
    log.vector.store(frame.vector, SeqCst);
    log.interrupted.store(frame.elr, SeqCst);
    log.count.store(count + 1, SeqCst);
    silence(acknowledged & INTID);
    gic.end(acknowledged);
}

/// Ends the request of a level-sensitive source.
pub fn silence(intid: u32) {
    match intid {
        timer::VIRTUAL_INTID => Timer::Virtual.set_control(ENABLE | IMASK),
        timer::PHYSICAL_INTID => Timer::Physical.set_control(ENABLE | IMASK),
        PMU_INTID => msr!("PMINTENCLR_EL1", 0xffff_ffff),
        UART_INTID => mmio::write32(UART_IMSC, 0),
        _ => {}
    }
}

/// Returns how many interrupts `cpu` has taken.
pub fn count_of(cpu: usize) -> usize {
    LOGS[cpu].count.load(SeqCst)
}

/// Returns how many interrupts this CPU has taken.
pub fn count() -> usize {
    count_of(cpu::slot())
}

/// Returns what `cpu` acknowledged as its `index`-th.
pub fn acknowledged_by(cpu: usize, index: usize) -> u32 {
    LOGS[cpu].acknowledged[index % LOG_LENGTH].load(SeqCst)
}

/// Returns what this CPU acknowledged as its `index`-th.
pub fn acknowledged(index: usize) -> u32 {
    acknowledged_by(cpu::slot(), index)
}

/// Returns the vector of this CPU's last interrupt, and the address it interrupted.
pub fn last() -> (u64, u64) {
    let log = &LOGS[cpu::slot()];
    (log.vector.load(SeqCst), log.interrupted.load(SeqCst))
}

/// Lets IRQs in until the condition holds or `limit_ms` milliseconds are over; returns whether it holds.
pub fn open_until(limit_ms: u64, condition: impl FnMut() -> bool) -> bool {
    ins!("msr DAIFClr, #2", "isb");
    let held = timer::within_ms(limit_ms, condition);
    ins!("msr DAIFSet, #2", "isb");
    held
}

/// Lets one interrupt in that is pending already; returns whether one came within two seconds.
pub fn open_for_one() -> bool {
    let before = count();
    open_until(2000, || count() > before)
}

/// Lets IRQs in for `duration_ms` milliseconds and returns how many came.
pub fn open_for(duration_ms: u64) -> usize {
    let before = count();
    open_until(duration_ms, || false);
    count() - before
}
