//! Code at EL0: runs until a synchronous exception. Interrupts in between go to the interrupt handler.
//!
//! Not here: memory for it. With the MMU off EL0 reaches all; with it on, see `mmu::USER`.

use crate::cpu::Cpu;
use crate::exception::{Exception, Frame};
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

unsafe extern "C" {
    fn kit_enter_el0(frame: *const Frame, stack: *mut u64);
    fn kit_leave_el0(stack: u64) -> !;
}

/// SPSR_EL1 for EL0 with everything masked.
pub const MASKED: u64 = 0x3c0;

/// Runs `frame` at EL0 from `elr` with `spsr` until it traps, leaves its registers then in `frame`, and returns why.
///
/// All masked on return. `SVC` is the polite way to end.
pub fn run(frame: &mut Frame) -> Exception {
    let cpu = Cpu::this();
    let pointer = core::ptr::from_mut(frame);
    cpu.el0_frame.store(pointer.expose_provenance() as u64, SeqCst);
    // SAFETY: `frame` stays until kit_leave_el0 has returned here; EL0 cannot reach the kernel's stack by its own
    // registers, and what the guest lets it write is the guest's choice.
    unsafe { kit_enter_el0(pointer, cpu.el0_stack.as_ptr()) };
    frame.exception()
}

/// Runs the code at `address` at EL0 with X0 and `stack`, masked.
pub fn call(address: u64, x0: u64, stack: u64) -> (Exception, Frame) {
    let mut frame = Frame { elr: address, spsr: MASKED, sp_el0: stack, ..Frame::default() };
    frame.x[0] = x0;
    (run(&mut frame), frame)
}

/// Ends `run` if it is what this exception interrupted.
pub(crate) fn leave(cpu: &Cpu, frame: &Frame) {
    let running = cpu.el0_frame.swap(0, SeqCst);
    if running == 0 {
        return;
    }
    let target = core::ptr::with_exposed_provenance_mut::<Frame>(running as usize);
    // SAFETY: `run` exposed it, on this CPU, and waits: nobody else uses it.
    unsafe { target.write(*frame) };
    // SAFETY: this word was written by kit_enter_el0 on this stack, above all that is in use now.
    unsafe { kit_leave_el0(cpu.el0_stack.load(Relaxed)) }
}
