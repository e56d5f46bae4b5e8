//! Memory copy and set (FEAT_MOPS): some of what is left to do, byte by byte.
//!
//! Not here: their end. After any byte these instructions can be interrupted, with what is left in registers, and be
//! executed again. That is what the CPU does after each call of this, until it finds nothing left that it cannot do by
//! itself. A prologue remains a prologue meanwhile: whether the CPU's main part goes by option A or B (PSTATE.C), and what
//! sizes and alignments it takes (`MemCpyParametersIllformedM`), only the CPU's own prologue knows.
//! Follows Arm ARM DDI 0487K.a, C6.2 (SETP, CPYFP, CPYP and what follows them) and J1.1 (`IsMemCpyForward`).

use crate::block::MOST_BYTES;
use crate::decode::{Instruction, Kind};
use crate::execute::{Cpu, Fault, byte, page};

/// Most bytes of CPY* (`ArchMaxMOPSCPYSize`), and of the others (`ArchMaxMOPSBlockSize`).
const MOST_OF_COPY: u64 = (1 << 55) - 1;
const MOST_OF_OTHERS: u64 = (1 << 63) - 1;
/// Addresses are compared without a tag.
const ADDRESS: u64 = (1 << 56) - 1;
/// PSTATE.N and C in NZCV.
const NEGATIVE: u8 = 0b1000;
const CARRY: u8 = 0b0010;

/// Copies or sets at most [`MOST_BYTES`]. What is done is done, and the registers say so, if the next byte fails.
pub(crate) fn go_on(instruction: &Instruction, cpu: &mut dyn Cpu) -> Result<(), Fault> {
    let Instruction { kind, first, second, source, .. } = *instruction;
    let [mut to, mut from, mut size] = [first, source, second].map(|register| cpu.get(register));
    if instruction.is_prologue {
        size = size.min(if kind == Kind::Copy { MOST_OF_COPY } else { MOST_OF_OTHERS });
    }
    let (is_anchored, is_backward) = form(instruction, [to, from, size], cpu.nzcv());
    let [mut value, ..] = from.to_le_bytes().map(u64::from);
    for _ in 0..MOST_BYTES {
        if size == 0 {
            break;
        }
        // Where the byte is from the addresses, and what it changes in them and in the size.
        let (offset, moved, counted) = match (is_anchored, is_backward) {
            (false, false) => (0, 1, -1),
            (false, true) => (-1, -1, -1),
            (true, false) => (size.cast_signed(), 0, 1),
            (true, true) => (size.wrapping_sub(1).cast_signed(), 0, -1),
        };
        if kind != Kind::Set {
            let at = from.wrapping_add_signed(offset);
            value = byte(page(at, false, instruction.reads_unprivileged, cpu)?, at, None, cpu)?;
            from = from.wrapping_add_signed(moved);
        }
        let at = to.wrapping_add_signed(offset);
        byte(page(at, true, instruction.unprivileged, cpu)?, at, Some(value), cpu)?;
        to = to.wrapping_add_signed(moved);
        size = size.wrapping_add_signed(counted);
        cpu.set(first, to);
        cpu.set(source, from);
        cpu.set(second, size);
    }
    Ok(())
}

/// Says how the registers describe what is left: whether the addresses stay what they are, with the size as an offset from
/// them, and whether the last byte comes first.
fn form(instruction: &Instruction, [to, from, size]: [u64; 3], nzcv: u8) -> (bool, bool) {
    let is_copy = instruction.kind == Kind::Copy;
    if instruction.is_prologue {
        let (to, from) = (to & ADDRESS, from & ADDRESS);
        let is_backward = is_copy && from < to && to - from < size;
        return (is_backward, is_backward);
    }
    let is_option_a = nzcv & CARRY == 0;
    let is_backward = if is_option_a { size.cast_signed() > 0 } else { nzcv & NEGATIVE != 0 };
    (is_option_a, is_copy && is_backward)
}

#[cfg(test)]
mod tests;
