//! What the guest and the host have to agree on: where everything is, what a case starts from, and what is said of it.
//!
//! `tests/oracle` includes this file.
#![allow(dead_code, reason = "some of it is for the host alone, some for the guest")]

/// Bytes from the start of the image to what the host appends: a [`Header`], then the cases.
pub const CASES_OFFSET: u64 = 1 << 20;
/// Where each case's instructions lie, for EL0 to execute.
pub const CODE: u64 = 0x8000_1000;
/// The memory that the instructions work on: in two pages.
pub const RAM_WINDOW: u64 = 0x8000_2e00;
/// The priorities of the first 64 SPIs, which every distributor here has, for EL0 as Device memory: registers of the distributor that keep what is written.
pub const DEVICE_WINDOW: u64 = 0xc800_0420;
/// The same as Normal memory, uncached.
pub const NORMAL_WINDOW: u64 = 0x1_0800_0420;
/// The same where EL1 finds them.
pub const PRIORITIES: u64 = 0x0800_0420;
/// Five pages for EL0: a page of RAM, the distributor as Normal memory, nothing, the distributor again, and that page of
/// RAM again, read-only.
pub const EDGES: u64 = 0x1_4000_0000;
/// The page of RAM where EL1 finds it; the first and the last 64 bytes belong to a case.
pub const EDGE: u64 = 0x4000_4000;
/// Bits of a priority that every distributor keeps, in each byte.
pub const PRIORITY_BITS: u64 = 0xf8f8_f8f8_f8f8_f8f8;
/// Double words of memory that the instructions work on, in RAM.
pub const RAM_DOUBLES: usize = 128;
/// Where EL1 finds the memory of a case, in runs of double words: in RAM.
pub const RAM_RUNS: [(u64, usize); 1] = [(RAM_WINDOW, RAM_DOUBLES)];
/// The same, of the distributor and beside it.
pub const DEVICE_RUNS: [(u64, usize); 3] = [(PRIORITIES, 8), (EDGE, 8), (EDGE + 0xfc0, 8)];
/// Double words of a [`Case`].
pub const CASE_DOUBLES: usize = 6;
/// The same in bytes.
pub const CASE_BYTES: u64 = 48;
/// Double words of what a case leaves: X0 to X30, SP, how it ended, V0 to V31, memory.
pub const RESULT_DOUBLES: usize = 31 + 1 + 1 + 64 + RAM_DOUBLES;

/// What comes before the cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// How many cases there are.
    pub count: u64,
    /// Everything that a case leaves is reported, instead of a digest of 32 bits.
    pub is_verbose: bool,
    /// The instructions work on a device, instead of RAM.
    pub is_device: bool,
}

impl Header {
    /// Returns the header as double words.
    pub fn encode(&self) -> [u64; 2] {
        [self.count, u64::from(self.is_verbose) | u64::from(self.is_device) << 1]
    }

    /// Reads what [`Header::encode`] made.
    pub fn decode([count, flags]: [u64; 2]) -> Self {
        Self { count, is_verbose: flags & 1 != 0, is_device: flags & 2 != 0 }
    }
}

/// Up to three instructions, and the state to execute them in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// The instructions; a NOP stands for none.
    pub words: [u32; 3],
    /// Start of the random numbers that fill memory and registers.
    pub seed: u64,
    /// What the base register holds.
    pub base: u64,
    /// What the index register holds.
    pub index: u64,
    /// What the source register holds.
    pub source: u64,
    /// The base register, 31 for SP.
    pub base_register: u8,
    /// The index register, 31 for none.
    pub index_register: u8,
    /// The source register, 31 for none.
    pub source_register: u8,
    /// Data accesses are big-endian.
    pub big_endian: bool,
    /// Registers and memory are 0 or all ones, so that much is equal.
    pub sparse: bool,
}

impl Case {
    /// Returns the case as double words.
    pub fn encode(&self) -> [u64; CASE_DOUBLES] {
        let [first, second, third] = self.words.map(u64::from);
        let flags = u64::from(self.base_register)
            | u64::from(self.index_register) << 8
            | u64::from(self.source_register) << 16
            | u64::from(self.big_endian) << 24
            | u64::from(self.sparse) << 25;
        [first | second << 32, third | flags << 32, self.seed, self.base, self.index, self.source]
    }

    /// Reads what [`Case::encode`] made.
    pub fn decode([words, more, seed, base, index, source]: [u64; CASE_DOUBLES]) -> Self {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = words.to_le_bytes();
        let [w8, w9, w10, w11, base_register, index_register, source_register, rest] = more.to_le_bytes();
        Self {
            words: [[w0, w1, w2, w3], [w4, w5, w6, w7], [w8, w9, w10, w11]].map(u32::from_le_bytes),
            seed,
            base,
            index,
            source,
            base_register,
            index_register,
            source_register,
            big_endian: rest & 1 != 0,
            sparse: rest & 2 != 0,
        }
    }

    /// Fills in what memory holds, X0 to X30 and SP, V0 to V31: in this order, with none but the bits of `mask`.
    pub fn fill(&self, mask: u64, memory: &mut [u64], registers: &mut [u64; 32], vectors: &mut [u64; 64]) {
        let mut random = Random(self.seed);
        let slots = memory.iter_mut().chain(registers.iter_mut()).chain(vectors.iter_mut());
        for slot in slots {
            let number = random.next();
            *slot = mask & if self.sparse { 0_u64.wrapping_sub(number & 1) } else { number };
        }
        for (register, value) in [(self.index_register, self.index), (self.source_register, self.source)] {
            if register < 31 {
                set(registers, register, value);
            }
        }
        set(registers, self.base_register, self.base);
    }
}

fn set(registers: &mut [u64; 32], number: u8, value: u64) {
    if let Some(slot) = registers.get_mut(usize::from(number)) {
        *slot = value;
    }
}

/// Says how a case ended: which instruction, and the class and fault status of the exception there.
pub fn ending(instructions: u64, esr_el1: u64) -> u64 {
    let class = esr_el1 >> 26 & 0x3f;
    let status = if class == 0x24 { esr_el1 & 0x7f } else { 0 };
    instructions << 16 | class << 8 | status
}

/// Random numbers, always the same for the same start (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// Returns the next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Returns 32 bits that say whether two results are the same.
pub fn digest<'a>(result: impl Iterator<Item = &'a u64>) -> u32 {
    let mixed =
        result.fold(0_u64, |sum, number| (sum.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let [.., a, b, c, d] = mixed.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
