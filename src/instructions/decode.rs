//! A64 loads and stores: the instruction word as what it moves, and where.
//!
//! Not here: doing it (`execute`). A word that is not decoded is unallocated, or of an extension that no VM is shown:
//! memory tags (FEAT_MTE), 64-byte accesses (FEAT_LS64), and what came after Armv9.2. Bits that should be 1 or 0 are
//! not looked at: a CPU that trapped has accepted them.
//! Follows Arm ARM DDI 0487K.a, C4.1.94 (Loads and Stores), and C5.3 for DC ZVA.

use vocabulary::ids::Gpr;

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
    /// The access has the permissions of EL0; of a copy, what is written.
    pub unprivileged: bool,
    /// What a copy reads has the permissions of EL0.
    pub reads_unprivileged: bool,
    /// Of a memory copy or set, the first of its three instructions.
    pub is_prologue: bool,
}

impl Instruction {
    /// Returns the register of an element, where each of at most two has its own.
    #[must_use]
    pub const fn register(&self, element: u8) -> Gpr {
        if element == 0 { self.first } else { self.second }
    }
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
    /// A part of SET*: bytes that are all as in `source`. Here and in a copy `first` has where to, and `second` how many.
    Set,
    /// A part of CPYF*: bytes from where `source` says, copied from the first to the last.
    CopyForward,
    /// A part of CPY*: the same in the direction that suits an overlap.
    Copy,
}

impl Kind {
    /// Tells whether it is a part of a memory copy or set (FEAT_MOPS): it is done in parts, and has to be executed again.
    #[must_use]
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::Set | Self::CopyForward | Self::Copy)
    }
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

const TO_64: Registers = Registers::General { signed: Some(Extended::To64) };

/// Decodes an instruction word; `None` if it is no load or store.
#[must_use]
#[inline(never)]
pub fn decode(word: u32) -> Option<Instruction> {
    let mut instruction = Instruction {
        kind: if bit(word, 22) { Kind::Load } else { Kind::Store },
        log2: field(word, 30, 2),
        elements: 1,
        registers: Registers::General { signed: None },
        first: gpr(word, 0),
        second: gpr(word, 10),
        source: gpr(word, 16),
        base: Base::Register(gpr(word, 5)),
        offset: Offset::Immediate(0),
        index: Index::Offset,
        unprivileged: false,
        reads_unprivileged: false,
        is_prologue: false,
    };
    let group = match field(word, 24, 6) {
        0x08 => exclusive,
        0x0c => structures,
        0x0d => structure,
        0x18 | 0x1c => literal,
        0x19 | 0x1d if bit(word, 10) => bulk,
        0x19 => unscaled_ordered,
        0x28 | 0x29 | 0x2c | 0x2d => pair,
        0x38 | 0x3c => register,
        0x39 | 0x3d => unsigned_offset,
        _ if word & 0xffff_ffe0 == 0xd50b_7420 => zero,
        _ => return None,
    };
    group(word, &mut instruction).then_some(instruction)
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

fn zero(_: u32, it: &mut Instruction) -> bool {
    it.kind = Kind::Zero;
    true
}

/// Loads and stores of one register, by `size`, `V` and `opc`. `false` for what is not allocated.
#[inline(never)]
fn single(word: u32, it: &mut Instruction) -> bool {
    let opc = field(word, 22, 2);
    if bit(word, 26) {
        it.registers = Registers::Scalar;
        if opc >= 2 {
            let is_allocated = it.log2 == 0;
            it.log2 = 4;
            return is_allocated;
        }
        return true;
    }
    match (opc, it.log2) {
        (2, 3) => it.kind = Kind::Hint,
        (2, _) => {
            it.kind = Kind::Load;
            it.registers = TO_64;
        }
        (3, 0 | 1) => it.registers = Registers::General { signed: Some(Extended::To32) },
        (3, _) => return false,
        _ => {}
    }
    true
}

/// Exclusives, ordered accesses, CAS and CASP.
fn exclusive(word: u32, it: &mut Instruction) -> bool {
    let is_pair = bit(word, 21);
    match (bit(word, 23), is_pair) {
        (true, false) => return true,
        (false, _) if !is_pair || it.log2 >= 2 => {
            it.kind = if it.kind == Kind::Load { Kind::LoadExclusive } else { Kind::StoreExclusive };
            it.elements = if is_pair { 2 } else { 1 };
            return true;
        }
        _ => {}
    }
    let is_allocated = it.second == Gpr::XZR;
    it.kind = Kind::CompareAndSwap;
    if bit(word, 23) {
        return is_allocated;
    }
    it.second = Gpr::new(it.first.number() | 1);
    it.log2 += 2;
    it.elements = 2;
    is_allocated && word & 0x0001_0001 == 0
}

/// LD1 to LD4 and ST1 to ST4 of whole registers.
fn structures(word: u32, it: &mut Instruction) -> bool {
    let (repeat, count) = match field(word, 12, 4) {
        0b0000 => (1, 4),
        0b0010 => (4, 1),
        0b0100 => (1, 3),
        0b0110 => (3, 1),
        0b0111 => (1, 1),
        0b1000 => (1, 2),
        0b1010 => (2, 1),
        _ => return false,
    };
    let bytes = 8 << field(word, 30, 1);
    it.log2 = field(word, 10, 2);
    it.elements = repeat * count * (bytes >> it.log2);
    it.registers = Registers::Structure { count, bytes };
    !bit(word, 21) && (it.log2 < 3 || bytes == 16 || count == 1) && post_indexed(word, it)
}

/// LD1 to LD4 and ST1 to ST4 of one lane, and LD1R to LD4R.
fn structure(word: u32, it: &mut Instruction) -> bool {
    let (size, s, q) = (field(word, 10, 2), field(word, 12, 1), field(word, 30, 1));
    // The number of the lane is in all of Q, S and size but for the bits that say how wide it is.
    let lane = q << 3 | s << 2 | size;
    let scale = field(word, 14, 2);
    it.log2 = if scale == 2 { 2 + (size & 1) } else { scale };
    it.registers = Registers::Lane(lane >> it.log2);
    let is_allocated = match scale {
        0 => true,
        1 => size & 1 == 0,
        2 => size == 0 || size == 1 && s == 0,
        _ => {
            it.log2 = size;
            it.registers = Registers::Replicate(8 << q);
            bit(word, 22) && s == 0
        }
    };
    it.elements = 1 + (field(word, 13, 1) << 1 | field(word, 21, 1));
    is_allocated && post_indexed(word, it)
}

/// Completes a load or store of structures: no offset, or after the access what was accessed, or a register.
#[inline(never)]
fn post_indexed(word: u32, it: &mut Instruction) -> bool {
    if bit(word, 23) {
        it.index = Index::Post;
        it.offset = match it.source {
            Gpr::XZR => Offset::Immediate(i64::from(it.elements) << it.log2),
            register => Offset::Register { register, extend: Extend::Whole, shift: 0 },
        };
    }
    !bit(word, 31) && (bit(word, 23) || it.source == Gpr::new(0))
}

/// LDR, LDRSW and PRFM of what is near the instruction.
fn literal(word: u32, it: &mut Instruction) -> bool {
    it.base = Base::Pc;
    it.offset = Offset::Immediate(signed(word, 5, 19) * 4);
    it.kind = Kind::Load;
    let is_vector = bit(word, 26);
    match it.log2 {
        3 if !is_vector => it.kind = Kind::Hint,
        2 if !is_vector => {
            it.log2 = 2;
            it.registers = TO_64;
            return true;
        }
        _ if is_vector => it.registers = Registers::Scalar,
        _ => {}
    }
    it.log2 += 2;
    it.log2 < 5 || !is_vector
}

/// LDAPUR*, STLUR*.
fn unscaled_ordered(word: u32, it: &mut Instruction) -> bool {
    it.offset = Offset::Immediate(signed(word, 12, 9));
    word & 0x0020_0c00 == 0 && single(word, it) && it.kind != Kind::Hint
}

/// SET*, CPYF* and CPY*, but for SETG*. Registers that no CPU that trapped has accepted are not decoded.
fn bulk(word: u32, it: &mut Instruction) -> bool {
    let (kind, part) = match (field(word, 22, 2), bit(word, 26)) {
        (3, false) => (Kind::Set, field(word, 14, 2)),
        (3, true) => return false,
        (part, false) => (Kind::CopyForward, part),
        (part, true) => (Kind::Copy, part),
    };
    it.kind = kind;
    it.second = gpr(word, 5);
    it.is_prologue = part == 0;
    [it.unprivileged, it.reads_unprivileged] = [bit(word, 12), bit(word, 13)];
    let is_distinct = it.first != it.second && it.first != it.source && it.second != it.source;
    let is_there = it.first != Gpr::XZR && it.second != Gpr::XZR;
    let has_source = it.source != Gpr::XZR || kind == Kind::Set;
    word & 0xc020_0800 == 0 && part < 3 && is_distinct && is_there && has_source
}

/// LDP, LDPSW, LDNP, STP, STNP.
fn pair(word: u32, it: &mut Instruction) -> bool {
    let mode = field(word, 23, 2);
    it.index = match mode {
        1 => Index::Post,
        3 => Index::Pre,
        _ => Index::Offset,
    };
    let opc = it.log2;
    let is_allocated = if bit(word, 26) {
        it.registers = Registers::Scalar;
        it.log2 += 2;
        opc < 3
    } else {
        it.log2 = 2 + (opc >> 1);
        if opc & 1 != 0 {
            it.registers = TO_64;
        }
        opc & 1 == 0 || opc == 1 && it.kind == Kind::Load && mode != 0
    };
    it.elements = 2;
    it.offset = Offset::Immediate(signed(word, 15, 7) << it.log2);
    is_allocated
}

/// One register: unscaled, indexed, unprivileged; atomics; register offset; pointer authentication.
fn register(word: u32, it: &mut Instruction) -> bool {
    let mode = field(word, 10, 2);
    if bit(word, 21) {
        return match mode {
            0 => atomic(word, it),
            2 => register_offset(word, it),
            _ => authenticated(word, it),
        };
    }
    it.offset = Offset::Immediate(signed(word, 12, 9));
    it.index = match mode {
        1 => Index::Post,
        3 => Index::Pre,
        _ => Index::Offset,
    };
    it.unprivileged = mode == 2;
    single(word, it) && (mode == 0 || it.kind != Kind::Hint) && !(it.unprivileged && bit(word, 26))
}

/// LDADD and its like, SWP, LDAPR.
fn atomic(word: u32, it: &mut Instruction) -> bool {
    it.kind = match field(word, 12, 4) {
        0 => Kind::Atomic(Update::Add),
        1 => Kind::Atomic(Update::Clear),
        2 => Kind::Atomic(Update::Xor),
        3 => Kind::Atomic(Update::Set),
        4 => Kind::Atomic(Update::SignedMax),
        5 => Kind::Atomic(Update::SignedMin),
        6 => Kind::Atomic(Update::UnsignedMax),
        7 => Kind::Atomic(Update::UnsignedMin),
        8 => Kind::Atomic(Update::Swap),
        12 if field(word, 22, 2) == 0b10 => Kind::Load,
        _ => return false,
    };
    !bit(word, 26)
}

fn register_offset(word: u32, it: &mut Instruction) -> bool {
    let is_allocated = single(word, it);
    let extend = match field(word, 13, 3) {
        2 => Extend::UnsignedWord,
        6 => Extend::SignedWord,
        3 | 7 => Extend::Whole,
        _ => return false,
    };
    let shift = if bit(word, 12) { it.log2 } else { 0 };
    it.offset = Offset::Register { register: it.source, extend, shift };
    is_allocated
}

/// LDRAA, LDRAB.
fn authenticated(word: u32, it: &mut Instruction) -> bool {
    it.kind = Kind::Load;
    it.offset = Offset::Immediate(signed(word, 22, 1) << 12 | i64::from(word >> 12 & 0x1ff) << 3);
    it.index = if bit(word, 11) { Index::Pre } else { Index::Offset };
    it.base = Base::Authenticated(gpr(word, 5));
    it.log2 == 3 && !bit(word, 26)
}

fn unsigned_offset(word: u32, it: &mut Instruction) -> bool {
    let is_allocated = single(word, it);
    it.offset = Offset::Immediate(i64::from(word >> 10 & 0xfff) << it.log2);
    is_allocated
}
