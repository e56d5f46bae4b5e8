//! Facts about decoding and about what no comparison with a CPU tells: QEMU is asked in `tests/oracle`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Cpu, Exclusive, Fault, Place, Reason, Vectors, execute};
use crate::decode::{Base, Extend, Extended, Index, Kind, Offset, Registers, decode};
use vocabulary::addr::{Ipa, Pa};
use vocabulary::ids::Gpr;

const ENTRY: u64 = 0x4000_0000;
const CASES: u32 = if cfg!(miri) { 64 } else { 4096 };

/// A CPU whose memory notes what was done to it: a byte that was not written reads as the low byte of its address.
pub(crate) struct Bus {
    pub x: [u64; 31],
    pub nzcv: u8,
    stack_pointer: u64,
    vectors: Vectors,
    monitor: Option<Exclusive>,
    big_endian: bool,
    /// Bytes that were written.
    pub written: BTreeMap<u64, u8>,
    /// Reads and writes in order: address, bytes, value.
    pub done: Vec<(u64, u8, Option<u64>)>,
    /// Address, direction and want of privilege of each translation.
    pub translated: Vec<(u64, bool, bool)>,
    /// A page that faults, and one where nothing is.
    pub faults: Option<u64>,
    nothing: Option<u64>,
}

impl Bus {
    pub fn new() -> Self {
        Self {
            x: [0; 31],
            nzcv: 0,
            stack_pointer: 0x8000,
            vectors: Vectors([0xee; 512]),
            monitor: None,
            big_endian: false,
            written: BTreeMap::new(),
            done: vec![],
            translated: vec![],
            faults: None,
            nothing: None,
        }
    }

    pub fn run(&mut self, word: u32) -> Result<(), Fault> {
        execute(&decode(word).unwrap(), 0, self)
    }

    /// Returns the byte at an address.
    pub fn byte(&self, at: u64) -> u8 {
        self.written.get(&at).copied().unwrap_or(at.to_le_bytes()[0])
    }

    fn widths(&self) -> Vec<(u64, u8)> {
        self.done.iter().map(|(at, bytes, _)| (*at, *bytes)).collect()
    }
}

impl Cpu for Bus {
    fn get(&self, register: Gpr) -> u64 {
        register.index().map_or(0, |index| self.x[index])
    }

    fn set(&mut self, register: Gpr, value: u64) {
        if let Some(index) = register.index() {
            self.x[index] = value;
        }
    }

    fn nzcv(&self) -> u8 {
        self.nzcv
    }

    fn pc(&self) -> u64 {
        ENTRY
    }

    fn stack_pointer(&self) -> u64 {
        self.stack_pointer
    }

    fn set_stack_pointer(&mut self, value: u64) {
        self.stack_pointer = value;
    }

    fn vectors(&self) -> Vectors {
        self.vectors.clone()
    }

    fn set_vectors(&mut self, vectors: &Vectors) {
        self.vectors = vectors.clone();
    }

    fn monitor(&mut self) -> &mut Option<Exclusive> {
        &mut self.monitor
    }

    fn is_big_endian(&self) -> bool {
        self.big_endian
    }

    fn zero_block_bytes(&self) -> u64 {
        64
    }

    fn translate(&mut self, address: u64, write: bool, unprivileged: bool) -> Result<Place, Reason> {
        self.translated.push((address, write, unprivileged));
        let page = address & !0xfff;
        if self.faults == Some(page) { Err(Reason::Stage1(7)) } else { Ok(Place::Ram(Pa::new(page))) }
    }

    fn access(&mut self, at: Place, bytes: u8, write: Option<u64>) -> Option<u64> {
        let Place::Ram(at) = at else { return None };
        let mask = u64::MAX >> (64 - 8 * bytes);
        assert!(at.is_aligned(u64::from(bytes)));
        assert!(write.is_none_or(|value| value & !mask == 0), "more than was asked for");
        if self.nothing == Some(at.get() & !0xfff) {
            return None;
        }
        self.done.push((at.get(), bytes, write));
        let places = [0, 1, 2, 3, 4, 5, 6, 7].map(|byte| at.get().wrapping_add(byte));
        if let Some(value) = write {
            self.written.extend(places.into_iter().zip(value.to_le_bytes()).take(usize::from(bytes)));
        }
        Some(u64::from_le_bytes(places.map(|place| self.byte(place))) & mask)
    }
}

#[test]
fn instructions_decode_as_their_encodings_say() {
    let ldr_sp_uxtw = decode(0xb863_5be1).unwrap(); // LDR W1, [SP, W3, UXTW #2]
    let offset = Offset::Register { register: Gpr::new(3), extend: Extend::UnsignedWord, shift: 2 };
    assert_eq!((ldr_sp_uxtw.kind, ldr_sp_uxtw.log2, ldr_sp_uxtw.offset), (Kind::Load, 2, offset));
    assert_eq!(ldr_sp_uxtw.base, Base::Register(Gpr::new(31)));
    let ldpsw = decode(0x69ff_0861).unwrap(); // LDPSW X1, X2, [X3, #-8]!
    assert_eq!((ldpsw.index, ldpsw.offset, ldpsw.elements), (Index::Pre, Offset::Immediate(-8), 2));
    assert_eq!(ldpsw.registers, Registers::General { signed: Some(Extended::To64) });
    let ldtrsh = decode(0x78df_f841).unwrap(); // LDTRSH W1, [X2, #-1]
    assert!(ldtrsh.unprivileged);
    assert_eq!(ldtrsh.registers, Registers::General { signed: Some(Extended::To32) });
    let ld3 = decode(0x4cdf_4841).unwrap(); // LD3 {V1.4S-V3.4S}, [X2], #48
    assert_eq!((ld3.registers, ld3.elements), (Registers::Structure { count: 3, bytes: 16 }, 12));
    assert_eq!((ld3.index, ld3.offset), (Index::Post, Offset::Immediate(48)));
    let st1 = decode(0x4d00_9041).unwrap(); // ST1 {V1.S}[3], [X2]
    assert_eq!((st1.kind, st1.log2, st1.registers), (Kind::Store, 2, Registers::Lane(3)));
}

#[test]
fn what_is_no_load_or_store_is_not_decoded() {
    for (word, what) in [
        (0, "UDF"),
        (0xd503_201f, "NOP"),
        (0xd50b_7520, "IC IVAU"),
        (0xf940_0000 | 1 << 25, "an immediate of data processing"),
        (0x0820_7c01, "CASP of odd registers"),
        (0x0821_7c00, "CASP of odd registers"),
        (0x1944_0400, "CPYFM of one register for two"),
        (0x1903_045f, "CPYFP to XZR"),
        (0x191f_0441, "CPYFP from XZR"),
        (0x19c3_c441, "SET without a part"),
        (0x1dc3_0441, "SETGP"),
        (0xd920_0800, "STG"),
        (0x6800_0000, "STGP"),
        (0xf83f_9000, "ST64B"),
        (0xf83f_d000, "LD64B"),
        (0xdc00_0000, "a literal of no size"),
        (0x0c00_0c00, "LD4 of one double word each"),
        (0x0d80_4400, "a half-word lane with an odd size"),
        (0xf880_0400, "a prefetch with write-back"),
        (0x3c00_0800, "an unprivileged SIMD&FP load"),
    ] {
        assert_eq!(decode(word), None, "{what}: {word:#x}");
    }
}

#[test]
fn each_element_is_an_access_of_its_own() {
    for (word, base, expected) in [
        (0xa940_0801, 0x1000, vec![(0x1000, 8), (0x1008, 8)]), // LDP X1, X2
        (0x3dc0_0001, 0x1000, vec![(0x1000, 8), (0x1008, 8)]), // LDR Q1
        (0x0c40_a001, 0x1000, (0x1000..0x1010).map(|at| (at, 1)).collect()), // LD1 {V1.8B, V2.8B}
        (0xb940_0001, 0x1001, vec![(0x1001, 1), (0x1002, 1), (0x1003, 1), (0x1004, 1)]), // LDR W1, not aligned
        (0x887f_0801, 0x1000, vec![(0x1000, 8)]), // LDXP W1, W2 is atomic
    ] {
        let mut bus = Bus::new();
        bus.x[0] = base;
        bus.run(word).unwrap();
        assert_eq!(bus.widths(), expected, "{word:#x}");
    }
}

#[test]
fn pages_are_found_before_anything_is_accessed() {
    const STP_X1_X2_X0: u32 = 0xa900_0801;
    let mut bus = Bus::new();
    (bus.x[0], bus.faults) = (0x1ff4, Some(0x2000));
    let fault = Fault { address: 0x2000, reason: Reason::Stage1(7), write: true };
    assert_eq!((bus.run(STP_X1_X2_X0), bus.done.len()), (Err(fault), 0));
    assert_eq!(bus.translated, [(0x1ff4, true, false), (0x2000, true, false)]);
}

#[test]
fn a_failed_load_changes_no_register() {
    for word in [0xa8c1_0801_u32, 0x0cdf_a001, 0x6cc1_0801, 0xf840_8401, 0xb8e2_0001, 0x08e2_7c01 | 3 << 30] {
        let mut bus = Bus::new();
        (bus.x[0], bus.nothing) = (0x1ffe, Some(0x2000));
        let before = (bus.x, bus.vectors.clone());
        let address = bus.run(word).unwrap_err().address;
        assert_eq!((address, (bus.x, bus.vectors)), (0x2000, before), "{word:#x}");
    }
}

#[test]
fn an_atomic_that_cannot_be_read_fails_as_a_read() {
    let mut bus = Bus::new();
    (bus.x[0], bus.faults) = (0x1000, Some(0x1000));
    assert!(!bus.run(0xb822_0001).unwrap_err().write);
    assert!(bus.run(0xb800_0001).unwrap_err().write, "a store fails as a write");
}

#[test]
fn nothing_is_behind_the_last_address() {
    let mut bus = Bus::new();
    bus.x[0] = u64::MAX;
    assert_eq!(bus.run(0xb940_0001).unwrap_err().address, 0);
    assert_eq!(bus.widths(), [(u64::MAX, 1)]);
}

#[test]
fn an_authenticated_address_is_what_the_cpu_came_to() {
    const LDRAA_X1_X0_PRE_16: u32 = 0xf820_2c01;
    for (signed, far) in [(0xabcd_0000_0000_1000, 0x1010), (0xabcd_0000_0000_1fec, 0x2000)] {
        let mut bus = Bus::new();
        bus.x[0] = signed;
        execute(&decode(LDRAA_X1_X0_PRE_16).unwrap(), far, &mut bus).unwrap();
        let address = (signed & 0xffff) + 16;
        assert_eq!((bus.x[0], bus.done[0].0), (address, address));
    }
}

/// Words that are loads and stores, more or less.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>().prop_map(|word| word & !0x0200_0000 | 0x0800_0000),
        Just(0xd50b_7423),
        any::<u32>()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_instruction_panics_or_moves_more_than_it_says(
        word in word(),
        registers: [u64; 31],
        far: u64,
        big_endian: bool,
        faults in prop::option::of(Just(0x7000_u64)),
    ) {
        let Some(instruction) = decode(word) else { return Ok(()) };
        let mut bus = Bus { big_endian, faults, nothing: faults, ..Bus::new() };
        bus.x = registers;
        let before = bus.x;
        let outcome = execute(&instruction, far, &mut bus);
        let bytes = u64::from(instruction.elements) << instruction.log2;
        prop_assert!((1..=64).contains(&bytes));
        let moved: u64 = bus.done.iter().map(|(_, bytes, _)| u64::from(*bytes)).sum();
        let is_bulk = instruction.kind.is_bulk();
        let most = 2 * if is_bulk { 64 } else { bytes.max(32) };
        prop_assert!(moved <= most, "{moved} bytes for {instruction:?}");
        let changed = before.iter().zip(&bus.x).filter(|(before, after)| before != after).count();
        let most = if outcome.is_ok() || is_bulk { 3 } else { 0 };
        prop_assert!(changed <= most);
    }

    #[test]
    fn a_store_reads_nothing_and_changes_no_register(word in word()) {
        let Some(store) = decode(word).filter(|it| it.kind == Kind::Store && it.index == Index::Offset) else {
            return Ok(());
        };
        let mut bus = Bus::new();
        bus.x = [0x10_0000; 31];
        let before = (bus.x, bus.vectors.clone());
        execute(&store, 0, &mut bus).unwrap();
        prop_assert_eq!((bus.x, bus.vectors), before);
        prop_assert!(bus.done.iter().all(|(_, _, value)| value.is_some()));
    }
}

#[test]
fn a_place_goes_on_in_its_own_space() {
    assert_eq!(Place::Ram(Pa::new(0x1000)).plus(8), Place::Ram(Pa::new(0x1008)));
    assert_eq!(Place::Elsewhere(Ipa::new(0x1000)).plus(8), Place::Elsewhere(Ipa::new(0x1008)));
}
