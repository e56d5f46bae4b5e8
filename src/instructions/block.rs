//! The bytes that a load or store moves: between memory and here, and between here and registers.
//!
//! Not here: which bytes, and when.
//! Follows Arm ARM DDI 0487K.a, B2.2 (each element is an access), B2.7 (alignment) and B2.9 (endianness).

use crate::decode::{Extended, Instruction, Kind, Registers};
use crate::execute::{self, Cpu, Fault, Place, Reason, Vectors, sign_extended};
use vocabulary::addr::{Ipa, PAGE_BYTES};

/// Most bytes that are moved at once, but for DC ZVA: four registers of 16 bytes.
pub(crate) const MOST_BYTES: usize = 64;
const PAGE_OFFSET: u64 = PAGE_BYTES - 1;
/// The pages of a block before they are found.
const NOWHERE: [Place; 2] = [Place::Elsewhere(Ipa::new(0)); 2];

/// Bytes that lie side by side in the guest's virtual memory: elements, each in the order of a little-endian memory.
#[derive(Clone)]
pub(crate) struct Block {
    pub address: u64,
    pub bytes: u8,
    /// Bytes of an element.
    pub element: u8,
    /// Bytes that are accessed as one: an element, or all of them if the instruction is atomic.
    piece: u8,
    unprivileged: bool,
    /// The one or two pages that they lie in.
    pages: [Place; 2],
    pub memory: [u8; MOST_BYTES],
}

impl Block {
    pub(crate) const fn new(instruction: &Instruction, address: u64) -> Self {
        let (bytes, element) = (instruction.elements << instruction.log2, 1 << instruction.log2);
        let piece = if matches!(instruction.kind, Kind::Load | Kind::Store) { element } else { bytes };
        Self {
            address,
            bytes,
            element,
            piece,
            unprivileged: instruction.unprivileged,
            pages: NOWHERE,
            memory: [0; MOST_BYTES],
        }
    }

    /// Finds the pages, all of them before anything is accessed.
    pub(crate) fn map(&mut self, write: bool, cpu: &mut dyn Cpu) -> Result<(), Fault> {
        let last = self.address.wrapping_add(u64::from(self.bytes) - 1) & !PAGE_OFFSET;
        let mut address = self.address;
        for page in &mut self.pages {
            *page = execute::page(address, write, self.unprivileged, cpu)?;
            if last <= address {
                break; // or the address space ends here, and nobody knows what is next
            }
            address = last;
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, cpu: &mut dyn Cpu) -> Result<(), Fault> {
        self.access(false, cpu)?;
        self.turn(cpu);
        Ok(())
    }

    pub(crate) fn write(&mut self, cpu: &mut dyn Cpu) -> Result<(), Fault> {
        self.turn(cpu);
        self.access(true, cpu)
    }

    /// Turns the bytes of each element round if accesses are big-endian.
    fn turn(&mut self, cpu: &dyn Cpu) {
        if cpu.is_big_endian() {
            let memory = self.memory;
            for (at, slot) in self.memory.iter_mut().enumerate() {
                *slot = memory.get(at ^ usize::from(self.element - 1)).copied().unwrap_or(0);
            }
        }
    }

    /// Accesses each piece as a whole if it is aligned and no more than 8 bytes, otherwise in parts that are.
    #[inline(never)]
    fn access(&mut self, write: bool, cpu: &mut dyn Cpu) -> Result<(), Fault> {
        let mut done = 0;
        while done < self.bytes {
            let address = self.address.wrapping_add(u64::from(done));
            let left = self.piece - done % self.piece;
            let bytes = 1 << (address | u64::from(left | 8)).trailing_zeros();
            let is_first = (address ^ self.address) & !PAGE_OFFSET == 0;
            let [first, second] = self.pages;
            let page = if is_first { first } else { second };
            let value = write.then(|| number(&self.memory, usize::from(done), bytes));
            let Some(answer) = cpu.access(page.plus(address & PAGE_OFFSET), bytes, value) else {
                return Err(Fault { address, reason: Reason::External, write });
            };
            if !write {
                set_number(&mut self.memory, usize::from(done), bytes, answer);
            }
            done += bytes;
        }
        Ok(())
    }

    /// Returns an element of 8 bytes at most.
    pub(crate) fn get(&self, element: u8) -> u64 {
        number(&self.memory, usize::from(element * self.element), self.element)
    }

    /// Sets an element of 8 bytes at most.
    pub(crate) fn put(&mut self, element: u8, value: u64) {
        set_number(&mut self.memory, usize::from(element * self.element), self.element, value);
    }

    /// Takes the elements from the registers.
    pub(crate) fn take(&mut self, instruction: &Instruction, cpu: &mut dyn Cpu) {
        if let Registers::General { .. } = instruction.registers {
            for element in 0..instruction.elements {
                self.put(element, cpu.get(instruction.register(element)));
            }
            return;
        }
        self.exchange(&mut cpu.vectors(), instruction, true);
    }

    /// Gives the elements to the registers.
    pub(crate) fn give(&mut self, instruction: &Instruction, cpu: &mut dyn Cpu) {
        if let Registers::General { signed } = instruction.registers {
            for element in 0..instruction.elements {
                let value = self.get(element);
                let value = match signed {
                    None => value,
                    Some(Extended::To32) => sign_extended(value, self.element) & 0xffff_ffff,
                    Some(Extended::To64) => sign_extended(value, self.element),
                };
                cpu.set(instruction.register(element), value);
            }
            return;
        }
        let mut vectors = cpu.vectors();
        if !matches!(instruction.registers, Registers::Lane(_)) {
            for element in 0..instruction.elements {
                let (register, _) = position(instruction, element);
                set_number(&mut vectors.0, register, 8, 0);
                set_number(&mut vectors.0, register + 8, 8, 0);
            }
        }
        self.exchange(&mut vectors, instruction, false);
        cpu.set_vectors(&vectors);
    }

    /// Moves the elements from lanes of the SIMD&FP registers, or to them.
    fn exchange(&mut self, vectors: &mut Vectors, instruction: &Instruction, take: bool) {
        // Of 16 bytes there are two halves; of an element that is replicated, copies in every lane.
        let part = self.element.min(8);
        let lanes =
            if let Registers::Replicate(bytes) = instruction.registers { bytes } else { self.element };
        for element in 0..instruction.elements {
            let (register, lane) = position(instruction, element);
            for at in (0..lanes).step_by(usize::from(part)) {
                let here = usize::from(element * self.element + at % self.element);
                let there = register + usize::from(lane * self.element + at);
                if take {
                    set_number(&mut self.memory, here, part, number(&vectors.0, there, part));
                } else {
                    set_number(&mut vectors.0, there, part, number(&self.memory, here, part));
                }
            }
        }
    }
}

/// Returns where in [`Vectors`] the SIMD&FP register of an element begins, and which of its lanes it has.
fn position(instruction: &Instruction, element: u8) -> (usize, u8) {
    let (register, lane) = match instruction.registers {
        Registers::Scalar | Registers::General { .. } => {
            return (usize::from(instruction.register(element).number()) * 16, 0);
        }
        Registers::Structure { count: 1, bytes } => {
            let lanes = bytes >> instruction.log2;
            (element / lanes, element % lanes)
        }
        Registers::Structure { count, .. } => (element % count, element / count),
        Registers::Lane(lane) => (element, lane),
        Registers::Replicate(_) => (element, 0),
    };
    (usize::from((instruction.first.number() + register) % 32) * 16, lane)
}

/// Returns `bytes` bytes from `at` on as a little-endian number.
#[inline(never)]
fn number(memory: &[u8], at: usize, bytes: u8) -> u64 {
    let bytes = memory.iter().skip(at).take(usize::from(bytes));
    bytes.rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[inline(never)]
fn set_number(memory: &mut [u8], at: usize, bytes: u8, mut number: u64) {
    for slot in memory.iter_mut().skip(at).take(usize::from(bytes)) {
        [*slot, ..] = number.to_le_bytes();
        number >>= 8;
    }
}
