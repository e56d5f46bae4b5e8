//! A guest kernel of a few KiB that shows each thing a VM must give: a console, a clock, an interrupt, CPUs, an end.
//!
//! It is not a test suite: it says what it sees, one line each, and powers the machine off. The machine is QEMU's `virt`
//! at EL1 with the MMU off, bare or under Trapeze; `machine.rs` holds all that touches it.
//!
//! Follows Arm DEN 0022F (PSCI), Arm IHI 0048B.b and IHI 0069H (GIC), and the arm64 Linux boot protocol.
#![no_std]
#![no_main]

mod console;
mod gic;
mod machine;

use console::Line;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use gic::Gic;
use machine::Affinity;

/// CPUs that this guest knows how to start: it has a stack for each.
const MAX_CPUS: u64 = 8;
/// INTID of the EL1 virtual timer: PPI 11 (Arm BSA).
const VIRTUAL_TIMER: u32 = 27;

/// INTID of the last interrupt taken plus one, 0 before the first.
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// Bit n is set by CPU n when it runs.
static RUNNING: AtomicU32 = AtomicU32::new(1);
/// Exceptions so far that nothing should have caused.
static EXCEPTIONS: AtomicU32 = AtomicU32::new(0);

/// Runs on the boot CPU after reset.
#[unsafe(no_mangle)]
extern "C" fn primary() -> ! {
    Line::new().text("Hello from EL").decimal(machine::current_el()).text("!").end();
    Line::new().text("CPU: MIDR_EL1 ").hex(machine::midr()).text(", MPIDR_EL1 ").hex(machine::mpidr()).end();
    clock_advances();
    timer_interrupt_arrives();
    let cpus = start_the_others();
    Line::new().text("CPUs: ").decimal(cpus).text(" online").end();
    Line::new().text("Goodbye").end();
    machine::power_off()
}

/// Says whether the virtual counter moves.
fn clock_advances() {
    let before = machine::ticks();
    let advanced = (0..1_000_000).any(|_| machine::ticks() > before);
    let verdict = if advanced { " Hz, advances" } else { " Hz, STANDS STILL" };
    Line::new().text("Clock: ").decimal(machine::ticks_per_second()).text(verdict).end();
}

/// Arms the virtual timer 1 ms ahead and sleeps until its interrupt has been taken.
fn timer_interrupt_arrives() {
    let gic = Gic::detect();
    gic.enable(VIRTUAL_TIMER);
    let deadline = machine::ticks().wrapping_add(machine::ticks_per_second() / 1000);
    machine::arm_timer(deadline);
    let patience = deadline.wrapping_add(machine::ticks_per_second());
    while TAKEN.load(Relaxed) == 0 && machine::ticks() < patience {
        machine::wait_for_interrupt();
    }
    let line = Line::new().text("Interrupts: GICv").decimal(gic.version());
    match TAKEN.load(Relaxed) {
        0 => line.text(", NO timer interrupt").end(),
        taken => line.text(", timer interrupt taken, INTID ").decimal(u64::from(taken - 1)).end(),
    }
}

/// Acknowledges and ends one interrupt; called from the IRQ vector.
#[unsafe(no_mangle)]
extern "C" fn interrupt() {
    let gic = Gic::detect();
    let intid = gic.acknowledge();
    if intid == VIRTUAL_TIMER {
        machine::disarm_timer();
    }
    TAKEN.store(intid.wrapping_add(1), Relaxed);
    gic.end(intid);
}

/// Starts every CPU that PSCI says is there and off; returns how many run, this one included.
fn start_the_others() -> u64 {
    let mut running = 1;
    for cpu in 1..MAX_CPUS {
        if machine::affinity_info(cpu) != Affinity::Off {
            continue;
        }
        let answer = machine::cpu_on(cpu);
        let patience = machine::ticks().wrapping_add(machine::ticks_per_second());
        while answer == 0 && RUNNING.load(Relaxed) & (1 << cpu) == 0 && machine::ticks() < patience {}
        if RUNNING.load(Relaxed) & (1 << cpu) == 0 {
            Line::new().text("CPU ").decimal(cpu).text(": DID NOT START, CPU_ON said ").hex(answer).end();
        } else {
            running += 1;
        }
    }
    running
}

/// Runs on the other CPUs: says so in memory and powers the CPU off again. One at a time: no atomic update needed.
#[unsafe(no_mangle)]
extern "C" fn secondary(cpu: u64) -> ! {
    RUNNING.store(RUNNING.load(Relaxed) | (1 << cpu), Relaxed);
    machine::cpu_off()
}

/// Reports an exception nothing here should cause, and powers off. The second may be the HVC of that, the third the SMC.
#[unsafe(no_mangle)]
extern "C" fn exception(esr: u64, elr: u64, far: u64) -> ! {
    let earlier = EXCEPTIONS.load(Relaxed);
    EXCEPTIONS.store(earlier.saturating_add(1), Relaxed);
    if earlier == 0 {
        Line::new()
            .text("EXCEPTION: ESR_EL1 ")
            .hex(esr)
            .text(", ELR_EL1 ")
            .hex(elr)
            .text(", FAR_EL1 ")
            .hex(far)
            .end();
    }
    match earlier {
        0 => machine::power_off(),
        1 => machine::power_off_by_smc(),
        _ => machine::sleep_forever(),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    Line::new().text("PANIC").end();
    machine::power_off()
}
