//! Self-hosted debug: breakpoints, watchpoints, single step, the OS lock, and steps over what a hypervisor emulates.
//!
//! Follows Arm ARM DDI 0487K.a, D2 (AArch64 self-hosted debug).

use crate::harness::{Outcome, Test, check, check_eq, fragment, skip_if, tests};
use core::arch::asm;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::exception::{self, Exception, Frame, catch};
use trapeze_kit::gic::GICD;
use trapeze_kit::mmu::{self, Attributes, Granule, USER};
use trapeze_kit::{el0, ins, mmio, mrs, msr, smp, timer};

pub const TESTS: &[Test] = tests![
    registers_read_back,
    breakpoint_at_el0,
    breakpoint_at_el1,
    breakpoint_that_is_disabled,
    watchpoint_on_a_store,
    watchpoint_on_a_load_from_el0,
    watchpoint_watches_its_bytes_only,
    single_step_at_el0,
    single_step_at_el1,
    step_over_an_emulated_load,
    step_over_an_emulated_store,
    step_over_a_hypercall,
    step_over_an_id_register,
    step_over_a_physical_timer_access,
    watchpoint_on_an_emulated_device,
    os_lock_closes_and_opens,
    debug_state_is_each_cpus_own,
    communications_channel_is_idle,
];

const EC_BREAKPOINT: u64 = 0x31;
const EC_STEP: u64 = 0x33;
const EC_WATCHPOINT: u64 = 0x35;
/// MDSCR_EL1: SS, KDE, MDE.
const SS: u64 = 1;
const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;
const SPSR_SS: u64 = 1 << 21;
const SPSR_D: u64 = 1 << 9;
/// BCR: enabled, all four bytes, at EL0 or at EL1.
const BREAK_EL0: u64 = 1 | 2 << 1 | 0xf << 5;
const BREAK_EL1: u64 = 1 | 1 << 1 | 0xf << 5;

static WATCHED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn watched_at() -> u64 {
    core::ptr::from_ref(&WATCHED).addr() as u64
}

/// Builds WCR: enabled at EL1 or EL0, for loads (1), stores (2) or both, for a mask of bytes.
fn watch(is_el0: bool, kind: u64, bytes: u64) -> u64 {
    1 | (if is_el0 { 2 } else { 1 }) << 1 | kind << 3 | bytes << 5
}

/// Everything off, the OS lock open; each test begins and ends with it.
fn quiet() {
    msr!("OSLAR_EL1", 0);
    msr!("MDSCR_EL1", 0);
    msr!("DBGBCR0_EL1", 0);
    msr!("DBGWCR0_EL1", 0);
}

/// Runs `closure` with debug exceptions of EL1 on, and returns what it caused.
fn debugged<T>(closure: impl FnOnce() -> T) -> Result<T, Exception> {
    msr!("MDSCR_EL1", MDE | KDE);
    ins!("msr DAIFClr, #8", "isb");
    let result = catch(closure);
    ins!("msr DAIFSet, #8", "isb");
    quiet();
    result
}

fn registers_read_back() -> Outcome {
    quiet();
    let features = mrs!("ID_AA64DFR0_EL1");
    check!(features & 0xf >= 6, "ID_AA64DFR0_EL1.DebugVer {features:#x}");
    msr!("DBGBVR0_EL1", 0x4000_1234);
    msr!("DBGBVR1_EL1", 0x4000_5678);
    msr!("DBGWVR0_EL1", 0x4000_9ab8);
    msr!("DBGBCR1_EL1", BREAK_EL0 & !1);
    msr!("DBGWCR1_EL1", watch(true, 3, 0xff) & !1);
    check_eq!(mrs!("DBGBVR0_EL1"), 0x4000_1234);
    check_eq!(mrs!("DBGBVR1_EL1"), 0x4000_5678);
    check_eq!(mrs!("DBGWVR0_EL1"), 0x4000_9ab8);
    check_eq!(mrs!("DBGBCR1_EL1") & 0x1e7, BREAK_EL0 & !1);
    check_eq!(mrs!("DBGWCR1_EL1") & 0x1fff, watch(true, 3, 0xff) & !1);
    msr!("MDSCR_EL1", MDE);
    check_eq!(mrs!("MDSCR_EL1") & (SS | KDE | MDE), MDE);
    quiet();
    Ok(())
}

fn breakpoint_at_el0() -> Outcome {
    quiet();
    let code = fragment!("mov x1, #1", "mov x2, #2", "mov x3, #3", "svc #0") + USER;
    msr!("DBGBVR0_EL1", code + 8);
    msr!("DBGBCR0_EL1", BREAK_EL0);
    msr!("MDSCR_EL1", MDE);
    let (seen, frame) = el0::call(code, 0, 0);
    quiet();
    check_eq!(seen.class(), EC_BREAKPOINT - 1);
    check_eq!(seen.iss() & 0x3f, 0x22);
    check_eq!(seen.elr, code + 8);
    check_eq!((frame.x[1], frame.x[2], frame.x[3]), (1, 2, 0));
    Ok(())
}

fn breakpoint_at_el1() -> Outcome {
    quiet();
    let code = fragment!("mov x0, #1", "mov x0, #2", "ret");
    msr!("DBGBVR0_EL1", code + 4);
    msr!("DBGBCR0_EL1", BREAK_EL1);
    let mut x0 = 0_u64;
    // SAFETY: calls code that changes X0 only; at the breakpoint the instruction is skipped.
    let seen = debugged(|| unsafe { asm!("blr {0}", in(reg) code, inout("x0") x0, out("x30") _) });
    let seen = seen.err();
    check_eq!(seen.map(|exception| (exception.class(), exception.elr)), Some((EC_BREAKPOINT, code + 4)));
    check_eq!(x0, 1, "it was skipped");
    Ok(())
}

fn breakpoint_that_is_disabled() -> Outcome {
    quiet();
    let code = fragment!("mov x0, #1", "ret");
    msr!("DBGBVR0_EL1", code);
    // SAFETY: calls code that changes X0 only.
    let call = || unsafe { asm!("blr {0}", in(reg) code, out("x0") _, out("x30") _) };
    msr!("DBGBCR0_EL1", BREAK_EL1 & !1);
    check_eq!(debugged(call), Ok(()), "BCR.E is 0");
    msr!("DBGBVR0_EL1", code);
    msr!("DBGBCR0_EL1", BREAK_EL0);
    check_eq!(debugged(call), Ok(()), "for EL0 only");
    msr!("DBGBCR0_EL1", BREAK_EL1);
    let seen = catch(call);
    quiet();
    check_eq!(seen, Ok(()), "MDSCR_EL1.MDE is 0");
    Ok(())
}

fn watchpoint_on_a_store() -> Outcome {
    quiet();
    WATCHED[0].store(5, SeqCst);
    msr!("DBGWVR0_EL1", watched_at());
    msr!("DBGWCR0_EL1", watch(false, 2, 0xff));
    let at = watched_at();
    let seen = debugged(|| mmio::write64(at, 6)).err();
    check_eq!(seen.map(|exception| exception.class()), Some(EC_WATCHPOINT));
    check_eq!(seen.map(|exception| (exception.far, exception.iss() & 0x7f)), Some((at, 1 << 6 | 0x22)));
    check_eq!(WATCHED[0].load(SeqCst), 5, "before the store");
    msr!("DBGWVR0_EL1", watched_at());
    msr!("DBGWCR0_EL1", watch(false, 2, 0xff));
    check_eq!(debugged(|| mmio::read64(at)), Ok(5), "not a store");
    Ok(())
}

fn watchpoint_on_a_load_from_el0() -> Outcome {
    quiet();
    let at = watched_at() + USER;
    msr!("DBGWVR0_EL1", at);
    msr!("DBGWCR0_EL1", watch(true, 1, 0xff));
    msr!("MDSCR_EL1", MDE);
    let code = fragment!("str x1, [x0]", "ldr x1, [x0]", "svc #0") + USER;
    let (seen, _) = el0::call(code, at, 0);
    quiet();
    check_eq!(seen.class(), EC_WATCHPOINT - 1);
    check_eq!(seen.elr, code + 4);
    check_eq!(seen.far, at);
    check_eq!(seen.iss() & 0x7f, 0x22);
    Ok(())
}

fn watchpoint_watches_its_bytes_only() -> Outcome {
    quiet();
    let at = watched_at();
    let watched = |offset| {
        msr!("DBGWVR0_EL1", at);
        msr!("DBGWCR0_EL1", watch(false, 3, 0x0c));
        debugged(|| mmio::read8(at + offset)).is_err()
    };
    let hits = [0, 1, 2, 3, 4, 7].map(watched);
    check_eq!(hits, [false, false, true, true, false, false]);
    Ok(())
}

/// Runs EL0 code instruction by instruction until it traps otherwise; returns that and how many steps there were.
fn step_el0(code: u64, x0: u64) -> Result<(Exception, Frame, u64), crate::harness::End> {
    quiet();
    let mut frame = Frame { elr: code, spsr: (el0::MASKED & !SPSR_D) | SPSR_SS, ..Frame::default() };
    frame.x[0] = x0;
    msr!("MDSCR_EL1", SS);
    for steps in 0..50 {
        let before = frame.elr;
        let seen = el0::run(&mut frame);
        if seen.class() != EC_STEP - 1 {
            quiet();
            return Ok((seen, frame, steps));
        }
        check_eq!(seen.elr, before + 4, "step {steps}: one instruction");
        frame.spsr |= SPSR_SS;
    }
    quiet();
    check!(false, "no end of steps");
    Err(crate::harness::End::Failed)
}

fn single_step_at_el0() -> Outcome {
    let code = fragment!("mov x1, #1", "add x1, x1, #1", "add x1, x1, #1", "svc #9") + USER;
    let (seen, frame, steps) = step_el0(code, 0)?;
    check_eq!(seen.class(), 0x15);
    check_eq!(seen.iss(), 9);
    check_eq!(steps, 3);
    check_eq!(frame.x[1], 3);
    Ok(())
}

/// Where EL1 was after each step, and how many there were.
static STEPS: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
static STEP_COUNT: AtomicU64 = AtomicU64::new(0);

/// Starts stepping at an SVC, notes each step, and stops at the second SVC.
fn step_handler(frame: &mut Frame) {
    match frame.esr >> 26 {
        EC_STEP => {
            let count = STEP_COUNT.fetch_add(1, SeqCst);
            STEPS[count as usize % 8].store(frame.elr, SeqCst);
            frame.spsr |= SPSR_SS;
        }
        _ if frame.esr & 0xffff == 1 => {
            msr!("MDSCR_EL1", SS | KDE);
            frame.spsr = (frame.spsr & !SPSR_D) | SPSR_SS;
        }
        _ => {
            msr!("MDSCR_EL1", 0);
            frame.spsr = (frame.spsr & !SPSR_SS) | SPSR_D;
        }
    }
}

/// Runs code that ends in RET with X0 and X1, one step at a time between its `svc #1` and `svc #2`.
fn step_el1(code: u64, x0: u64, x1: u64) -> u64 {
    quiet();
    STEP_COUNT.store(0, SeqCst);
    exception::set_synchronous(Some(step_handler));
    let mut result = x0;
    // SAFETY: calls code that changes X0 to X17 at most, and returns.
    unsafe { asm!("blr {0}", in(reg) code, inout("x0") result, in("x1") x1, clobber_abi("C")) };
    exception::set_synchronous(None);
    quiet();
    result
}

/// Checks that three instructions between the SVCs were three steps: code is `svc #1`, they, `svc #2`.
fn three_steps(code: u64) -> Outcome {
    let count = STEP_COUNT.load(SeqCst);
    let seen: [u64; 3] = core::array::from_fn(|index| STEPS[index].load(SeqCst).wrapping_sub(code));
    check_eq!(seen, [8, 12, 16], "{count} steps: each after one instruction");
    check_eq!(count, 3);
    Ok(())
}

fn single_step_at_el1() -> Outcome {
    let code = fragment!("svc #1", "add x0, x0, #1", "add x0, x0, #1", "add x0, x0, #1", "svc #2", "ret");
    check_eq!(step_el1(code, 10, 0), 13);
    three_steps(code)
}

fn step_over_an_emulated_load() -> Outcome {
    let code = fragment!("svc #1", "ldr w0, [x1]", "add x0, x0, #1", "nop", "svc #2", "ret");
    let wanted = u64::from(mmio::read32(GICD + 4)) + 1;
    check_eq!(step_el1(code, 0, GICD + 4), wanted);
    three_steps(code)?;
    // And from EL0.
    let map = mmu::enable(Granule::K4);
    map.add(USER + GICD, GICD, 0x1_0000, Attributes(Attributes::DEVICE.0 | 1 << 6));
    let code = fragment!("ldr w1, [x0, #4]", "add x1, x1, #1", "svc #9") + USER;
    let (seen, frame, steps) = step_el0(code, USER + GICD)?;
    check_eq!(seen.class(), 0x15, "{seen:x?}");
    check_eq!(steps, 2);
    check_eq!(frame.x[1], wanted);
    Ok(())
}

fn step_over_an_emulated_store() -> Outcome {
    let code = fragment!("svc #1", "str w0, [x1]", "nop", "nop", "svc #2", "ret");
    let register = GICD + 0x400 + 44;
    step_el1(code, 0x5050_5050, register);
    check_eq!(mmio::read32(register), 0x5050_5050);
    three_steps(code)
}

fn step_over_a_hypercall() -> Outcome {
    let code = fragment!("svc #1", "hvc #0", "nop", "nop", "svc #2", "ret");
    let wanted = trapeze_kit::psci::psci(0x8400_0000, 0, 0, 0);
    check_eq!(step_el1(code, 0x8400_0000, 0).cast_signed(), wanted);
    // Where the call is answered below EL1's sight it may count as part of the next instruction.
    let count = STEP_COUNT.load(SeqCst);
    check!((2..=3).contains(&count), "{count} steps");
    Ok(())
}

fn step_over_an_id_register() -> Outcome {
    let code = fragment!("svc #1", "mrs x0, ID_AA64PFR0_EL1", "nop", "nop", "svc #2", "ret");
    check_eq!(step_el1(code, 0, 0), mrs!("ID_AA64PFR0_EL1"));
    three_steps(code)
}

fn step_over_a_physical_timer_access() -> Outcome {
    let code = fragment!("svc #1", "msr CNTP_CVAL_EL0, x1", "mrs x0, CNTP_CVAL_EL0", "nop", "svc #2", "ret");
    check_eq!(step_el1(code, 0, 0x1234_5678), 0x1234_5678);
    three_steps(code)
}

fn watchpoint_on_an_emulated_device() -> Outcome {
    quiet();
    msr!("DBGWVR0_EL1", GICD);
    msr!("DBGWCR0_EL1", watch(false, 3, 0xf0));
    let seen = debugged(|| mmio::read32(GICD + 4)).err();
    check_eq!(seen.map(|exception| (exception.class(), exception.far)), Some((EC_WATCHPOINT, GICD + 4)));
    Ok(())
}

fn os_lock_closes_and_opens() -> Outcome {
    quiet();
    check_eq!(mrs!("OSLSR_EL1") & 2, 0, "OSLK");
    msr!("OSLAR_EL1", 1);
    check_eq!(mrs!("OSLSR_EL1") & 2, 2, "OSLK");
    msr!("OSLAR_EL1", 0);
    check_eq!(mrs!("OSLSR_EL1") & 2, 0, "OSLK");
    check_eq!(mrs!("OSLSR_EL1") & 9, 8, "OSLM: there is a lock");
    Ok(())
}

static SEEN: AtomicU64 = AtomicU64::new(0);

/// Has breakpoints of its own here, and looks whether the other's show.
fn own_breakpoints(_: u64) {
    let before = mrs!("DBGBVR0_EL1");
    msr!("OSLAR_EL1", 0);
    msr!("DBGBVR0_EL1", 0x7770);
    timer::spin_ms(1);
    SEEN.store(before << 32 | mrs!("DBGBVR0_EL1"), SeqCst);
    msr!("DBGBVR0_EL1", 0);
}

fn debug_state_is_each_cpus_own() -> Outcome {
    skip_if!(smp::present() < 2, "one CPU");
    quiet();
    msr!("DBGBVR0_EL1", 0x4440);
    check_eq!(smp::start(1, own_breakpoints, 0), 0);
    check!(smp::wait_off(1));
    check_eq!(mrs!("DBGBVR0_EL1"), 0x4440);
    check_eq!(SEEN.load(SeqCst) & 0xffff_ffff, 0x7770);
    msr!("DBGBVR0_EL1", 0);
    Ok(())
}

fn communications_channel_is_idle() -> Outcome {
    let status = catch(|| mrs!("MDCCSR_EL0"));
    check!(status.is_ok_and(|status| status & 1 << 30 == 0), "MDCCSR_EL0.RXfull: {status:x?}");
    Ok(())
}
