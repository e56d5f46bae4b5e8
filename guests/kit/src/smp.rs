//! Further CPUs: each runs one function on a stack of its own and powers itself off behind it.

use crate::cpu::{Cpu, MAX_CPUS};
use crate::psci::{self, function, status};
use crate::{cache, mmu, timer};
use core::arch::asm;
use core::sync::atomic::Ordering::SeqCst;

/// What a further CPU runs.
pub type Function = fn(u64);

/// Returns the address that CPU_ON wants; the low 3 bits of the context ID are the slot.
pub fn entry() -> u64 {
    let entry: u64;
    // SAFETY: takes the address of a symbol of start.s, relative to here.
    unsafe {
        asm!("adrp {0}, kit_secondary_start", "add {0}, {0}, :lo12:kit_secondary_start", out(reg) entry,
             options(nomem, nostack, preserves_flags));
    }
    entry
}

/// Prepares slot `slot`, 1 to 7, to run `function` with `argument` and this CPU's MMU settings.
pub fn prepare(slot: usize, function: Function, argument: u64) {
    let cpu = Cpu::of(slot);
    cpu.function.store(function as usize as u64, SeqCst);
    cpu.argument.store(argument, SeqCst);
    cpu.has_finished.store(0, SeqCst);
    cpu.expecting.store(0, SeqCst);
    cpu.el0_frame.store(0, SeqCst);
    cpu.regime.iter().zip(mmu::regime()).for_each(|(word, value)| word.store(value, SeqCst));
    // The CPU reads it with its MMU off.
    cache::clean_invalidate(core::ptr::from_ref(cpu).addr() as u64, size_of::<Cpu>() as u64);
}

/// Starts the CPU with affinity and slot `cpu`, 1 to 7; returns PSCI's answer.
pub fn start(cpu: usize, function: Function, argument: u64) -> i64 {
    prepare(cpu, function, argument);
    psci::psci(function::CPU_ON_64, cpu as u64, entry(), cpu as u64)
}

/// Waits up to 15 seconds until the CPU that [`start`] started has done its work and is off.
///
/// AFFINITY_INFO alone will not do: it may say OFF until the CPU has begun.
pub fn wait_off(cpu: usize) -> bool {
    timer::within_ms(15_000, || Cpu::of(cpu).has_finished.load(SeqCst) != 0 && psci::is_off(cpu as u64))
}

/// Counts the CPUs of the machine, the boot CPU included. The others are to be off or on at affinities 1 to 7.
pub fn present() -> usize {
    (0..MAX_CPUS as u64)
        .take_while(|cpu| {
            let state = psci::psci(function::AFFINITY_INFO_64, *cpu, 0, 0);
            (status::SUCCESS..=2).contains(&state)
        })
        .count()
}

#[unsafe(no_mangle)]
extern "C" fn kit_secondary(slot: u64) -> ! {
    let cpu = Cpu::of(slot as usize);
    let address = cpu.function.load(SeqCst) as usize;
    // SAFETY: `prepare` stored the address of a `Function` before it let this CPU start.
    let function = unsafe { core::mem::transmute::<usize, Function>(address) };
    function(cpu.argument.load(SeqCst));
    cpu.has_finished.store(1, SeqCst);
    psci::cpu_off()
}
