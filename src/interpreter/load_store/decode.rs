//! A64 loads and stores: the instruction word as what it moves, and where.
//!
//! Not here: doing it (`execute`). A word that is not decoded is unallocated, or of an extension that no VM is shown:
//! memory tags (FEAT_MTE), 64-byte accesses (FEAT_LS64), and what came after Armv9.2. Bits that should be 1 or 0 are
//! not looked at: a CPU that trapped has accepted them.
//! Follows Arm ARM DDI 0487K.a, C4.1.94 (Loads and Stores), and C5.3 for DC ZVA.

use crate::ids::Gpr;

/// A load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// What it does.
    pub kind: Kind,
    /// log2 of the bytes of an element: each is an access of its own.
    pub log2: u8,
    /// How many elements lie side by side in memory; 64 bytes at most.
    pub elements: u8,
    /// The registers that the elements belong to.
    pub registers: Registers,
    /// Register of the first element (Rt).
    pub first: Gpr,
    /// Register of the second element (Rt2), if each element has its own.
    pub second: Gpr,
    /// Operand of an atomic, what CAS expects, or where a Store-Exclusive leaves its status (Rs).
    pub source: Gpr,
    /// Where the address starts from.
    pub base: Base,
    /// What is added to it.
    pub offset: Offset,
    /// When it is added.
    pub index: Index,
    /// The access has the permissions of EL0.
    pub unprivileged: bool,
}

/// What a load or store does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing that anyone can see: a prefetch.
    Hint,
    /// Memory to registers.
    Load,
    /// Registers to memory.
    Store,
    /// A load that opens the exclusive monitor.
    LoadExclusive,
    /// A store if the monitor is still open.
    StoreExclusive,
    /// Memory to a register, and what is made of it back to memory.
    Atomic(Update),
    /// A store if memory has what is expected (CAS, CASP).
    CompareAndSwap,
    /// DC ZVA: zeroes to the block that holds the address, which is in `first`.
    Zero,
}

/// What an atomic makes of memory and its operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// The sum.
    Add,
    /// Memory without the bits of the operand.
    Clear,
    /// Exclusive or.
    Xor,
    /// Or.
    Set,
    /// The greater, signed.
    SignedMax,
    /// The lesser, signed.
    SignedMin,
    /// The greater, unsigned.
    UnsignedMax,
    /// The lesser, unsigned.
    UnsignedMin,
    /// The operand.
    Swap,
}

impl Update {
    const BY_OPC: [Self; 8] = [
        Self::Add,
        Self::Clear,
        Self::Xor,
        Self::Set,
        Self::SignedMax,
        Self::SignedMin,
        Self::UnsignedMax,
        Self::UnsignedMin,
    ];
}

/// Which registers the elements go to or come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registers {
    /// General-purpose registers. A load may extend the sign to 64 or to 32 bits.
    General {
        /// To how many bits the sign is extended, if it is.
        signed: Option<Extended>,
    },
    /// SIMD&FP registers, an element each; a load clears the rest of the register.
    Scalar,
    /// `count` SIMD&FP registers of `bytes` each, whose lanes are filled in turn (LD1 to LD4); a load clears the rest.
    Structure {
        /// Registers of one structure.
        count: u8,
        /// 8 or 16.
        bytes: u8,
    },
    /// The lane of that index of SIMD&FP registers one after another; a load keeps the rest.
    Lane(u8),
    /// Every lane of SIMD&FP registers of that many bytes one after another; the rest is cleared (LD1R to LD4R).
    Replicate(u8),
}

/// How far a sign goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extended {
    /// To a W register.
    To32,
    /// To an X register.
    To64,
}

/// Where an address starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// A register; 31 is the stack pointer.
    Register(Gpr),
    /// A register whose pointer authentication code the CPU has checked.
    Authenticated(Gpr),
    /// The instruction itself.
    Pc,
}

/// What is added to the base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offset {
    /// So many bytes.
    Immediate(i64),
    /// A register, extended as `option` says and shifted.
    Register {
        /// Which one.
        register: Gpr,
        /// UXTW, SXTW or all 64 bits.
        extend: Extend,
        /// By how many bits.
        shift: u8,
    },
}

/// How an index register becomes 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extend {
    /// It has them.
    Whole,
    /// From its low 32 bits, with zeroes.
    UnsignedWord,
    /// From its low 32 bits, with their sign.
    SignedWord,
}

/// When the offset is added, and whether the base register keeps the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Index {
    /// Before the access; the register stays.
    Offset,
    /// Before the access; the register keeps the sum.
    Pre,
    /// After the access; the register keeps the sum.
    Post,
}

const GENERAL: Registers = Registers::General { signed: None };

/// Decodes an instruction word; `None` if it is no load or store.
#[must_use]
pub fn decode(word: u32) -> Option<Instruction> {
    if word & 0xffff_ffe0 == 0xd50b_7420 {
        return Some(Instruction { kind: Kind::Zero, ..plain(word) });
    }
    match field(word, 24, 6) {
        0x08 => exclusive(word),
        0x0c => structures(word),
        0x0d => structure(word),
        0x18 | 0x1c => literal(word),
        0x19 => unscaled_ordered(word),
        0x28 | 0x29 | 0x2c | 0x2d => pair(word),
        0x38 | 0x3c => register(word),
        0x39 | 0x3d => unsigned_offset(word),
        _ => None,
    }
}

/// Returns `bits` bits of the word from bit `at` on.
const fn field(word: u32, at: u32, bits: u32) -> u8 {
    let [low, ..] = (word >> at & ((1 << bits) - 1)).to_le_bytes();
    low
}

const fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 != 0
}

/// Returns `bits` bits from bit `at` on as a signed number.
fn signed(word: u32, at: u32, bits: u32) -> i64 {
    i64::from((word << (32 - at - bits)).cast_signed() >> (32 - bits))
}

const fn gpr(word: u32, at: u32) -> Gpr {
    Gpr::new(field(word, at, 5))
}

/// The fields that most words have, as a load of a byte from \[Rn].
const fn plain(word: u32) -> Instruction {
    Instruction {
        kind: Kind::Load,
        log2: 0,
        elements: 1,
        registers: GENERAL,
        first: gpr(word, 0),
        second: gpr(word, 10),
        source: gpr(word, 16),
        base: Base::Register(gpr(word, 5)),
        offset: Offset::Immediate(0),
        index: Index::Offset,
        unprivileged: false,
    }
}

const fn load_if(load: bool) -> Kind {
    if load { Kind::Load } else { Kind::Store }
}

/// Loads and stores of one register, by `size`, `V` and `opc` (C4.1.94.22 and others).
fn single(word: u32) -> Option<Instruction> {
    let (size, opc) = (field(word, 30, 2), field(word, 22, 2));
    let plain = Instruction { log2: size, kind: load_if(opc & 1 != 0), ..plain(word) };
    if bit(word, 26) {
        let quad = opc & 2 != 0;
        let log2 = if quad { 4 } else { size };
        return (!quad || size == 0).then_some(Instruction { log2, registers: Registers::Scalar, ..plain });
    }
    let extended = |width| Registers::General { signed: Some(width) };
    match (opc, size) {
        (0 | 1, _) => Some(plain),
        (2, 3) => Some(Instruction { kind: Kind::Hint, ..plain }),
        (2, _) => Some(Instruction { kind: Kind::Load, registers: extended(Extended::To64), ..plain }),
        (3, 0 | 1) => Some(Instruction { registers: extended(Extended::To32), ..plain }),
        _ => None,
    }
}

/// Exclusives, ordered accesses, CAS and CASP.
fn exclusive(word: u32) -> Option<Instruction> {
    let (size, load) = (field(word, 30, 2), bit(word, 22));
    let plain = Instruction { log2: size, ..plain(word) };
    let kind = if load { Kind::LoadExclusive } else { Kind::StoreExclusive };
    match (bit(word, 23), bit(word, 21)) {
        (false, false) => Some(Instruction { kind, ..plain }),
        (false, true) if size >= 2 => Some(Instruction { kind, elements: 2, ..plain }),
        (false, true) => {
            let is_allocated = plain.second == Gpr::XZR && !bit(word, 16) && !bit(word, 0);
            let second = Gpr::new(plain.first.number() | 1);
            let pair =
                Instruction { kind: Kind::CompareAndSwap, log2: 2 + size, elements: 2, second, ..plain };
            is_allocated.then_some(pair)
        }
        (true, false) => Some(Instruction { kind: load_if(load), ..plain }),
        (true, true) => {
            (plain.second == Gpr::XZR).then_some(Instruction { kind: Kind::CompareAndSwap, ..plain })
        }
    }
}

/// LD1 to LD4 and ST1 to ST4 of whole registers.
fn structures(word: u32) -> Option<Instruction> {
    let (repeat, count) = match field(word, 12, 4) {
        0b0000 => (1, 4),
        0b0010 => (4, 1),
        0b0100 => (1, 3),
        0b0110 => (3, 1),
        0b0111 => (1, 1),
        0b1000 => (1, 2),
        0b1010 => (2, 1),
        _ => return None,
    };
    let (log2, bytes) = (field(word, 10, 2), 8 << field(word, 30, 1));
    let is_allocated = !bit(word, 21) && (log2 < 3 || bytes == 16 || count == 1);
    let elements = repeat * count * (bytes >> log2);
    let registers = Registers::Structure { count, bytes };
    post_indexed(word, Instruction { log2, elements, registers, ..plain(word) }).filter(|_| is_allocated)
}

/// LD1 to LD4 and ST1 to ST4 of one lane, and LD1R to LD4R.
fn structure(word: u32) -> Option<Instruction> {
    let (size, s, q) = (field(word, 10, 2), field(word, 12, 1), field(word, 30, 1));
    let elements = field(word, 13, 1) << 1 | field(word, 21, 1);
    let (log2, registers) = match field(word, 14, 2) {
        0 => (0, Registers::Lane(q << 3 | s << 2 | size)),
        1 if size & 1 == 0 => (1, Registers::Lane(q << 2 | s << 1 | size >> 1)),
        2 if size == 0 => (2, Registers::Lane(q << 1 | s)),
        2 if size == 1 && s == 0 => (3, Registers::Lane(q)),
        3 if bit(word, 22) && s == 0 => (size, Registers::Replicate(8 << q)),
        _ => return None,
    };
    post_indexed(word, Instruction { log2, elements: elements + 1, registers, ..plain(word) })
}

/// Completes a load or store of structures: no offset, or after the access what was accessed, or a register.
fn post_indexed(word: u32, instruction: Instruction) -> Option<Instruction> {
    let instruction = Instruction { kind: load_if(bit(word, 22)), ..instruction };
    if bit(word, 31) || !bit(word, 23) && field(word, 16, 5) != 0 {
        return None;
    }
    if !bit(word, 23) {
        return Some(instruction);
    }
    let offset = match instruction.source {
        Gpr::XZR => Offset::Immediate(i64::from(instruction.elements) << instruction.log2),
        register => Offset::Register { register, extend: Extend::Whole, shift: 0 },
    };
    Some(Instruction { offset, index: Index::Post, ..instruction })
}

/// LDR, LDRSW and PRFM of what is near the instruction.
fn literal(word: u32) -> Option<Instruction> {
    let opc = field(word, 30, 2);
    let plain =
        Instruction { base: Base::Pc, offset: Offset::Immediate(signed(word, 5, 19) * 4), ..plain(word) };
    match (bit(word, 26), opc) {
        (true, 3) => None,
        (true, _) => Some(Instruction { log2: 2 + opc, registers: Registers::Scalar, ..plain }),
        (false, 3) => Some(Instruction { kind: Kind::Hint, ..plain }),
        (false, 2) => {
            let registers = Registers::General { signed: Some(Extended::To64) };
            Some(Instruction { log2: 2, registers, ..plain })
        }
        (false, _) => Some(Instruction { log2: 2 + opc, ..plain }),
    }
}

/// LDAPUR*, STLUR*.
fn unscaled_ordered(word: u32) -> Option<Instruction> {
    if bit(word, 21) || field(word, 10, 2) != 0 {
        return None;
    }
    let offset = Offset::Immediate(signed(word, 12, 9));
    single(word).filter(|single| single.kind != Kind::Hint).map(|single| Instruction { offset, ..single })
}

/// LDP, LDPSW, LDNP, STP, STNP.
fn pair(word: u32) -> Option<Instruction> {
    let (opc, vector, load) = (field(word, 30, 2), bit(word, 26), bit(word, 22));
    let index = match field(word, 23, 2) {
        1 => Index::Post,
        3 => Index::Pre,
        _ => Index::Offset,
    };
    let is_no_allocate = field(word, 23, 2) == 0;
    let (log2, registers) = match (vector, opc) {
        (true, 0..=2) => (2 + opc, Registers::Scalar),
        (false, 0) => (2, GENERAL),
        (false, 1) if load && !is_no_allocate => (2, Registers::General { signed: Some(Extended::To64) }),
        (false, 2) => (3, GENERAL),
        _ => return None,
    };
    let offset = Offset::Immediate(signed(word, 15, 7) << log2);
    Some(Instruction { kind: load_if(load), log2, elements: 2, registers, offset, index, ..plain(word) })
}

/// One register: unscaled, indexed, unprivileged; atomics; register offset; pointer authentication.
fn register(word: u32) -> Option<Instruction> {
    let immediate = Offset::Immediate(signed(word, 12, 9));
    match (bit(word, 21), field(word, 10, 2)) {
        (false, mode) => {
            let single = Instruction { offset: immediate, unprivileged: mode == 2, ..single(word)? };
            let is_allocated = match mode {
                0 => true,
                2 => single.kind != Kind::Hint && single.registers != Registers::Scalar,
                _ => single.kind != Kind::Hint,
            };
            let index = match mode {
                1 => Index::Post,
                3 => Index::Pre,
                _ => Index::Offset,
            };
            is_allocated.then_some(Instruction { index, ..single })
        }
        (true, 0) => atomic(word),
        (true, 2) => register_offset(word),
        (true, _) => authenticated(word),
    }
}

/// LDADD and its like, SWP, LDAPR.
fn atomic(word: u32) -> Option<Instruction> {
    let plain = Instruction { log2: field(word, 30, 2), ..plain(word) };
    let kind = match (bit(word, 26), field(word, 12, 4)) {
        (false, opc @ 0..8) => Kind::Atomic(*Update::BY_OPC.get(usize::from(opc))?),
        (false, 8) => Kind::Atomic(Update::Swap),
        (false, 12) if field(word, 22, 2) == 0b10 => Kind::Load,
        _ => return None,
    };
    Some(Instruction { kind, ..plain })
}

fn register_offset(word: u32) -> Option<Instruction> {
    let single = single(word)?;
    let extend = match field(word, 13, 3) {
        2 => Extend::UnsignedWord,
        6 => Extend::SignedWord,
        3 | 7 => Extend::Whole,
        _ => return None,
    };
    let shift = if bit(word, 12) { single.log2 } else { 0 };
    Some(Instruction { offset: Offset::Register { register: single.source, extend, shift }, ..single })
}

/// LDRAA, LDRAB.
fn authenticated(word: u32) -> Option<Instruction> {
    let offset = signed(word, 22, 1) << 9 | i64::from(word >> 12 & 0x1ff);
    let index = if bit(word, 11) { Index::Pre } else { Index::Offset };
    let base = Base::Authenticated(gpr(word, 5));
    let is_allocated = !bit(word, 26) && field(word, 30, 2) == 3;
    let offset = Offset::Immediate(offset * 8);
    is_allocated.then_some(Instruction { log2: 3, base, offset, index, ..plain(word) })
}

fn unsigned_offset(word: u32) -> Option<Instruction> {
    let single = single(word)?;
    let offset = Offset::Immediate(i64::from(word >> 10 & 0xfff) << single.log2);
    Some(Instruction { offset, ..single })
}
