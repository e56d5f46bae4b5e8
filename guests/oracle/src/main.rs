//! A guest that executes loads and stores, and tells what became of registers and memory.
//!
//! It judges nothing: the host gave it the cases and compares (`tests/oracle`). Each runs at EL0 with its MMU on and ends
//! in an exception. What is said is binary: of each case a digest, or everything. The memory is RAM, or priorities of the
//! interrupt controller: a device that keeps what is written, bare or under Trapeze.
//!
//! Follows Arm ARM DDI 0487K.a and the arm64 Linux boot protocol.
#![no_std]
#![no_main]

mod case;
mod machine;

use case::{
    CASE_BYTES, CASE_DOUBLES, CASES_OFFSET, CODE, Case, DEVICE_RUNS, Header, PRIORITY_BITS, RAM_DOUBLES,
    RAM_RUNS, RESULT_DOUBLES,
};
use machine::Frame;

const SVC: u32 = 0xd400_0001;

/// Runs after reset.
#[unsafe(no_mangle)]
extern "C" fn primary(image: u64) -> ! {
    machine::enable_mmu();
    let at = image + CASES_OFFSET;
    let header = Header::decode([machine::read(at), machine::read(at + 8)]);
    for number in 0..header.count {
        let mut doubles = [0; CASE_DOUBLES];
        for (double, slot) in doubles.iter_mut().zip(0..) {
            *double = machine::read(at + 16 + number * CASE_BYTES + slot * 8);
        }
        let result = run(&Case::decode(doubles), header.is_device);
        if header.is_verbose {
            result.iter().flat_map(|double| double.to_le_bytes()).for_each(machine::put);
        } else {
            case::digest(result.iter()).to_le_bytes().into_iter().for_each(machine::put);
        }
    }
    machine::power_off()
}

/// Executes a case and returns what it leaves.
fn run(case: &Case, is_device: bool) -> [u64; RESULT_DOUBLES] {
    let (runs, mask): (&[(u64, usize)], u64) =
        if is_device { (&DEVICE_RUNS, PRIORITY_BITS) } else { (&RAM_RUNS, u64::MAX) };
    let places = || runs.iter().flat_map(|(start, doubles)| (*start..).step_by(8).take(*doubles));
    let mut frame = Frame::new();
    let mut memory = [0; RAM_DOUBLES];
    case.fill(mask, &mut memory, &mut frame.registers, &mut frame.vectors);
    for (double, at) in memory.iter().zip(places()) {
        machine::write_halves(at, *double);
    }
    let [first, second, third] = case.words;
    machine::write_code(CODE, [first, second, third, SVC]);
    machine::execute_at_el0(&mut frame, CODE, case.big_endian);

    let mut result = [0; RESULT_DOUBLES];
    let ending = [case::ending(frame.elr_el1.wrapping_sub(CODE) / 4, frame.esr_el1)];
    for (double, at) in memory.iter_mut().zip(places()) {
        *double = machine::read_halves(at) & mask;
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
