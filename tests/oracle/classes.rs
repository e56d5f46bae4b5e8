//! The loads and stores by the bits that their encodings share, and random cases of each.
//!
//! Follows Arm ARM DDI 0487K.a, C4.1.94.

use instructions::{Base, Extend, Index, Instruction, Kind, Offset, Registers, decode};

use super::case::{CODE, Case, DEVICE_WINDOW, EDGES, NORMAL_WINDOW, RAM_WINDOW, Random};

const NOP: u32 = 0xd503_201f;
/// A whole memory copy or set, of which only the end is compared: how much of it each instruction does, what registers hold
/// in between (option A or B), and so which of them an access fails in, the architecture leaves to the CPU. QEMU's prologue
/// and main part go by pages, Trapeze goes on within the prologue.
const BULK: &str = "memory copy and set";
/// Bits that make a word one of the class of loads and stores: x1x0 in bits 28 to 25.
const LOADS_AND_STORES: (u32, u32) = (0x0a00_0000, 0x0800_0000);

/// A class: random words with some bits given.
pub struct Class {
    /// What it is called in reports.
    pub name: &'static str,
    mask: u32,
    value: u32,
    /// A Store-Exclusive follows.
    is_exclusive: bool,
}

const fn class(name: &'static str, mask: u32, value: u32) -> Class {
    Class { name, mask, value, is_exclusive: false }
}

/// All classes.
pub const CLASSES: [Class; 17] = [
    class("unscaled, indexed, unprivileged", 0x3b20_0000, 0x3800_0000),
    class("unsigned offset", 0x3b00_0000, 0x3900_0000),
    class("register offset", 0x3b20_0c00, 0x3820_0800),
    class("pointer authentication", 0xff20_0400, 0xf820_0400),
    class("literal", 0x3b00_0000, 0x1800_0000),
    class("pair", 0x3a00_0000, 0x2800_0000),
    class("ordered", 0x3fbf_7c00, 0x089f_7c00),
    class("ordered, unscaled", 0x3f20_0c00, 0x1900_0000),
    Class { is_exclusive: true, ..class("exclusive", 0x3fe0_0000, 0x0840_0000) },
    Class { is_exclusive: true, ..class("exclusive pair", 0xbfe0_0000, 0x8860_0000) },
    class("compare and swap", 0x3fa0_7c00, 0x08a0_7c00),
    class("compare and swap pair", 0xbfa0_7c00, 0x0820_7c00),
    class("atomic", 0x3b20_0c00, 0x3820_0000),
    class("structures", 0xbf20_0000, 0x0c00_0000),
    class("structure", 0xbf00_0000, 0x0d00_0000),
    class(BULK, 0xfb20_0c00, 0x1900_0400),
    class("everything", LOADS_AND_STORES.0, LOADS_AND_STORES.1),
];

/// DC ZVA is no class of loads and stores.
pub const ZERO: Class = class("DC ZVA", 0xffff_ffe0, 0xd50b_7420);

impl Class {
    /// Makes the case of a number.
    pub fn case(&self, seed: u64) -> Case {
        self.case_in(seed, &|_, _| (RAM_WINDOW + 0x200 - 96, 128))
    }

    /// Makes the case of a number that works on a device; none if it cannot be compared. Of an exclusive pair only the
    /// load: the exception between them closes the monitor.
    pub fn device_case(&self, seed: u64) -> Option<Case> {
        // A literal is near the instruction. What is nothing everywhere is the CPU's affair.
        if self.name == "literal" || self.name == "everything" {
            return None;
        }
        if self.name == BULK {
            let case = self.case_in(seed, &|bytes, random| {
                // RAM on both sides of a page, of its end and GICD_CTLR, and both kinds of the device.
                let starts = 65_u64.saturating_sub(bytes).max(1);
                match random.next() % 8 {
                    0 => (EDGES, starts),
                    1 => (EDGES + 0xfc0, starts),
                    2 => (EDGES + 0x1001 - bytes, 4),
                    3..=4 => (NORMAL_WINDOW, starts),
                    _ => (DEVICE_WINDOW, starts),
                }
            });
            return (case.index <= 64).then_some(case);
        }
        let case = self.case_in(seed, &|bytes, random| {
            // From RAM into GICD_CTLR, from what is reserved into nothing, and from there into RAM that is read-only.
            match random.next() % 8 {
                0 => (EDGES + 0x1001 - bytes, 4),
                1 => (EDGES + 0x1ffc - bytes, 8),
                2 => (EDGES + 0x3ffc - bytes, 8),
                3..=4 => (NORMAL_WINDOW, 65 - bytes),
                _ => (DEVICE_WINDOW, 65 - bytes),
            }
        });
        let is_same = decode(case.words[0]).is_none_or(|instruction| {
            !(is_merged(&instruction, case.big_endian) || is_partial(&instruction) && may_fault(&case))
        });
        is_same.then_some(Case { words: [case.words[0], NOP, NOP], ..case })
    }

    fn case_in(&self, seed: u64, window: Window<'_>) -> Case {
        let mut random = Random(seed);
        loop {
            if let Some(case) = self.attempt(window, &mut random) {
                return case;
            }
        }
    }

    fn attempt(&self, window: Window<'_>, random: &mut Random) -> Option<Case> {
        let word = low(random.next()) & !self.mask | self.value;
        let flags = random.next();
        let mut case = Case {
            words: [word, NOP, NOP],
            seed: random.next(),
            base: 0,
            index: 0,
            source: 0,
            base_register: 31,
            index_register: 31,
            source_register: 31,
            big_endian: flags & 1 != 0,
            sparse: flags & 6 == 0,
        };
        let Some(instruction) = decode(word) else { return (!is_hidden(word)).then_some(case) };
        if is_unpredictable(word, &instruction) {
            return None;
        }
        if instruction.kind.is_bulk() {
            return place_bulk(case, &instruction, window, random);
        }
        if self.is_exclusive {
            case.words[1] = self.store_exclusive(word, random);
        }
        place(&mut case, &instruction, window, random)?;
        Some(case)
    }

    /// Makes the Store-Exclusive that belongs to a Load-Exclusive, mostly.
    fn store_exclusive(&self, word: u32, random: &mut Random) -> u32 {
        let choice = random.next();
        let others = low(random.next()) & 0x001f_ffff;
        let base = if choice & 7 == 0 { others & 0x3e0 } else { word & 0x3e0 };
        (word & 0xffe0_0000 ^ 1 << 22) | others & !0x3e0 | base
    }
}

/// Says where accesses of so many bytes begin: at which address, or at one of how many from there on.
type Window<'a> = &'a dyn Fn(u64, &mut Random) -> (u64, u64);

/// Chooses registers such that the access is in the window; `None` if they cannot be chosen.
fn place(case: &mut Case, instruction: &Instruction, window: Window<'_>, random: &mut Random) -> Option<()> {
    let bytes = u64::from(instruction.elements) << instruction.log2;
    let must_be_aligned = match instruction.kind {
        Kind::LoadExclusive | Kind::StoreExclusive | Kind::Atomic(_) | Kind::CompareAndSwap => true,
        _ => orders(case.words[0]),
    };
    let (start, starts) = window(if instruction.kind == Kind::Zero { 33 } else { bytes }, random);
    let mut address = start + random.next() % starts;
    if must_be_aligned {
        address &= !(bytes.next_power_of_two() - 1);
    }
    let added = match instruction.offset {
        Offset::Immediate(bytes) => bytes.cast_unsigned(),
        Offset::Register { register, extend, shift } if instruction.index == Index::Offset => {
            case.index = random.next() % 16;
            if extend != Extend::Whole {
                case.index |= random.next() << 32;
            }
            if extend == Extend::SignedWord && random.next() & 1 != 0 {
                case.index = case.index & !0xffff_ffff | 0xffff_fff0;
            }
            case.index_register = register.number();
            let index = if register.number() == 31 { 0 } else { case.index };
            let extended = match extend {
                Extend::Whole => index,
                Extend::UnsignedWord => index & 0xffff_ffff,
                Extend::SignedWord => i64::from(low(index).cast_signed()).cast_unsigned(),
            };
            extended << shift
        }
        Offset::Register { .. } => 0,
    };
    let tag = if random.next() & 1 != 0 { random.next() & 0xff << 56 } else { 0 };
    let base = match instruction.base {
        Base::Register(base) | Base::Authenticated(base) => base.number(),
        Base::Pc => {
            // The instruction itself says where.
            let distance = low(address - CODE) / 4;
            case.words[0] = case.words[0] & !(0x7_ffff << 5) | distance << 5;
            return Some(());
        }
    };
    case.base_register = if instruction.kind == Kind::Zero { instruction.first.number() } else { base };
    let moved = if instruction.index == Index::Post { 0 } else { added };
    case.base = address.wrapping_sub(moved) | tag;
    if let Base::Authenticated(_) = instruction.base {
        case.base = (start + starts / 2).wrapping_sub(moved);
    }
    let is_wild = case.index_register < 31 && case.index_register == case.base_register
        || instruction.kind == Kind::Zero && case.base_register == 31
        || tag != 0 && case.base.wrapping_add(moved) >> 56 != tag >> 56;
    (!is_wild).then_some(())
}

/// Makes a whole memory copy or set of one of its instructions; `None` if its bytes depend on how many are copied at once.
fn place_bulk(
    mut case: Case,
    instruction: &Instruction,
    window: Window<'_>,
    random: &mut Random,
) -> Option<Case> {
    let part = if instruction.kind == Kind::Set { 14 } else { 22 };
    case.words = [0, 1, 2].map(|number| case.words[0] & !(3 << part) | number << part);
    case.index = random.next() % [65, 321][usize::from(random.next() & 1 != 0)];
    let mut side = || {
        let (start, starts) = window(case.index, random);
        let tag = if random.next() & 1 != 0 { random.next() & 0xff << 56 } else { 0 };
        (start + random.next() % starts) | tag
    };
    (case.base, case.source) = (side(), side());
    case.base_register = instruction.first.number();
    case.index_register = instruction.second.number();
    if instruction.kind != Kind::Set {
        case.source_register = instruction.source.number();
    }
    let depends = instruction.kind == Kind::CopyForward && is_overlapped(case.base, case.source, case.index);
    (!depends).then_some(case)
}

/// Tells whether a copy from the first byte to the last would write what it has yet to read.
pub fn is_overlapped(to: u64, from: u64, size: u64) -> bool {
    let [to, from] = [to, from].map(|address| address & !(0xff << 56));
    from < to && to - from < size
}

/// Tells whether a load or store of one register orders, and so has to be aligned.
fn orders(word: u32) -> bool {
    let is_ordered = word & 0x3f80_0000 == 0x0880_0000;
    let is_ldapr = word & 0x3b20_0c00 == 0x3820_0000;
    let is_unscaled = word & 0x3f20_0c00 == 0x1900_0000;
    is_ordered || is_ldapr || is_unscaled
}

/// Tells whether the architecture leaves open what happens, and the interpreter has another answer than QEMU: both
/// registers of a pair are loaded and are the same, or bits that should be 1 are not.
fn is_unpredictable(word: u32, instruction: &Instruction) -> bool {
    let is_pair = instruction.elements == 2
        && matches!(instruction.registers, Registers::General { .. } | Registers::Scalar);
    let is_loaded = matches!(instruction.kind, Kind::Load | Kind::LoadExclusive);
    let should_be_ones = if word & 0x3fa0_0000 == 0x0880_0000 {
        0x001f_7c00
    } else if word & 0x3b20_fc00 == 0x3820_c000 {
        0x001f_0000
    } else {
        0
    };
    is_pair && is_loaded && instruction.first == instruction.second || word & should_be_ones != should_be_ones
}

/// Tells whether a fault may leave some of the registers loaded: QEMU's does, the interpreter's does not.
fn is_partial(instruction: &Instruction) -> bool {
    let is_vector = !matches!(instruction.registers, Registers::General { .. });
    instruction.kind == Kind::Load && instruction.elements > 1 && is_vector
}

/// Tells whether the access may go on into a page where it fails.
fn may_fault(case: &Case) -> bool {
    (EDGES + 0x1800..EDGES + 0x5000).contains(&(case.base & !(0xff << 56)))
}

/// Tells whether QEMU makes one access of what are several by the architecture: a device may tell.
fn is_merged(instruction: &Instruction, big_endian: bool) -> bool {
    let is_pair = matches!(instruction.kind, Kind::Load | Kind::Store)
        && matches!(instruction.registers, Registers::General { .. } if instruction.elements == 2);
    is_pair && instruction.log2 == 2
        || matches!(instruction.registers, Registers::Structure { count: 1, .. } if !big_endian || instruction.log2 == 0)
}

/// Tells whether QEMU's most capable CPU has an instruction that no VM is shown, or that is not interpreted: memory tags,
/// 64-byte accesses.
fn is_hidden(word: u32) -> bool {
    let tags = word & 0xff20_0000 == 0xd920_0000 || word & 0xfe40_0000 == 0x6800_0000;
    let sets_tags = word & 0xffe0_0c00 == 0x1dc0_0400;
    let of_64_bytes =
        word & 0xff20_fc00 & !0x00e0_0000 == 0xf820_9000 & !0x00e0_0000 || word & 0xff20_8c00 == 0xf820_8000;
    tags || sets_tags || of_64_bytes
}

fn low(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
