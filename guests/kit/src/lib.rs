//! What a guest kernel needs to begin with, so that each guest is only about what it is for.
//!
//! Not an operating system and not a test framework: a guest calls what it wants and owns the machine. The machine is
//! QEMU's `virt` board at EL1, bare or under Trapeze. `unsafe` and assembly of the guests live here as far as they can.
//!
//! | module | what it gives |
//! |---|---|
//! | [`entry`](entry!) | names the function that runs on the boot CPU, with the address of the device tree |
//! | [`console`] | `println!` on the PL011 |
//! | [`exception`] | handlers, and `catch`: run a closure and be told of the exception it caused |
//! | [`el0`] | runs code at EL0 until it traps |
//! | [`cpu`], [`smp`] | what each CPU has; starting the others |
//! | [`psci`] | SMCCC and PSCI calls by HVC or SMC |
//! | [`gic`] | GICv2 and GICv3, the same functions for both |
//! | [`timer`] | counters and EL1 timers |
//! | [`mmu`], [`cache`] | translation tables with every granule; cache maintenance |
//! | [`fdt`] | boot arguments and the size of RAM |
//! | [`mmio`], [`sysreg`] | `mmio::read32`, `mrs!`, `msr!` |
//!
//! Follows Arm ARM DDI 0487K.a and what the modules name.
#![no_std]

pub mod cache;
pub mod console;
pub mod cpu;
pub mod el0;
pub mod exception;
pub mod fdt;
pub mod gic;
pub mod mmio;
pub mod mmu;
pub mod psci;
pub mod smp;
pub mod sysreg;
pub mod timer;

use core::arch::global_asm;

global_asm!(
    include_str!("start.s"),
    CPU_LOG2 = const cpu::CPU_BYTES_LOG2,
    SCTLR_OFF = const mmu::SCTLR_OFF,
);
global_asm!(include_str!("vectors.s"), FRAME = const size_of::<exception::Frame>());

/// Names the guest's first function, `fn(device_tree: u64) -> !`; it runs on the boot CPU, MMU off, all masked.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn kit_primary(device_tree: u64) -> ! {
            let main: fn(u64) -> ! = $main;
            main(device_tree)
        }
    };
}

/// Says on the console what went wrong and powers the machine off.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("Bail out! {info}");
    psci::power_off()
}
