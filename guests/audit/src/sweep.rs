//! Executes every encoding at one exception level and prints what each did, unless it was UNDEFINED.
//!
//! Not here: what the outcomes mean; tools/audit compares them.
//!
//! One probe: a few instructions in a buffer, entered by ERET and left by an exception: the SVC at its end, or whatever
//! came before. A read is `mrs x0`. A register that can be read is written like this, for several values of X0:
//!
//! ```text
//!     mrs x1, REG     its value
//!     msr REG, x0     all ones, all zeros, ...
//!     isb
//!     mrs x2, REG     what it keeps of it
//!     msr REG, x1     back
//!     isb
//!     svc             as long as nothing reads memory or traps in between, any value is harmless
//! ```
//!
//! Follows Arm ARM DDI 0487K.a, C5 (the instructions) and D24.2 (the registers).

use crate::encoding::{BLOCK, ENCODINGS, END_NUMBER, Encoding, ISB, SEVL, SVC_END};
use crate::log;
use crate::machine::{self, End, Start};
use core::fmt;
use trapeze_kit::gic::Gic;
use trapeze_kit::timer::{self, Timer};

const MRS_PAR_X2: u32 = Encoding::new(3, 0, 7, 4, 0).read(2);
/// Instructions of one probe.
const STRIDE: usize = 8;
const IN_BLOCK: usize = 128;

const FILLS: [u64; 4] = [u64::MAX, 0, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa];

/// PSTATE with DAIF masked.
const MASKED: u64 = 0b1111 << 6;
/// ESR_EL1 of an UNDEFINED instruction: EC 0, IL.
const UNDEFINED: u64 = 1 << 25;
const EC_SVC: u64 = 0x15;

/// Where probes run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// An application.
    El0 = 0,
    /// The kernel, on its own stack pointer.
    El1 = 1,
}

impl Level {
    /// Returns PSTATE at the start of a probe.
    const fn pstate(self) -> u64 {
        match self {
            Self::El0 => MASKED,
            Self::El1 => MASKED | 0b0101,
        }
    }
}

/// Executes all encodings at `level`; returns how many probes that were.
pub fn sweep(level: Level, gic: Gic) -> u64 {
    let mut probes = 0;
    for block in 0..ENCODINGS / BLOCK {
        let read = read_block(level, block * BLOCK);
        probes += 128 + write_block(level, gic, block * BLOCK, &read);
        if Encoding(block * BLOCK).op0() == 0 {
            leave_streaming_mode();
        }
    }
    probes
}

/// Bits of a register that the fill values may change. Left alone: SCTLR_EL1.M, as there are no tables, and RMR_EL1.RR,
/// which resets the CPU.
const fn may_change(encoding: Encoding) -> u64 {
    const SCTLR_EL1: Encoding = Encoding::new(3, 0, 1, 0, 0);
    const RMR_EL1: Encoding = Encoding::new(3, 0, 12, 0, 2);
    if encoding.0 == SCTLR_EL1.0 {
        !1
    } else if encoding.0 == RMR_EL1.0 {
        !2
    } else {
        u64::MAX
    }
}

/// What a write that is not of a readable register has in X0: no set or way, no context, else a harmless address.
fn operand(encoding: Encoding) -> u64 {
    let names_no_address = encoding.op0() != 1
        || (encoding.crn() == 7 && encoding.op2() == 2 && encoding.op1() == 0)
        || (encoding.crn() == 7 && encoding.crm() == 3);
    if names_no_address { 0 } else { machine::scratch() + machine::SCRATCH_BYTES / 2 }
}

/// Reads the encodings of a block; returns what each gave, if anything.
fn read_block(level: Level, first: u32) -> [Option<u64>; IN_BLOCK] {
    let mut words = [SVC_END; 2 * IN_BLOCK];
    for (pair, encoding) in words.chunks_exact_mut(2).zip(first..) {
        pair.copy_from_slice(&[Encoding(encoding).read(0), SVC_END]);
    }
    machine::load_slot(&words);
    let mut values = [None; IN_BLOCK];
    for ((value, encoding), index) in values.iter_mut().zip(first..).zip(0..) {
        let end = execute(level, index * 8, 0);
        let shown = Shown { level, what: 'R', encoding: Encoding(encoding) };
        if reached_the_end(&end) {
            *value = Some(end.x[0]);
            log!("{shown} ={:x}", end.x[0]);
        } else if end.esr != UNDEFINED {
            log!("{shown} !{:x}", end.esr);
        }
    }
    values
}

/// Writes the encodings of a block; returns how many probes that were.
fn write_block(level: Level, gic: Gic, first: u32, read: &[Option<u64>; IN_BLOCK]) -> u64 {
    let mut words = [SVC_END; STRIDE * IN_BLOCK];
    for ((probe, encoding), value) in words.chunks_exact_mut(STRIDE).zip(first..).zip(read) {
        probe.copy_from_slice(&write_probe(Encoding(encoding), level, value.is_some()));
    }
    machine::load_slot(&words);
    let mut probes = 0;
    for ((encoding, value), index) in (first..).zip(read).zip(0..) {
        let shown = Shown { level, what: 'W', encoding: Encoding(encoding) };
        let at = index * STRIDE as u64 * 4;
        probes += match *value {
            Some(value) if shown.encoding.op0() >= 2 => {
                // A timer whose compare value is 0 has met its condition, whatever a write of TVAL left there.
                Timer::Virtual.set_compare(0);
                Timer::Physical.set_compare(0);
                fill(&shown, at, value)
            }
            _ if shown.encoding.op0() >= 2 => once(&shown, at, 0) + once(&shown, at, u64::MAX),
            _ if shown.encoding.waits() => {
                wake_at_once(gic);
                let probes = once(&shown, at, 0);
                let_sleep(gic);
                probes
            }
            _ => once(&shown, at, operand(shown.encoding)),
        };
    }
    probes
}

/// Makes an interrupt pending, which ends every WFI; SEVL in the probe ends every WFE.
fn wake_at_once(gic: Gic) {
    gic.init_distributor();
    gic.init_cpu();
    gic.enable(timer::VIRTUAL_INTID);
    Timer::Virtual.set_compare(0);
    Timer::Virtual.set_control(timer::ENABLE);
}

/// Takes that interrupt away again.
fn let_sleep(gic: Gic) {
    Timer::Virtual.set_control(0);
    gic.disable(timer::VIRTUAL_INTID);
    gic.set_priority_mask(0);
}

fn write_probe(encoding: Encoding, level: Level, is_readable: bool) -> [u32; STRIDE] {
    let end = SVC_END;
    if is_readable && encoding.op0() >= 2 {
        let (value, fill, kept) = (encoding.read(1), encoding.write(0), encoding.read(2));
        [value, fill, ISB, kept, encoding.write(1), ISB, end, end]
    } else if encoding.is_address_translation() && level == Level::El1 {
        [encoding.write(0), ISB, MRS_PAR_X2, end, end, end, end, end]
    } else if encoding.waits() {
        [SEVL, encoding.write_alone(), ISB, end, end, end, end, end]
    } else {
        [encoding.write_alone(), ISB, end, end, end, end, end, end]
    }
}

/// Runs a probe that writes once, and says what came of it.
fn once(shown: &Shown, at: u64, value: u64) -> u64 {
    let end = execute(shown.level, at, value);
    match end.esr {
        UNDEFINED => {}
        esr if !reached_the_end(&end) => log!("{shown} !{esr:x}"),
        _ if shown.encoding.is_address_translation() => log!("{shown} ok par={:x}", end.x[2]),
        _ if end.pstate != shown.level.pstate() => log!("{shown} ok pstate={:x}", end.pstate),
        _ => log!("{shown} ok"),
    }
    1
}

/// Runs a probe that writes a readable register with each fill value, and says what the register kept.
fn fill(shown: &Shown, at: u64, value: u64) -> u64 {
    let mask = may_change(shown.encoding);
    let ends = FILLS.map(|fill| execute(shown.level, at, (fill & mask) | (value & !mask)));
    if ends.iter().any(|end| end.esr != UNDEFINED) {
        let [first, second, third, fourth] = ends.map(Kept);
        log!("{shown} fill {first} {second} {third} {fourth}");
    }
    4
}

/// What a register kept of a fill value, or the exception that came instead.
struct Kept(End);

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if reached_the_end(&self.0) { write!(f, "{:x}", self.0.x[2]) } else { write!(f, "!{:x}", self.0.esr) }
    }
}

/// Ends what SMSTART began: MSR SVCRSMZA, #0, UNDEFINED where there is none; and FPSR, which that sets.
fn leave_streaming_mode() {
    const SVCRSMZA: Encoding = Encoding::new(0, 3, 4, 6, 3);
    const FPSR: Encoding = Encoding::new(3, 3, 4, 4, 1);
    machine::load_slot(&[SVCRSMZA.write_alone(), SVC_END, FPSR.write(0), SVC_END]);
    execute(Level::El1, 0, 0);
    execute(Level::El1, 8, 0);
}

/// Runs the probe at byte `at` of the buffer, with `x0` in X0 and 0 in the others.
fn execute(level: Level, at: u64, x0: u64) -> End {
    let mut x = [0; 31];
    x[0] = x0;
    machine::run(&Start {
        x,
        sp: machine::scratch() + machine::SCRATCH_BYTES / 2,
        pc: machine::slot() + at,
        pstate: level.pstate(),
    })
}

/// Says whether the SVC at the end of a probe was what ended it.
fn reached_the_end(end: &End) -> bool {
    end.esr >> 26 == EC_SVC && end.esr & 0xffff == u64::from(END_NUMBER)
}

/// What a line of the log is about.
struct Shown {
    level: Level,
    what: char,
    encoding: Encoding,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.encoding;
        write!(f, "{}{} {}.{}.{}.", self.level as u8, self.what, it.op0(), it.op1(), it.crn())?;
        write!(f, "{}.{}", it.crm(), it.op2())
    }
}
