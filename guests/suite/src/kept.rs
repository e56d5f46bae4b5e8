//! Registers that no exit may change: X0 to X30, NZCV, V0 to V31, FPCR and FPSR, for every way to leave the guest.
//!
//! Each way is one instruction (or few) between loading all registers with a pattern and storing them again.

use crate::harness::{Outcome, Test, check, check_eq, skip_if, tests};
use crate::interrupts;
use core::arch::global_asm;
use trapeze_kit::exception::catch;
use trapeze_kit::gic::{GICD, Gic};
use trapeze_kit::timer::{self, ENABLE, Timer};
use trapeze_kit::{mrs, msr};

pub const TESTS: &[Test] = tests![
    nothing_at_all,
    hypercall,
    unknown_hypercall,
    firmware_call,
    device_load,
    device_store,
    id_register,
    physical_timer,
    debug_register,
    set_way_maintenance,
    sgi_register,
    wait_for_interrupt,
    interrupt,
    undefined_instruction,
    system_registers_across_exits,
    fp_access_traps_when_told,
    pstate_across_exits,
    pointer_authentication_keys_across_exits,
];

/// What is loaded and stored.
#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    x: [u64; 31],
    nzcv: u64,
    fpcr: u64,
    fpsr: u64,
    v: [u64; 64],
}

global_asm!(
    ".arch_extension fp",
    ".arch_extension simd",
    // x0 = State
    ".macro every_v op",
    "add x1, x0, #{v}",
    "\\op q0, q1, [x1, #0x00]\n \\op q2, q3, [x1, #0x20]\n \\op q4, q5, [x1, #0x40]\n \\op q6, q7, [x1, #0x60]",
    "\\op q8, q9, [x1, #0x80]\n \\op q10, q11, [x1, #0xa0]\n \\op q12, q13, [x1, #0xc0]\n \\op q14, q15, [x1, #0xe0]",
    "\\op q16, q17, [x1, #0x100]\n \\op q18, q19, [x1, #0x120]\n \\op q20, q21, [x1, #0x140]",
    "\\op q22, q23, [x1, #0x160]\n \\op q24, q25, [x1, #0x180]\n \\op q26, q27, [x1, #0x1a0]",
    "\\op q28, q29, [x1, #0x1c0]\n \\op q30, q31, [x1, #0x1e0]",
    ".endm",
    ".macro every_x op",
    "\\op x2, x3, [x0, #0x10]\n \\op x4, x5, [x0, #0x20]\n \\op x6, x7, [x0, #0x30]\n \\op x8, x9, [x0, #0x40]",
    "\\op x10, x11, [x0, #0x50]\n \\op x12, x13, [x0, #0x60]\n \\op x14, x15, [x0, #0x70]",
    "\\op x16, x17, [x0, #0x80]\n \\op x18, x19, [x0, #0x90]\n \\op x20, x21, [x0, #0xa0]",
    "\\op x22, x23, [x0, #0xb0]\n \\op x24, x25, [x0, #0xc0]\n \\op x26, x27, [x0, #0xd0]",
    "\\op x28, x29, [x0, #0xe0]",
    ".endm",
    // A function (state: &mut State): keeps what AAPCS64 wants kept, and the state's address at the stack's top.
    ".macro way name, first, second=nop, third=nop",
    ".global suite_\\name",
    "suite_\\name:",
    "stp x29, x30, [sp, #-0x70]!\n stp x19, x20, [sp, #0x20]\n stp x21, x22, [sp, #0x30]\n stp x23, x24, [sp, #0x40]",
    "stp x25, x26, [sp, #0x50]\n stp x27, x28, [sp, #0x60]\n str x18, [sp, #0x10]",
    "sub sp, sp, #16",
    "str x0, [sp]",
    "every_v ldp",
    "ldp x1, x2, [x0, #{fpcr}]\n msr FPCR, x1\n msr FPSR, x2",
    "ldr x1, [x0, #{nzcv}]\n msr NZCV, x1",
    "every_x ldp",
    "ldr x30, [x0, #0xf0]",
    "ldp x0, x1, [x0]",
    "\\first",
    "\\second",
    "\\third",
    "str x0, [sp, #8]",
    "ldr x0, [sp]",
    "str x1, [x0, #8]",
    "every_x stp",
    "str x30, [x0, #0xf0]",
    "ldr x1, [sp, #8]\n str x1, [x0]",
    "mrs x1, NZCV\n str x1, [x0, #{nzcv}]",
    "mrs x1, FPCR\n mrs x2, FPSR\n stp x1, x2, [x0, #{fpcr}]",
    "every_v stp",
    "msr FPCR, xzr\n msr FPSR, xzr",
    "add sp, sp, #16",
    "ldr x18, [sp, #0x10]\n ldp x19, x20, [sp, #0x20]\n ldp x21, x22, [sp, #0x30]\n ldp x23, x24, [sp, #0x40]",
    "ldp x25, x26, [sp, #0x50]\n ldp x27, x28, [sp, #0x60]\n ldp x29, x30, [sp], #0x70",
    "ret",
    ".endm",
    ".section .text.kept, \"ax\"",
    "way nothing, nop",
    "way hvc, \"hvc #0\"",
    "way smc, \"smc #0\"",
    "way load, \"ldr w2, [x0]\"",
    "way store, \"str w1, [x0]\"",
    "way id_register, \"mrs x2, ID_AA64PFR0_EL1\", \"mrs x3, ID_AA64MMFR0_EL1\"",
    "way ptimer, \"msr CNTP_CVAL_EL0, x1\", \"mrs x2, CNTP_CVAL_EL0\", \"mrs x3, CNTP_CTL_EL0\"",
    "way debug, \"mrs x2, MDSCR_EL1\", \"msr DBGBVR0_EL1, x1\"",
    "way set_way, \"dc cisw, x1\"",
    "way sgi, \"msr S3_0_C12_C11_5, x1\"",
    "way wfi, wfi",
    "way open, \"msr DAIFClr, #2\", isb, \"msr DAIFSet, #2\"",
    "way udf, \"udf #0\"",
    ".previous",
    v = const core::mem::offset_of!(State, v),
    fpcr = const core::mem::offset_of!(State, fpcr),
    nzcv = const core::mem::offset_of!(State, nzcv),
);

/// A way out of the guest, with all registers from and to a `State`.
type Way = unsafe extern "C" fn(&mut State);

unsafe extern "C" {
    fn suite_nothing(state: &mut State);
    fn suite_hvc(state: &mut State);
    fn suite_smc(state: &mut State);
    fn suite_load(state: &mut State);
    fn suite_store(state: &mut State);
    fn suite_id_register(state: &mut State);
    fn suite_ptimer(state: &mut State);
    fn suite_debug(state: &mut State);
    fn suite_set_way(state: &mut State);
    fn suite_sgi(state: &mut State);
    fn suite_wfi(state: &mut State);
    fn suite_open(state: &mut State);
    fn suite_udf(state: &mut State);
}

const ROUNDS: u64 = 20;
/// Rounding towards zero, flush to zero, default NaN: bits that every FPCR has.
const FPCR: u64 = 3 << 22 | 1 << 24 | 1 << 25;
/// All cumulative exception bits, and QC.
const FPSR: u64 = 0x9f | 1 << 27;

/// Makes registers of which no two are equal, with the two that instructions take.
fn pattern(round: u64, x0: u64, x1: u64) -> State {
    let word = |number: u64| (number + round * 1000 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut state = State {
        x: core::array::from_fn(|number| word(number as u64)),
        nzcv: (round % 16) << 28,
        fpcr: FPCR,
        fpsr: FPSR,
        v: core::array::from_fn(|number| word(100 + number as u64)),
    };
    state.x[0] = x0;
    state.x[1] = x1;
    state
}

/// Takes `way` a few times with what `before` prepares, and compares all registers but those of bit mask `written`.
fn keeps(way: Way, x0: u64, x1: u64, written: u32, before: impl Fn()) -> Outcome {
    for round in 0..ROUNDS {
        before();
        let (mut state, wanted) = (pattern(round, x0, x1), pattern(round, x0, x1));
        // SAFETY: each way changes the registers that `written` names at most, all else it restores.
        unsafe { way(&mut state) };
        for number in (0..31).filter(|number| written >> number & 1 == 0) {
            check_eq!(state.x[number], wanted.x[number], "X{number} in round {round}");
        }
        check_eq!(state.nzcv, wanted.nzcv, "NZCV in round {round}");
        check_eq!(state.fpcr, wanted.fpcr);
        check_eq!(state.fpsr, wanted.fpsr);
        for (number, (seen, wanted)) in state.v.iter().zip(&wanted.v).enumerate() {
            check_eq!(*seen, *wanted, "V{}, half {} in round {round}", number / 2, number % 2);
        }
    }
    Ok(())
}

fn nothing_at_all() -> Outcome {
    keeps(suite_nothing, 5, 6, 0, || {})
}

fn hypercall() -> Outcome {
    keeps(suite_hvc, 0x8400_0000, 6, 0xf, || {})
}

fn unknown_hypercall() -> Outcome {
    keeps(suite_hvc, 0x8600_1234, 6, 0xf, || {})
}

fn firmware_call() -> Outcome {
    // Where there is no firmware it is UNDEFINED, which `catch` skips: the registers have to stay, too.
    for function in [0x8400_0000, 0xffff_1234] {
        let mut outcome = Ok(());
        let _ = catch(|| outcome = keeps(suite_smc, function, 6, 0xf, || {}));
        outcome?;
    }
    Ok(())
}

fn device_load() -> Outcome {
    keeps(suite_load, GICD + 4, 6, 1 << 2, || {})
}

fn device_store() -> Outcome {
    keeps(suite_store, GICD + 0x400 + 40, 0x8080_8080, 0, || {})
}

fn id_register() -> Outcome {
    keeps(suite_id_register, 5, 6, 1 << 2 | 1 << 3, || {})
}

fn physical_timer() -> Outcome {
    keeps(suite_ptimer, 5, u64::MAX, 1 << 2 | 1 << 3, || {})
}

fn debug_register() -> Outcome {
    keeps(suite_debug, 5, 0x4000, 1 << 2, || {})
}

fn set_way_maintenance() -> Outcome {
    keeps(suite_set_way, 5, 0, 0, || {})
}

fn sgi_register() -> Outcome {
    skip_if!(Gic::detect() == Gic::V2, "the CPU interface is in memory");
    // To an affinity that nobody has.
    keeps(suite_sgi, 5, 0xff << 16 | 1, 0, || {})
}

/// Makes an interrupt pending in a moment.
fn soon() {
    Timer::Virtual.set_value(timer::frequency() / 20_000);
    Timer::Virtual.set_control(ENABLE);
}

fn wait_for_interrupt() -> Outcome {
    let gic = Gic::detect();
    gic.enable(timer::VIRTUAL_INTID);
    keeps(suite_wfi, 5, 6, 0, soon)
}

fn interrupt() -> Outcome {
    interrupts::listen();
    let gic = Gic::detect();
    gic.enable(timer::VIRTUAL_INTID);
    keeps(suite_open, 5, 6, 0, || {
        soon();
        timer::within_ms(1000, || gic.is_pending(timer::VIRTUAL_INTID));
    })?;
    check_eq!(interrupts::count() as u64, ROUNDS);
    Ok(())
}

fn undefined_instruction() -> Outcome {
    let mut outcome = Ok(());
    let caught = catch(|| outcome = keeps(suite_udf, 5, 6, 0, || {}));
    check!(caught.is_err());
    outcome
}

/// Checks that a register keeps a value across an exit by HVC and one by a device.
macro_rules! keeps_register {
    ($($register:literal = $value:expr),+ $(,)?) => {{
        $({
            let before = mrs!($register);
            msr!($register, $value);
            trapeze_kit::psci::psci(0x8400_0000, 0, 0, 0);
            trapeze_kit::mmio::read32(GICD + 4);
            let seen = mrs!($register);
            msr!($register, before);
            check_eq!(seen, $value, $register);
        })+
    }};
}

fn system_registers_across_exits() -> Outcome {
    keeps_register!(
        "TPIDR_EL0" = 0x1122_3344_5566_7788,
        "TPIDRRO_EL0" = 0x2122_3344_5566_7788,
        "TPIDR_EL1" = 0x3122_3344_5566_7788,
        "CONTEXTIDR_EL1" = 0x5566_7788,
        "FAR_EL1" = 0x4122_3344_5566_7788,
        "ESR_EL1" = 0x5600_1234,
        "AFSR0_EL1" = 0,
        "ELR_EL1" = 0x4433_2210,
        "SPSR_EL1" = 0x6000_03c5,
        "SP_EL0" = 0x7654_3210,
        "PAR_EL1" = 0x1,
        "TTBR1_EL1" = 0x4321_0000,
        "CNTKCTL_EL1" = 0x3,
        "CNTV_CVAL_EL0" = 0x1234_5678_9abc_def0,
        "CNTP_CVAL_EL0" = 0x2234_5678_9abc_def0,
    );
    Ok(())
}

fn fp_access_traps_when_told() -> Outcome {
    msr!("CPACR_EL1", 0);
    // SAFETY: traps, or changes a register that nobody uses.
    let seen = catch(|| unsafe {
        core::arch::asm!(".arch_extension fp", "fmov d31, x0", ".arch_extension nofp");
    });
    msr!("CPACR_EL1", 3 << 20);
    let exception = seen.err();
    check_eq!(exception.map(|exception| exception.class()), Some(7));
    Ok(())
}

/// Sets a bit of PSTATE, leaves the guest in three ways, and checks that the bit is still there.
macro_rules! keeps_pstate {
    ($name:literal, $register:literal, $bit:expr) => {{
        let before = mrs!($register);
        for value in [$bit, 0] {
            msr!($register, value);
            trapeze_kit::psci::psci(0x8400_0000, 0, 0, 0);
            trapeze_kit::mmio::read32(GICD + 4);
            mrs!("ID_AA64PFR0_EL1");
            let seen = mrs!($register) & $bit;
            check_eq!(seen, value, $name);
        }
        msr!($register, before);
    }};
}

fn pstate_across_exits() -> Outcome {
    if mrs!("ID_AA64MMFR1_EL1") >> 20 & 0xf != 0 {
        keeps_pstate!("PAN", "S3_0_C4_C2_3", 1 << 22);
    }
    if mrs!("ID_AA64MMFR2_EL1") >> 4 & 0xf != 0 {
        keeps_pstate!("UAO", "S3_0_C4_C2_4", 1 << 23);
    }
    if mrs!("ID_AA64PFR0_EL1") >> 48 & 0xf != 0 {
        keeps_pstate!("DIT", "S3_3_C4_C2_5", 1 << 24);
    }
    if mrs!("ID_AA64PFR1_EL1") >> 4 & 0xf >= 2 {
        keeps_pstate!("SSBS", "S3_3_C4_C2_6", 1 << 12);
    }
    keeps_pstate!("NZCV", "NZCV", 0xf << 28);
    keeps_pstate!("DAIF", "DAIF", 0xf << 6);
    trapeze_kit::ins!("msr DAIFSet, #0xf");
    Ok(())
}

fn pointer_authentication_keys_across_exits() -> Outcome {
    skip_if!(mrs!("ID_AA64ISAR1_EL1") >> 4 & 0xff == 0, "ID_AA64ISAR1_EL1: no pointer authentication");
    keeps_register!(
        "S3_0_C2_C1_0" = 0x1111_2222_3333_4444,
        "S3_0_C2_C1_1" = 0x2111_2222_3333_4444,
        "S3_0_C2_C2_2" = 0x3111_2222_3333_4444,
        "S3_0_C2_C3_1" = 0x4111_2222_3333_4444,
    );
    Ok(())
}
