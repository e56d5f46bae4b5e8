//! Exceptions to EL1: which vector, what the syndrome says, and where it returns to.
//!
//! Follows Arm ARM DDI 0487K.a, D1.3 and D24.2.40 (ESR_EL1).

use crate::harness::{Outcome, Test, check, check_eq, device_tree, device_tree_address, fragment, tests};
use crate::interrupts;
use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::cpu::Cpu;
use trapeze_kit::exception::{self, Exception, Frame, catch};
use trapeze_kit::gic::Gic;
use trapeze_kit::mmu::{SCTLR_OFF, USER};
use trapeze_kit::{el0, ins, mmio, mrs};

pub const TESTS: &[Test] = tests![
    boot_cpu_starts_as_after_reset,
    udf_is_undefined,
    svc_from_el1_goes_to_the_same_level,
    svc_with_sp_el0_goes_to_the_first_vector,
    svc_from_el0_goes_to_the_lower_level,
    brk_reports_its_comment,
    load_from_nowhere_is_a_translation_fault,
    store_to_nowhere_has_wnr,
    jump_to_nowhere_is_an_instruction_abort,
    odd_pc_is_an_alignment_fault,
    el0_abort_is_of_a_lower_level,
    eret_to_el2_is_an_illegal_return,
    vbar_chooses_the_table,
    exception_inside_a_handler_returns_to_it,
    interrupt_from_el0_goes_to_the_lower_level,
    masked_interrupt_is_not_taken,
    el0_reads_no_el1_register,
    hvc_and_smc_from_el0_are_undefined,
];

const EC_UNDEFINED: u64 = 0;
const EC_ILLEGAL: u64 = 0x0e;
const EC_SVC: u64 = 0x15;
const IL: u64 = 1 << 25;
const SPSR_IL: u64 = 1 << 20;
/// An address that no map of the kit has.
const NOWHERE: u64 = 0x20_0000_0000;

/// Returns the exception, or one that nothing matches.
fn of<T>(result: Result<T, Exception>) -> Exception {
    result.err().unwrap_or(Exception { esr: u64::MAX, elr: 0, far: 0, spsr: 0, vector: u64::MAX })
}

fn boot_cpu_starts_as_after_reset() -> Outcome {
    let cpu = Cpu::of(0);
    check!(device_tree().is_some(), "X0 was {:#x}", device_tree_address());
    check!(cpu.started_as_reset(device_tree_address()), "entry state is not that of the boot protocol");
    Ok(())
}

fn udf_is_undefined() -> Outcome {
    let at: u64;
    // SAFETY: the exception is caught and the instruction skipped.
    let seen = catch(|| unsafe {
        let at: u64;
        asm!("adr {0}, 2f", "2: udf #7", out(reg) at);
        at
    });
    let exception = of(seen);
    // SAFETY: as above; finds where the instruction was by a second run of one like it.
    unsafe { asm!("adr {0}, .", out(reg) at) };
    check_eq!(exception.class(), EC_UNDEFINED);
    check_eq!(exception.esr, IL, "ISS is 0 and IL 1");
    check_eq!(exception.vector, 4);
    check!(at.abs_diff(exception.elr) < 0x1000, "ELR_EL1 {:#x} is far from {at:#x}", exception.elr);
    check_eq!(exception.spsr & 0x3cf, 0x3c5, "EL1h, all masked");
    Ok(())
}

fn svc_from_el1_goes_to_the_same_level() -> Outcome {
    let seen = of(catch(|| ins!("svc #0x1234")));
    check_eq!(seen.esr, EC_SVC << 26 | IL | 0x1234);
    check_eq!(seen.vector, 4);
    Ok(())
}

fn svc_with_sp_el0_goes_to_the_first_vector() -> Outcome {
    let seen = of(catch(|| ins!("msr SPSel, #0", "svc #3", "msr SPSel, #1")));
    check_eq!(seen.esr, EC_SVC << 26 | IL | 3);
    check_eq!(seen.vector, 0);
    check_eq!(seen.spsr & 0xf, 4, "EL1t");
    Ok(())
}

fn svc_from_el0_goes_to_the_lower_level() -> Outcome {
    let code = fragment!("add x0, x0, #1", "mov x5, sp", "svc #0xffff");
    let (seen, frame) = el0::call(code + USER, 41, 0x1230);
    check_eq!(seen.esr, EC_SVC << 26 | IL | 0xffff);
    check_eq!(seen.vector, 8);
    check_eq!(seen.elr, code + USER + 12, "behind the SVC");
    check_eq!(seen.spsr & 0x3df, el0::MASKED);
    check_eq!(frame.x[0], 42);
    check_eq!(frame.x[5], 0x1230, "SP at EL0 is SP_EL0");
    Ok(())
}

fn brk_reports_its_comment() -> Outcome {
    let seen = of(catch(|| ins!("brk #0xabc")));
    check_eq!(seen.esr, 0x3c << 26 | IL | 0xabc);
    Ok(())
}

fn load_from_nowhere_is_a_translation_fault() -> Outcome {
    let seen = of(catch(|| mmio::read32(NOWHERE + 0x124)));
    check_eq!(seen.class(), 0x25);
    check_eq!(seen.iss() & 0x3c, 4, "translation fault");
    check_eq!(seen.iss() & 1 << 6, 0, "WnR");
    check_eq!(seen.far, NOWHERE + 0x124);
    check_eq!(seen.vector, 4);
    Ok(())
}

fn store_to_nowhere_has_wnr() -> Outcome {
    let seen = of(catch(|| mmio::write8(NOWHERE + 0x777, 1)));
    check_eq!(seen.class(), 0x25);
    check_eq!(seen.iss() & 0x7c, 0x44, "translation fault of a write");
    check_eq!(seen.far, NOWHERE + 0x777);
    Ok(())
}

/// Calls `address`; an instruction abort returns to here.
fn jump(address: u64) -> Exception {
    // SAFETY: the abort is caught, and returns to X30 without having changed a register.
    of(catch(|| unsafe { asm!("blr {0}", in(reg) address, out("x30") _) }))
}

fn jump_to_nowhere_is_an_instruction_abort() -> Outcome {
    let seen = jump(NOWHERE + 0x1000);
    check_eq!(seen.class(), 0x21);
    check_eq!(seen.iss() & 0x3c, 4, "translation fault");
    check_eq!(seen.elr, NOWHERE + 0x1000);
    check_eq!(seen.far, NOWHERE + 0x1000);
    Ok(())
}

fn odd_pc_is_an_alignment_fault() -> Outcome {
    let seen = jump(0x4000_0002);
    check_eq!(seen.class(), 0x22);
    check_eq!(seen.elr, 0x4000_0002);
    check_eq!(seen.far, 0x4000_0002);
    Ok(())
}

fn el0_abort_is_of_a_lower_level() -> Outcome {
    let code = fragment!("ldr x0, [x0]", "svc #0") + USER;
    let (seen, _) = el0::call(code, NOWHERE, 0);
    check_eq!(seen.class(), 0x24);
    check_eq!(seen.iss() & 0x3c, 4, "translation fault");
    check_eq!(seen.far, NOWHERE);
    check_eq!(seen.elr, code);
    let (seen, _) = el0::call(NOWHERE, 0, 0);
    check_eq!(seen.class(), 0x20);
    check_eq!(seen.vector, 8);
    Ok(())
}

static ILLEGAL: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Notes the first Illegal Execution state exception and leaves the state.
fn leave_illegal_state(frame: &mut Frame) {
    ILLEGAL[0].store(frame.esr, SeqCst);
    ILLEGAL[1].store(frame.spsr, SeqCst);
    frame.spsr &= !SPSR_IL;
}

fn eret_to_el2_is_an_illegal_return() -> Outcome {
    exception::set_synchronous(Some(leave_illegal_state));
    // SAFETY: the illegal return stays at EL1 at label 2, and the handler above leaves the Illegal Execution state.
    unsafe {
        asm!("adr {t}, 2f", "msr ELR_EL1, {t}", "mov {t}, #0x3c9", "msr SPSR_EL1, {t}", "isb", "eret", "2: nop",
             t = out(reg) _);
    }
    check_eq!(ILLEGAL[0].load(SeqCst), EC_ILLEGAL << 26 | IL);
    check_eq!(ILLEGAL[1].load(SeqCst) & (SPSR_IL | 0xf), SPSR_IL | 5, "at EL1h, with PSTATE.IL");
    check_eq!(mrs!("CurrentEL"), 4);
    Ok(())
}

// A second vector table: synchronous exceptions of EL1h add 1 to X20 and return, nothing else is expected.
global_asm!(
    ".section .text.suite_vectors, \"ax\"",
    ".balign 0x800",
    "suite_vectors:",
    ".rept 4",
    ".balign 0x80",
    "b .",
    ".endr",
    ".balign 0x80",
    "add x20, x20, #1",
    "eret",
    ".balign 0x800",
    ".previous",
);

fn vbar_chooses_the_table() -> Outcome {
    let count: u64;
    // SAFETY: both tables are there; SVC is the only exception while the second is chosen, as all is masked.
    unsafe {
        asm!("mrs x21, VBAR_EL1", "adrp x22, suite_vectors", "add x22, x22, :lo12:suite_vectors", "msr VBAR_EL1, x22",
             "isb", "mov x20, #0", "svc #0", "svc #0", "msr VBAR_EL1, x21", "isb", out("x20") count, out("x21") _,
             out("x22") _);
    }
    check_eq!(count, 2);
    Ok(())
}

static NESTED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Causes an exception of its own, and keeps what both said.
fn nest(frame: &mut Frame) {
    if frame.esr & 0xffff == 2 {
        NESTED[1].fetch_add(1, SeqCst);
        return;
    }
    let elr = frame.elr;
    ins!("svc #2");
    NESTED[0].fetch_add(1, SeqCst);
    NESTED[2].store(elr, SeqCst);
}

fn exception_inside_a_handler_returns_to_it() -> Outcome {
    NESTED.iter().for_each(|word| word.store(0, SeqCst));
    exception::set_synchronous(Some(nest));
    ins!("svc #1");
    check_eq!(NESTED[0].load(SeqCst), 1);
    check_eq!(NESTED[1].load(SeqCst), 1);
    Ok(())
}

fn interrupt_from_el0_goes_to_the_lower_level() -> Outcome {
    interrupts::listen();
    let gic = Gic::detect();
    gic.enable(40);
    gic.route(40, 0);
    gic.set_edge(40, true);
    gic.set_pending(40);
    // Spins until the interrupt has been taken, for X0 rounds at most.
    let code = fragment!("2: subs x0, x0, #1", "b.ne 2b", "svc #0") + USER;
    let mut frame = Frame { elr: code, spsr: el0::MASKED & !0x80, ..Frame::default() };
    frame.x[0] = 10_000_000;
    while interrupts::count() == 0 && frame.x[0] != 0 {
        let seen = el0::run(&mut frame);
        check_eq!(seen.class(), EC_SVC);
    }
    check_eq!(interrupts::count(), 1);
    check_eq!(interrupts::acknowledged(0), 40);
    check_eq!(interrupts::last().0, 9);
    let interrupted = interrupts::last().1;
    check!((code..code + 12).contains(&interrupted), "interrupted {interrupted:#x}, not {code:#x}");
    Ok(())
}

fn masked_interrupt_is_not_taken() -> Outcome {
    interrupts::listen();
    let gic = Gic::detect();
    gic.enable(3);
    gic.send_sgi(3, 1);
    trapeze_kit::timer::spin_ms(2);
    check_eq!(interrupts::count(), 0);
    check!(mrs!("ISR_EL1") & 1 << 7 != 0, "ISR_EL1 {:#x} shows no pending IRQ", mrs!("ISR_EL1"));
    check!(interrupts::open_for_one());
    check_eq!(interrupts::acknowledged(0) & 0x3ff, 3);
    check_eq!(interrupts::last().0, 5);
    Ok(())
}

fn el0_reads_no_el1_register() -> Outcome {
    for code in [
        fragment!("mrs x0, SCTLR_EL1", "svc #0"),
        fragment!("mrs x0, TTBR0_EL1", "svc #0"),
        fragment!("msr VBAR_EL1, x0", "svc #0"),
        fragment!("msr DAIFClr, #2", "svc #0"),
        fragment!("tlbi vmalle1", "svc #0"),
    ] {
        let (seen, _) = el0::call(code + USER, 0, 0);
        // MSR DAIFClr is trapped with its own syndrome (SCTLR_EL1.UMA), the others are UNDEFINED.
        check!(matches!(seen.class(), EC_UNDEFINED | 0x18), "{:x?}", seen);
        check_eq!(seen.elr, code + USER);
    }
    check_eq!(mrs!("SCTLR_EL1") | 0x1005, SCTLR_OFF | 0x1005);
    Ok(())
}

fn hvc_and_smc_from_el0_are_undefined() -> Outcome {
    let hvc = fragment!("hvc #0", "svc #0") + USER;
    let smc = fragment!("smc #0", "svc #0") + USER;
    for code in [hvc, smc] {
        let (seen, _) = el0::call(code, 0x8400_0000, 0);
        check_eq!(seen.esr, IL, "UNDEFINED");
        check_eq!(seen.elr, code);
    }
    Ok(())
}
