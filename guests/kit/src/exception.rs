//! Exceptions taken to EL1: all registers in a [`Frame`], handlers, and [`catch`].
//!
//! Follows Arm ARM DDI 0487K.a, D1.3 (exception entry), D24.2.40 (ESR_EL1).

use crate::cpu::{self, Cpu};
use crate::{el0, println, psci};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::compiler_fence;

const EC_SVC: u64 = 0x15;
const EC_HVC: u64 = 0x16;
const EC_INSTRUCTION_ABORT_LOWER: u64 = 0x20;
const EC_PC_ALIGNMENT: u64 = 0x22;
const EC_STEP_LOWER: u64 = 0x32;
const EC_STEP: u64 = 0x33;

/// All of the CPU's general state when an exception was taken; what a handler changes is what is returned to.
#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// X0 to X30.
    pub x: [u64; 31],
    /// SP_EL0.
    pub sp_el0: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// Vector taken, 0 to 15 in the order of the table.
    pub vector: u64,
    /// Nothing: a frame is a multiple of 16 bytes.
    pub reserved: u64,
}

/// What an exception said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// ESR_EL1.
    pub esr: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// FAR_EL1, of value only for some classes.
    pub far: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// Vector taken, 0 to 15 in the order of the table.
    pub vector: u64,
}

impl Exception {
    /// Returns ESR_EL1.EC.
    pub fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Returns ESR_EL1.ISS.
    pub fn iss(&self) -> u64 {
        self.esr & 0x1ff_ffff
    }

    /// Says whether the instruction was UNDEFINED: EC 0, taken to a synchronous vector.
    pub fn is_undefined(&self) -> bool {
        self.class() == 0 && self.vector & 3 == 0
    }
}

impl Frame {
    /// Returns what the exception said.
    pub fn exception(&self) -> Exception {
        Exception { esr: self.esr, elr: self.elr, far: self.far, spsr: self.spsr, vector: self.vector }
    }

    /// Moves the PC behind the instruction, where it is not there already.
    pub fn skip(&mut self) {
        match self.esr >> 26 & 0x3f {
            EC_SVC | EC_HVC | EC_STEP_LOWER | EC_STEP => {}
            // The PC itself was at fault: go back to the caller.
            EC_INSTRUCTION_ABORT_LOWER..=EC_PC_ALIGNMENT => self.elr = self.x[30],
            _ => self.elr = self.elr.wrapping_add(4),
        }
    }
}

static SYNCHRONOUS: AtomicUsize = AtomicUsize::new(0);
static INTERRUPT: AtomicUsize = AtomicUsize::new(0);

/// A handler; it may change the frame.
pub type Handler = fn(&mut Frame);

/// Chooses who gets synchronous exceptions and SErrors, before [`catch`]; `None`: nobody.
pub fn set_synchronous(handler: Option<Handler>) {
    SYNCHRONOUS.store(handler.map_or(0, |handler| handler as usize), SeqCst);
}

/// Chooses who gets IRQs and FIQs; `None`: nobody, and one is fatal.
pub fn set_interrupt(handler: Option<Handler>) {
    INTERRUPT.store(handler.map_or(0, |handler| handler as usize), SeqCst);
}

/// Calls the handler in `slot`, if there is one.
fn call(slot: &AtomicUsize, frame: &mut Frame) -> bool {
    let address = slot.load(SeqCst);
    if address == 0 {
        return false;
    }
    // SAFETY: the two setters store nothing but 0 and the address of a `Handler`.
    let handler = unsafe { core::mem::transmute::<usize, Handler>(address) };
    handler(frame);
    true
}

/// Runs `closure`; if it caused an exception returns the first, else the closure's value. One may be inside another.
///
/// The instruction at fault is skipped (an instruction abort returns to X30), so give inline assembly a value for its
/// outputs: `inout(reg) value`. SErrors are caught, too; interrupts are not.
///
/// # Errors
/// The exception.
pub fn catch<T>(closure: impl FnOnce() -> T) -> Result<T, Exception> {
    let cpu = Cpu::this();
    let outer = [&cpu.expecting, &cpu.caught].map(|word| word.load(Relaxed));
    let outer_exception = noted(cpu);
    cpu.caught.store(0, Relaxed);
    cpu.expecting.store(1, Relaxed);
    compiler_fence(SeqCst);
    let value = closure();
    compiler_fence(SeqCst);
    let count = cpu.caught.load(Relaxed);
    let exception = noted(cpu);
    cpu.last_caught.store(count, Relaxed);
    cpu.expecting.store(outer[0], Relaxed);
    cpu.caught.store(outer[1], Relaxed);
    note(cpu, &outer_exception);
    if count == 0 { Ok(value) } else { Err(exception) }
}

/// Returns how many exceptions the last [`catch`] of this CPU has seen.
pub fn caught() -> u64 {
    Cpu::this().last_caught.load(Relaxed)
}

/// Returns the exception that was noted.
fn noted(cpu: &Cpu) -> Exception {
    let [esr, elr, far, spsr, vector] = cpu.exception.each_ref().map(|word| word.load(Relaxed));
    Exception { esr, elr, far, spsr, vector }
}

/// Notes an exception.
fn note(cpu: &Cpu, exception: &Exception) {
    let words = [exception.esr, exception.elr, exception.far, exception.spsr, exception.vector];
    cpu.exception.iter().zip(words).for_each(|(word, value)| word.store(value, Relaxed));
}

#[unsafe(no_mangle)]
extern "C" fn kit_exception(frame: &mut Frame) {
    let cpu = Cpu::of(cpu::slot_of_stack(core::ptr::from_ref(frame).addr() as u64));
    let handled = match frame.vector & 3 {
        1 | 2 => call(&INTERRUPT, frame),
        _ => {
            if frame.vector >= 8 {
                el0::leave(cpu, frame);
            }
            call(&SYNCHRONOUS, frame) || record(cpu, frame)
        }
    };
    if !handled {
        fatal(frame)
    }
}

/// Notes an exception that `catch` waits for, and skips the instruction.
fn record(cpu: &Cpu, frame: &mut Frame) -> bool {
    if cpu.expecting.load(Relaxed) == 0 {
        return false;
    }
    if cpu.caught.fetch_add(1, Relaxed) == 0 {
        note(cpu, &frame.exception());
    }
    if frame.vector & 3 == 0 {
        frame.skip();
    }
    true
}

/// Reports an exception that nobody waits for, and powers off.
fn fatal(frame: &Frame) -> ! {
    println!(
        "Bail out! exception: vector {}, ESR_EL1 {:#x}, ELR_EL1 {:#x}, FAR_EL1 {:#x}, SPSR_EL1 {:#x}, image at {:#x}",
        frame.vector,
        frame.esr,
        frame.elr,
        frame.far,
        frame.spsr,
        image_start(),
    );
    psci::power_off()
}

/// Returns where the image was loaded: an address of the ELF is this far below.
pub fn image_start() -> u64 {
    let start: u64;
    // SAFETY: takes the address of a linker symbol, relative to here.
    unsafe { core::arch::asm!("adrp {0}, _start", out(reg) start, options(nomem, nostack, preserves_flags)) };
    start
}
