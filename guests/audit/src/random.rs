//! Executes random 32-bit words, one at a time, at EL1 and EL0 in turn, and counts what ended each.
//!
//! Not here: a verdict on the hypervisor, which is tools/audit's: it runs a second VM beside this one.
//!
//! Word number n of a seed is the same whatever came before: `Words::nth`. A quarter of the words are of the kinds
//! that a hypervisor sees: system instructions, HVC and SMC, loads and stores. What X0 to X30 hold is random as well:
//! the scratch memory, a device, a PSCI function, a small number or 64 random bits.
//!
//! What keeps this kernel alive, and all of it:
//! - Words run at [`CODE`], far from everything: a branch by immediate ends outside of all maps. The page is read-only.
//! - EL1's tables map this kernel for EL1 only. [`PROBE_DATA`] and the PL011 can be written, the distributor read.
//! - The words that would change where this kernel and its vectors are found are left out: MSR of SCTLR_EL1, TTBR0_EL1,
//!   TCR_EL1, MAIR_EL1 and VBAR_EL1 (5 of 2^27 system words); and what QEMU does not survive: BRAA and BRAB, and MSR of
//!   ICC_BPR1_EL1.
//! - PSCI functions that end or suspend the CPU are not offered in X0.
//! - A timer interrupts what does not end by itself. Before each word, what can be in its way is set as it was.
//!
//! Follows Arm ARM DDI 0487K.a, C4 (encodings) and D8 (translation).

use crate::encoding::{Encoding, SVC_END};
use crate::log;
use crate::machine::{self, End, SCRATCH_BYTES, SLOT_WORDS, Start};
use core::ops::Range;
use trapeze_kit::gic::{self, Gic};
use trapeze_kit::mmu::{self, Attributes, Granule, Map};
use trapeze_kit::timer::{self, Timer};
use trapeze_kit::{console, mmio, mrs, msr};

/// Where the words run.
const CODE: u64 = 0x20_0000_0000;
/// Where they find the scratch memory.
const PROBE_DATA: u64 = 0x30_0000_0000;
/// Where they find devices: PL011 and, behind it, the distributor, or where words are compared the PL011 again.
const DEVICES: u64 = 0x28_0000_0000;
const PAGE: u64 = 4096;
/// Distributor, CPU interface and redistributors.
const GIC_BYTES: u64 = 16 << 20;
/// What is mapped of RAM: this kernel, and no more than the smallest machine has.
const RAM_BYTES: u64 = 16 << 20;

/// Access flag, inner shareable, normal memory; read-only at both levels, executable at both.
const CODE_ATTRIBUTES: Attributes = Attributes(1 << 10 | 3 << 8 | 1 << 2 | 3 << 6);
/// Read and write at both levels, never executed.
const DATA_ATTRIBUTES: Attributes = Attributes(1 << 10 | 3 << 8 | 1 << 2 | 1 << 6 | 3 << 53);
/// A device, read and write at both levels.
const DEVICE_ATTRIBUTES: Attributes = Attributes(1 << 10 | 1 << 6 | 3 << 53);
/// A device, read-only at both levels.
const WATCHED_ATTRIBUTES: Attributes = Attributes(1 << 10 | 3 << 6 | 3 << 53);

/// PSTATE with D and A masked and IRQ open: the timer must get through.
const OPEN: u64 = 1 << 9 | 1 << 8 | 1 << 6;
const EL1H: u64 = 0b0101;
/// Words in the page: each is followed by the SVC that ends it.
const WORDS: u64 = SLOT_WORDS as u64 / 2;
/// After how many words it says where it is.
const REPORT: u64 = WORDS * 16;
/// How long a word may take, in milliseconds: the host may be busy.
const PATIENCE_MS: u64 = 5;

/// How often a word may meet the timer before it counts as one that does not end.
const TRIES: u32 = 4;

/// SCTLR_EL1: MMU and caches on, and open to EL0 as in the sweep.
const SCTLR_ON: u64 = crate::SCTLR_OPEN | 1 << 12 | 1 << 2 | 1;

/// What ended words, by kind.
#[derive(Default)]
struct Ends {
    completed: u64,
    undefined: u64,
    trapped: u64,
    aborted: u64,
    calls: u64,
    interrupted: u64,
    others: u64,
}

/// Which words, and whether each is to be told of.
pub struct Request {
    /// Names the sequence of words.
    pub seed: u64,
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Print a line for each.
    pub is_traced: bool,
}

/// Executes words and says how they ended.
pub fn run(request: &Request) {
    let Request { seed, first, count, is_traced } = *request;
    map_everything(is_traced);
    let gic = Gic::detect();
    let words = Words { seed };
    let mut ends = Ends::default();
    let mut done = 0;
    while done < count {
        let batch = WORDS.min(count - done);
        run_batch(gic, &words, first + done..first + done + batch, |number, word, end| {
            ends.count(end);
            if is_traced {
                reset_uart();
                let esr = if is_interrupt(end) { 0 } else { end.esr };
                log!("word {number} {word:x} vector={} esr={esr:x} sum={:x}", end.vector, end.sum);
            }
        });
        done += batch;
        if done.is_multiple_of(REPORT) {
            log!("at {}", first + done);
        }
    }
    console::flush();
    log!(
        "random seed={seed} first={first} count={count} completed={} undefined={} trapped={} aborted={} calls={} \
         interrupted={} others={}",
        ends.completed,
        ends.undefined,
        ends.trapped,
        ends.aborted,
        ends.calls,
        ends.interrupted,
        ends.others,
    );
}

/// Makes the map that the words run in, and turns the MMU on.
fn map_everything(is_traced: bool) {
    let map = Map::new(Granule::K4);
    // This kernel's own devices and no more: what else is where on a board is not what is compared.
    map.add(gic::GICD, gic::GICD, GIC_BYTES, Attributes::DEVICE);
    map.add(console::UART, console::UART, PAGE, Attributes::DEVICE);
    map.add(mmu::RAM, mmu::RAM, RAM_BYTES, Attributes::KERNEL);
    map.add(CODE, machine::slot(), PAGE, CODE_ATTRIBUTES);
    map.add(PROBE_DATA, machine::scratch(), SCRATCH_BYTES, DATA_ATTRIBUTES);
    map.add(DEVICES, console::UART, PAGE, DEVICE_ATTRIBUTES);
    // What a distributor identifies itself as and how many interrupts it has is its own: not for a comparison.
    let (second, attributes) =
        if is_traced { (console::UART, DEVICE_ATTRIBUTES) } else { (gic::GICD, WATCHED_ATTRIBUTES) };
    map.add(DEVICES + PAGE, second, PAGE, attributes);
    map.enable();
    msr!("SCTLR_EL1", SCTLR_ON);
}

/// Runs the words with these numbers, at most a page of them, and calls `each` with number, word and end.
fn run_batch(gic: Gic, words: &Words, numbers: Range<u64>, mut each: impl FnMut(u64, u32, &End)) {
    let mut page = [SVC_END; SLOT_WORDS];
    for (pair, number) in page.chunks_exact_mut(2).zip(numbers.clone()) {
        pair[0] = words.nth(number);
    }
    machine::load_slot(&page);
    gic.init_distributor();
    gic.init_cpu();
    gic.enable(timer::VIRTUAL_INTID);
    arm();
    for ((at, number), pair) in (0..).step_by(8).zip(numbers).zip(page.chunks_exact(2)) {
        // A word that met the timer by chance gets another try; one that does so again and again does not end.
        let mut end = run_word(gic, words, at, number);
        for _ in 1..TRIES {
            if is_interrupt(&end) {
                end = run_word(gic, words, at, number);
            }
        }
        each(number, pair[0], &end);
    }
    Timer::Virtual.set_control(0);
}

/// Runs the word at byte `at` of the page.
fn run_word(gic: Gic, words: &Words, at: u64, number: u64) -> End {
    machine::open_for_words(gic == Gic::V3, [crate::CPACR_OPEN, crate::CNTKCTL_OPEN, timer::ENABLE]);
    let level = if number & 1 == 0 { EL1H } else { 0 };
    let sp = PROBE_DATA + SCRATCH_BYTES / 2;
    let end = machine::run(&Start { x: words.registers(number), sp, pc: CODE + at, pstate: OPEN | level });
    if is_interrupt(&end) {
        arm();
        gic.end(gic.acknowledge());
    }
    end
}

/// Puts the PL011 into the state after reset, but on (Arm DDI 0183G, 3.3): where words are compared, the next must not
/// depend on what ten words together made of it, as an overrun in loopback mode.
fn reset_uart() {
    for (offset, value) in UART_AFTER_RESET {
        mmio::write32(console::UART + offset, value);
    }
}

/// Offset and value: UARTRSR, UARTILPR, UARTIBRD, UARTFBRD, UARTLCR_H without and with FIFOs, UARTCR, UARTIFLS,
/// UARTIMSC, UARTICR, UARTDMACR.
const UART_AFTER_RESET: [(u64, u32); 11] = [
    (0x04, 0),
    (0x20, 0),
    (0x24, 0),
    (0x28, 0),
    (0x2c, 0x60),
    (0x2c, 0x70),
    (0x30, 0x301),
    (0x34, 0x12),
    (0x38, 0),
    (0x44, 0x7ff),
    (0x48, 0),
];

/// Gives the words [`PATIENCE_MS`] from now on.
fn arm() {
    Timer::Virtual.set_compare(Timer::Virtual.count() + mrs!("CNTFRQ_EL0") / 1000 * PATIENCE_MS);
    Timer::Virtual.set_control(timer::ENABLE);
}

/// Says whether an IRQ or FIQ ended it: the second and third of each four vectors.
fn is_interrupt(end: &End) -> bool {
    matches!(end.vector & 3, 1 | 2)
}

impl Ends {
    /// Counts one.
    fn count(&mut self, end: &End) {
        let number = match end.esr >> 26 {
            _ if is_interrupt(end) => &mut self.interrupted,
            _ if end.vector & 3 == 3 => &mut self.others,
            0x00 => &mut self.undefined,
            0x15 if end.esr & 0xffff == u64::from(crate::encoding::END_NUMBER) => &mut self.completed,
            0x15..=0x17 => &mut self.calls,
            0x01 | 0x07 | 0x09 | 0x18 | 0x19 | 0x1d => &mut self.trapped,
            0x20 | 0x21 | 0x24 | 0x25 => &mut self.aborted,
            _ => &mut self.others,
        };
        *number += 1;
    }
}

/// The words of a seed, and the registers that go with them.
struct Words {
    seed: u64,
}

impl Words {
    /// Returns word `number`.
    fn nth(&self, number: u64) -> u32 {
        let mut random = Random::of(self.seed, number);
        let word = shaped(random.next(), random.next() as u32);
        if is_left_out(word) { SVC_END } else { word }
    }

    /// Returns what the registers hold for word `number`.
    fn registers(&self, number: u64) -> [u64; 31] {
        let mut random = Random::of(!self.seed, number);
        core::array::from_fn(|_| random.operand())
    }
}

/// Returns `word` as it is, or in a quarter of the cases, decided by `shape`, as one of what hypervisors see.
fn shaped(shape: u64, word: u32) -> u32 {
    match shape & 31 {
        0 | 1 => 0xd500_0000 | word & 0x003f_ffff,
        2 => 0xd400_0000 | word & 0x00e0_001f | (word >> 5 & 0xf) << 5,
        3..=6 => word & 0xf5ff_ffff | 0x0800_0000,
        7 => word & 0x007f_ffff | 0xf900_0000,
        _ => word,
    }
}

/// Says whether a word is MSR of a register that says where this kernel and its vectors are, or one of two kinds at which
/// QEMU 10.0 ends with an assertion of its own: BRAA, BRAB and their forms with zero modifier, when it translates one for
/// a CPU with BTI; and MSR of ICC_BPR1_EL1, which takes a multiple of 8 for a binary point of 0.
fn is_left_out(word: u32) -> bool {
    let is_authenticated_branch = word & 0xffff_f800 == 0xd71f_0800 || word & 0xffff_f81f == 0xd61f_081f;
    const REGISTERS: [Encoding; 6] = [
        Encoding::new(3, 0, 1, 0, 0),
        Encoding::new(3, 0, 2, 0, 0),
        Encoding::new(3, 0, 2, 0, 2),
        Encoding::new(3, 0, 10, 2, 0),
        Encoding::new(3, 0, 12, 0, 0),
        Encoding::new(3, 0, 12, 12, 3),
    ];
    is_authenticated_branch || REGISTERS.iter().any(|register| word & !0x1f == register.write(0))
}

/// A generator of 64 bits: SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    /// Starts where `number` of `seed` is, far from its neighbours.
    fn of(seed: u64, number: u64) -> Self {
        Self(mixed(seed).wrapping_add(mixed(number.wrapping_add(0x5851_f42d_4c95_7f2d))))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Returns something that an instruction may find interesting.
    fn operand(&mut self) -> u64 {
        let value = self.next();
        match value >> 60 {
            0..=6 => PROBE_DATA + SCRATCH_BYTES / 2 + (value & 0xfff8),
            7 | 8 => DEVICES + (value & 0x1ffc),
            9 => PROBE_DATA + (value & (SCRATCH_BYTES - 1)),
            10 | 11 => value & 0xff,
            12 => PSCI[value as usize % PSCI.len()],
            _ => value,
        }
    }
}

/// Functions of PSCI and SMCCC that leave this CPU running.
const PSCI: [u64; 8] = [
    0x8400_0000, // PSCI_VERSION
    0x8400_0004, // AFFINITY_INFO
    0xc400_0003, // CPU_ON: there is no other CPU
    0x8400_000a, // PSCI_FEATURES
    0x8000_0000, // SMCCC_VERSION
    0x8000_0001, // SMCCC_ARCH_FEATURES
    0xc600_0000, // of a vendor's hypervisor, and nobody's
    0xffff_ffff,
];

fn mixed(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
