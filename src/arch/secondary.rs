//! The other CPUs: started one after the other, until each says that it is up.
//!
//! Not here: what they do then (`run`).

use core::arch::asm;
use core::cell::UnsafeCell;

use aarch64_cpu::registers::{CNTFRQ_EL0, Readable};
use trapeze::addr::{Pa, Region};
use trapeze::ids::PcpuId;
use trapeze::platform::board::{Board, Cpu, EnableMethod};

use super::mmu::El2Map;
use super::monitor::Monitor;
use super::percpu::CPU_AREAS;
use super::start::SecondaryBlock;
use super::{boot, memory, power, run, timer};

/// How long a CPU may take to come up, in seconds.
const PATIENCE_SECONDS: u64 = 1;

/// An affinity that no CPU has.
const NOBODY: u64 = u64::MAX;

#[repr(transparent)]
struct Block(UnsafeCell<SecondaryBlock>);

// SAFETY: the boot CPU writes it while no other CPU starts; a starting CPU only reads it.
unsafe impl Sync for Block {}

#[unsafe(export_name = "secondary_block")]
static BLOCK: Block = Block(UnsafeCell::new(SecondaryBlock {
    affinity: NOBODY,
    mair_el2: 0,
    tcr_el2: 0,
    ttbr0_el2: 0,
    sctlr_el2: 0,
    stack_top: 0,
    number: 0,
    monitor: 0,
}));

unsafe extern "C" {
    fn secondary_start();
}

/// Starts every CPU of the board but this one. One that does not come up is reported and left out.
pub fn start_all(board: &Board, map: &El2Map, monitor: &'static Monitor) {
    for (number, cpu) in boot::cpus(board).iter().enumerate().skip(1) {
        publish_block(number, cpu, map, monitor);
        let entry = secondary_start as *const () as u64;
        let started = match (cpu.enable, board.psci) {
            (EnableMethod::Psci, Some(conduit)) => {
                power::start_by_psci(conduit, cpu.affinity.to_mpidr(), entry)
            }
            (EnableMethod::SpinTable { release }, _) => {
                // SAFETY: the board's tree names the word; `boot::claim_memory` mapped it.
                unsafe { power::start_by_spin_table(release, entry) };
                Ok(())
            }
            _ => continue,
        };
        let name = cpu.affinity.to_mpidr();
        if let Err(code) = started {
            log::warn!("CPU {name:#x} does not start: the firmware's PSCI says {code}");
        } else if !comes_up(monitor, PcpuId(number as u8)) {
            log::warn!(
                "CPU {name:#x} does not start: it was released and has said nothing for {PATIENCE_SECONDS} s"
            );
        }
    }
}

fn publish_block(number: usize, cpu: &Cpu, map: &El2Map, monitor: &'static Monitor) {
    let regime = map.regime();
    let block = SecondaryBlock {
        affinity: cpu.affinity.to_mpidr(),
        mair_el2: regime.mair_el2,
        tcr_el2: regime.tcr_el2,
        ttbr0_el2: regime.ttbr0_el2,
        sctlr_el2: regime.sctlr_el2,
        stack_top: CPU_AREAS[number].stack_top(),
        number: number as u64,
        monitor: core::ptr::from_ref(monitor).expose_provenance() as u64,
    };
    // A CPU that was given up may be reading the block. It looks at the affinity last: so that goes first.
    // SAFETY: a place in the block, which is a static.
    let affinity = unsafe { &raw mut (*BLOCK.0.get()).affinity };
    // SAFETY: only this CPU writes the block; one that finds this number stays out.
    unsafe { affinity.write_volatile(NOBODY) };
    clean_block();
    // SAFETY: the CPU started before has come up or was given up: it finds another affinity and stays out.
    unsafe { BLOCK.0.get().write_volatile(block) };
    clean_block();
}

/// Makes the block visible to a CPU that reads it with its MMU off.
fn clean_block() {
    let bytes = size_of::<SecondaryBlock>() as u64;
    if let Some(region) = Region::<Pa>::new(Pa::new(BLOCK.0.get().addr() as u64), bytes) {
        memory::clean_invalidate(region);
    }
}

fn comes_up(monitor: &Monitor, pcpu: PcpuId) -> bool {
    let deadline = timer::now().0 + CNTFRQ_EL0.get() * PATIENCE_SECONDS;
    while timer::now().0 < deadline {
        if monitor.cpus.up().contains(pcpu) {
            return true;
        }
        // SAFETY: a hint: that another one should go on, where CPUs share something.
        unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) }
    }
    false
}

/// A further CPU comes here with its MMU on, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn secondary_cpu_entry(number: u64, monitor: u64) -> ! {
    // SAFETY: `publish_block` put the address of a `&'static Monitor` there and exposed it.
    let monitor = unsafe { &*core::ptr::with_exposed_provenance::<Monitor>(monitor as usize) };
    let cpu = boot::make_cpu(monitor, number as usize);
    run::enter(cpu)
}
