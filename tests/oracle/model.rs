//! The library's interpreter on memory and registers of the host.
//!
//! Not here: devices. The memory is a window of the guest's RAM, and nothing else answers.

use instructions::{Base, Cpu, Exclusive, Fault, Instruction, Kind, Place, Reason, Vectors, decode, execute};
use trapeze::addr::Pa;
use trapeze::ids::Gpr;
use trapeze::vcpu::Frame;

use super::case::{CODE, Case, RAM_DOUBLES, RAM_WINDOW, RESULT_DOUBLES, ending};
use super::classes::is_overlapped;

const NOP: u32 = 0xd503_201f;
/// ESR_EL1 of UNDEFINED, of SVC at EL0, and of a synchronous external abort at EL0.
const UNDEFINED: u64 = 0;
const SVC: u64 = 0x15 << 26;
const DATA_ABORT: u64 = 0x24 << 26;
const EXTERNAL: u64 = 0x10;

/// A CPU at EL0.
pub struct Model {
    frame: Frame,
    stack_pointer: u64,
    vectors: Vectors,
    monitor: Option<Exclusive>,
    memory: Vec<u8>,
    big_endian: bool,
    /// How the prologue of a memory copy or set is done.
    prologue: Prologue,
}

/// How a CPU that is no more than the interpreter makes a prologue of a memory copy or set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Prologue {
    /// It is interpreted to its end.
    Interpreted,
    /// It says by option A or B what there is to do, as a CPU may, and leaves the bytes to the parts that follow.
    OptionA,
    OptionB,
}

impl Model {
    /// Executes a case and returns what it leaves, in the order of [`RESULT_DOUBLES`].
    pub fn run(case: &Case) -> Vec<u64> {
        let (mut memory, mut registers, mut vectors) = ([0; RAM_DOUBLES], [0; 32], [0; 64]);
        case.fill(u64::MAX, &mut memory, &mut registers, &mut vectors);
        let mut frame = Frame::at_start(CODE, 0);
        frame.pstate = 0;
        frame.x.copy_from_slice(&registers[..31]);
        let mut model = Self {
            frame,
            stack_pointer: registers[31],
            vectors: Vectors([0; 512]),
            monitor: None,
            memory: memory.iter().flat_map(|double| double.to_le_bytes()).collect(),
            big_endian: case.big_endian,
            prologue: match case.seed % 3 {
                0 => Prologue::Interpreted,
                1 => Prologue::OptionA,
                _ => Prologue::OptionB,
            },
        };
        for (slot, byte) in model.vectors.0.iter_mut().zip(vectors.iter().flat_map(|half| half.to_le_bytes()))
        {
            *slot = byte;
        }
        let esr_el1 = case.words.iter().find_map(|word| model.step(*word)).unwrap_or(SVC);
        model.result(esr_el1)
    }

    /// Executes an instruction; returns ESR_EL1 of the exception that it takes.
    fn step(&mut self, word: u32) -> Option<u64> {
        let Some(instruction) = decode(word) else {
            if word == NOP {
                self.frame.step(4);
                return None;
            }
            return Some(UNDEFINED);
        };
        // The address that authenticates is the one that it would be without a code: no key is in use.
        let far = match instruction.base {
            Base::Authenticated(_) => RAM_WINDOW + 0x200 - 32,
            _ => 0,
        };
        let outcome = if instruction.kind.is_bulk() {
            self.bulk(&instruction)
        } else {
            execute(&instruction, far, self)
        };
        match outcome {
            Ok(()) => {
                self.frame.step(4);
                None
            }
            Err(fault) => Some(DATA_ABORT | u64::from(fault.write) << 6 | EXTERNAL),
        }
    }

    /// Executes an instruction of a memory copy or set to its end. The main part is left early, so that all are interpreted.
    fn bulk(&mut self, instruction: &Instruction) -> Result<(), Fault> {
        let registers = [instruction.first, instruction.second, instruction.source];
        let [to, size, from] = registers.map(|register| self.frame.get(register));
        let is_backward = instruction.kind == Kind::Copy && is_overlapped(to, from, size);
        // Where no overlap is left, a prologue turns round: then its registers end in between.
        let turns = is_backward && size > 64;
        if instruction.is_prologue && (self.prologue != Prologue::Interpreted || turns) {
            let moved = if instruction.kind == Kind::Set { 0 } else { size };
            let is_option_b = self.prologue == Prologue::OptionB;
            let [to, size, from] = match (is_option_b, is_backward) {
                (false, false) => [to.wrapping_add(size), size.wrapping_neg(), from.wrapping_add(moved)],
                (true, true) => [to.wrapping_add(size), size, from.wrapping_add(moved)],
                _ => [to, size, from],
            };
            for (register, value) in registers.into_iter().zip([to, size, from]) {
                self.frame.set(register, value);
            }
            let negative = u64::from(is_option_b && is_backward);
            self.frame.pstate = negative << 31 | u64::from(is_option_b) << 29;
            return Ok(());
        }
        let is_main = self.frame.pc == CODE + 4;
        while self.frame.get(instruction.second) != 0 {
            execute(instruction, 0, self)?;
            if is_main {
                break;
            }
        }
        Ok(())
    }

    fn result(&self, esr_el1: u64) -> Vec<u64> {
        // The SVC is behind both instructions, and its exception behind it.
        let count = (self.frame.pc - CODE) / 4 + u64::from(esr_el1 == SVC);
        let doubles = |bytes: &[u8]| {
            bytes.as_chunks::<8>().0.iter().map(|double| u64::from_le_bytes(*double)).collect::<Vec<_>>()
        };
        let mut result = self.frame.x.to_vec();
        result.push(self.stack_pointer);
        result.push(ending(count, esr_el1));
        result.extend(doubles(&self.vectors.0));
        result.extend(doubles(&self.memory));
        assert_eq!(result.len(), RESULT_DOUBLES);
        result
    }
}

impl Cpu for Model {
    fn get(&self, register: Gpr) -> u64 {
        self.frame.get(register)
    }

    fn set(&mut self, register: Gpr, value: u64) {
        self.frame.set(register, value);
    }

    fn nzcv(&self) -> u8 {
        self.frame.nzcv()
    }

    fn pc(&self) -> u64 {
        self.frame.pc
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

    fn translate(&mut self, address: u64, _: bool, _: bool) -> Result<Place, Reason> {
        // The top byte is a tag.
        Ok(Place::Ram(Pa::new(address & 0x00ff_ffff_ffff_f000)))
    }

    fn access(&mut self, at: Place, bytes: u8, write: Option<u64>) -> Option<u64> {
        let Place::Ram(at) = at else { return None };
        assert!(at.is_aligned(u64::from(bytes)), "{at} for {bytes} bytes");
        let start =
            usize::try_from(at.get().checked_sub(RAM_WINDOW).unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let size = usize::from(bytes);
        let bytes = self.memory.get_mut(start..start.checked_add(size)?)?;
        if let Some(value) = write {
            bytes.copy_from_slice(&value.to_le_bytes()[..size]);
        }
        let mut value = [0; 8];
        value[..size].copy_from_slice(bytes);
        Some(u64::from_le_bytes(value))
    }
}
