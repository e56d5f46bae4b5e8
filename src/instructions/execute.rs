//! Does a load or store: addresses from registers, and what becomes of registers and memory.
//!
//! Not here: what the CPU checked before stage 2, and so before the trap: the alignment of SP, of exclusives, atomics and
//! ordered accesses, of all accesses by SCTLR_EL1.A and to Device memory, DC ZVA of Device memory, and traps of SIMD&FP
//! (R_XCHFJ says in which order).
//! Follows Arm ARM DDI 0487K.a, B2.12 (exclusives), C6.2 and C7.2.

use core::sync::atomic::{Ordering, fence};

use crate::block::Block;
use crate::bulk;
use crate::decode::{Base, Extend, Index, Instruction, Kind, Offset, Update};
use vocabulary::addr::{Ipa, PAGE_BYTES, Pa};
use vocabulary::ids::Gpr;

/// V0 to V31, the first byte of each its least significant.
#[repr(C, align(16))]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vectors(pub [u8; 512]);

/// What a Load-Exclusive remembers for the Store-Exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exclusive {
    address: u64,
    bytes: u8,
    elements: [u64; 2],
}

/// Where bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In memory of the machine that the VM has by its stage 2.
    Ram(Pa),
    /// Where stage 2 maps nothing: in a device, or nowhere.
    Elsewhere(Ipa),
}

impl Place {
    /// Returns the place `bytes` further.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        match self {
            Self::Ram(at) => Self::Ram(Pa::new(at.get().wrapping_add(bytes))),
            Self::Elsewhere(at) => Self::Elsewhere(Ipa::new(at.get().wrapping_add(bytes))),
        }
    }
}

/// Why an access fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Nothing is there.
    External,
    /// The guest's stage 1 does not allow it: the fault status as ESR_EL1.ISS.DFSC has it.
    Stage1(u8),
}

/// An access that fails: how, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The first address that it fails for.
    pub address: u64,
    /// What is wrong.
    pub reason: Reason,
    /// It was a write.
    pub write: bool,
}

/// The CPU that executes, and its memory.
pub trait Cpu {
    /// Reads a general-purpose register.
    fn get(&self, register: Gpr) -> u64;

    /// Writes a general-purpose register.
    fn set(&mut self, register: Gpr, value: u64);

    /// Returns PSTATE.N, Z, C and V, in bits 3 to 0.
    fn nzcv(&self) -> u8;

    /// Returns the address of the instruction.
    fn pc(&self) -> u64;

    /// Reads the stack pointer that PSTATE selects.
    fn stack_pointer(&self) -> u64;

    /// Writes the stack pointer that PSTATE selects.
    fn set_stack_pointer(&mut self, value: u64);

    /// Reads the SIMD&FP registers.
    fn vectors(&self) -> Vectors;

    /// Writes the SIMD&FP registers.
    fn set_vectors(&mut self, vectors: &Vectors);

    /// Returns the exclusive monitor.
    fn monitor(&mut self) -> &mut Option<Exclusive>;

    /// Tells whether data accesses are big-endian.
    fn is_big_endian(&self) -> bool;

    /// Returns the size of what DC ZVA clears, a power of two that a page is a multiple of.
    fn zero_block_bytes(&self) -> u64;

    /// Finds the page of `address`.
    ///
    /// # Errors
    /// What the access faults with.
    fn translate(&mut self, address: u64, write: bool, unprivileged: bool) -> Result<Place, Reason>;

    /// Reads or writes 1, 2, 4 or 8 bytes at a place that is aligned to them; `None` if nothing is there. The value means
    /// nothing for a write.
    fn access(&mut self, at: Place, bytes: u8, write: Option<u64>) -> Option<u64>;
}

/// Executes a load or store, but for the step to the next instruction. No register has changed if it fails.
///
/// Of a memory copy or set it does a part, whether that succeeds or fails, and then the registers say what is left of it: the
/// CPU is to execute the instruction again.
///
/// `far` is the address that the CPU came to: of a load that authenticates its address only the CPU knows it.
///
/// # Errors
/// What makes it take an exception.
#[inline(never)]
pub fn execute(instruction: &Instruction, far: u64, cpu: &mut dyn Cpu) -> Result<(), Fault> {
    match instruction.kind {
        Kind::Hint => return Ok(()),
        Kind::Zero => return zero(cpu.get(instruction.first), cpu),
        kind if kind.is_bulk() => return bulk::go_on(instruction, cpu),
        _ => {}
    }
    let added = offset(instruction, cpu);
    let mut start = match instruction.base {
        Base::Pc => cpu.pc(),
        Base::Register(Gpr::XZR) | Base::Authenticated(Gpr::XZR) => cpu.stack_pointer(),
        Base::Register(base) | Base::Authenticated(base) => cpu.get(base),
    };
    if let Base::Authenticated(_) = instruction.base {
        // The upper bits hold the code. The CPU came to this page with the address, or to the one after it.
        let forged = start.wrapping_add(added);
        start = far.wrapping_sub(far.wrapping_sub(forged) & (PAGE_BYTES - 1)).wrapping_sub(added);
    }
    let sum = start.wrapping_add(added);
    let address = if instruction.index == Index::Post { start } else { sum };
    let mut block = Block::new(instruction, address);
    // Those that order are not told from those that need not: what is emulated is slow as it is.
    fence(Ordering::SeqCst);
    transfer(instruction, &mut block, cpu)?;
    fence(Ordering::SeqCst);
    match instruction.base {
        _ if instruction.index == Index::Offset => {}
        Base::Register(Gpr::XZR) | Base::Authenticated(Gpr::XZR) => cpu.set_stack_pointer(sum),
        Base::Register(base) | Base::Authenticated(base) => cpu.set(base, sum),
        Base::Pc => {}
    }
    Ok(())
}

fn offset(instruction: &Instruction, cpu: &dyn Cpu) -> u64 {
    match instruction.offset {
        Offset::Immediate(bytes) => bytes.cast_unsigned(),
        Offset::Register { register, extend, shift } => {
            let value = cpu.get(register);
            let extended = match extend {
                Extend::Whole => value,
                Extend::UnsignedWord => value & 0xffff_ffff,
                Extend::SignedWord => sign_extended(value, 4),
            };
            extended << shift
        }
    }
}

/// Extends the sign of the low `bytes` (1 to 8) of `value`.
pub(crate) fn sign_extended(value: u64, bytes: u8) -> u64 {
    let unused_bits = 64 - 8 * u32::from(bytes);
    ((value << unused_bits).cast_signed() >> unused_bits).cast_unsigned()
}

/// Moves the bytes between registers and memory. What is read is read before anything is written.
fn transfer(instruction: &Instruction, block: &mut Block, cpu: &mut dyn Cpu) -> Result<(), Fault> {
    let kind = instruction.kind;
    let mut exclusive = Exclusive { address: block.address, bytes: block.bytes, elements: [0; 2] };
    let monitor = if kind == Kind::StoreExclusive { cpu.monitor().take() } else { None };
    if kind == Kind::StoreExclusive
        && monitor.is_none_or(|open| open.address != block.address || open.bytes != block.bytes)
    {
        cpu.set(instruction.source, 1);
        return Ok(());
    }
    let (loads, stores) = match kind {
        Kind::Load | Kind::LoadExclusive => (true, false),
        Kind::Store | Kind::StoreExclusive => (false, true),
        _ => (true, true), // what cannot be read faults as a read
    };
    if loads {
        block.map(false, cpu)?;
    }
    if stores {
        block.map(true, cpu)?;
    }
    if kind != Kind::Store {
        block.read(cpu)?;
    }
    exclusive.elements = [block.get(0), block.get(1)];
    let [old, _] = exclusive.elements;
    let is_written = match kind {
        Kind::Store => true,
        Kind::StoreExclusive => monitor == Some(exclusive),
        Kind::CompareAndSwap => (0_u8..)
            .zip(exclusive.elements)
            .take(usize::from(instruction.elements))
            .all(|(element, memory)| memory == cpu.get(expected(instruction, element)) & mask(block.element)),
        _ => false,
    };
    if is_written {
        block.take(instruction, cpu);
    }
    if let Kind::Atomic(update) = kind {
        block.put(0, updated(update, old, cpu.get(instruction.source), block.element));
    }
    if is_written || matches!(kind, Kind::Atomic(_)) {
        block.write(cpu)?;
    }
    match kind {
        Kind::StoreExclusive => cpu.set(instruction.source, u64::from(!is_written)),
        Kind::Atomic(_) => cpu.set(instruction.first, old),
        Kind::CompareAndSwap => {
            for (element, memory) in (0..instruction.elements).zip(exclusive.elements) {
                cpu.set(expected(instruction, element), memory);
            }
        }
        Kind::Load | Kind::LoadExclusive => {
            if kind == Kind::LoadExclusive {
                *cpu.monitor() = Some(exclusive);
            }
            block.give(instruction, cpu);
        }
        _ => {}
    }
    Ok(())
}

fn mask(bytes: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(bytes))
}

/// Returns the register with what CAS and CASP expect of an element; those of a pair are even and odd.
const fn expected(instruction: &Instruction, element: u8) -> Gpr {
    Gpr::new(instruction.source.number() | element)
}

/// Returns what an atomic leaves in memory, and more bits than fit.
fn updated(update: Update, old: u64, operand: u64, bytes: u8) -> u64 {
    let operand = operand & mask(bytes);
    let signed = |value| sign_extended(value, bytes).cast_signed();
    let take_operand = match update {
        Update::Add => return old.wrapping_add(operand),
        Update::Clear => return old & !operand,
        Update::Xor => return old ^ operand,
        Update::Set => return old | operand,
        Update::Swap => true,
        Update::SignedMax => signed(operand) > signed(old),
        Update::SignedMin => signed(operand) < signed(old),
        Update::UnsignedMax => operand > old,
        Update::UnsignedMin => operand < old,
    };
    if take_operand { operand } else { old }
}

/// DC ZVA: zeroes, each byte a store (Arm ARM DDI 0487K.a, C5.3.30).
fn zero(address: u64, cpu: &mut dyn Cpu) -> Result<(), Fault> {
    let page = page(address, true, false, cpu)?;
    let size_bytes = cpu.zero_block_bytes();
    for at in 0..size_bytes {
        byte(page, address & !(size_bytes - 1) | at, Some(0), cpu)?;
    }
    Ok(())
}

/// Finds the page of `address`.
pub(crate) fn page(address: u64, write: bool, unprivileged: bool, cpu: &mut dyn Cpu) -> Result<Place, Fault> {
    cpu.translate(address, write, unprivileged).map_err(|reason| Fault { address, reason, write })
}

/// Reads or writes the byte at `address`, which is in that page.
pub(crate) fn byte(page: Place, address: u64, write: Option<u64>, cpu: &mut dyn Cpu) -> Result<u64, Fault> {
    let answer = cpu.access(page.plus(address & (PAGE_BYTES - 1)), 1, write);
    answer.ok_or(Fault { address, reason: Reason::External, write: write.is_some() })
}

#[cfg(test)]
pub(crate) mod tests;
