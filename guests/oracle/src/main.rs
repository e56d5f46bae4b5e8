//! A guest that executes loads and stores on RAM, natively, and tells what became of registers and memory.
//!
//! It judges nothing: the host gave it the cases and compares (`tests/oracle`). Each runs at EL0 with its MMU on and ends
//! in an exception. What is said is binary: of each case a digest, or everything.
//!
//! Follows Arm ARM DDI 0487K.a and the arm64 Linux boot protocol.
#![no_std]
#![no_main]

mod case;
mod machine;

use case::{CASE_DOUBLES, CASES, CODE, Case, REPORT_ALL, RESULT_DOUBLES, WINDOW, WINDOW_DOUBLES};
use machine::Frame;

const SVC: u32 = 0xd400_0001;

/// Runs after reset.
#[unsafe(no_mangle)]
extern "C" fn primary() -> ! {
    machine::enable_mmu();
    let (mut at, count, report) = (CASES + 16, machine::read(CASES), machine::read(CASES + 8));
    for _ in 0..count {
        let mut doubles = [0; CASE_DOUBLES];
        for double in &mut doubles {
            *double = machine::read(at);
            at += 8;
        }
        let result = run(&Case::decode(doubles));
        if report == REPORT_ALL {
            result.iter().flat_map(|double| double.to_le_bytes()).for_each(machine::put);
        } else {
            case::digest(result.iter()).to_le_bytes().into_iter().for_each(machine::put);
        }
    }
    machine::power_off()
}

/// Executes a case and returns what it leaves.
fn run(case: &Case) -> [u64; RESULT_DOUBLES] {
    let mut frame = Frame::new();
    let mut memory = [0; WINDOW_DOUBLES];
    case.fill(&mut memory, &mut frame.registers, &mut frame.vectors);
    for (double, at) in memory.iter().zip((WINDOW..).step_by(8)) {
        machine::write(at, *double);
    }
    let [first, second] = case.words;
    machine::write_code(CODE, [first, second, SVC]);
    machine::execute_at_el0(&mut frame, CODE, case.big_endian);

    let mut result = [0; RESULT_DOUBLES];
    let ending = [case::ending(frame.elr_el1.wrapping_sub(CODE) / 4, frame.esr_el1)];
    for (double, at) in memory.iter_mut().zip((WINDOW..).step_by(8)) {
        *double = machine::read(at);
    }
    let left = frame.registers.iter().chain(&ending).chain(&frame.vectors).chain(&memory).copied();
    result.iter_mut().zip(left).for_each(|(slot, double)| *slot = double);
    result
}

/// Ends the run in silence after an exception of this guest's own: the host misses what was not said.
#[unsafe(no_mangle)]
extern "C" fn unexpected() -> ! {
    machine::power_off()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    machine::power_off()
}
