//! A guest kernel that measures what traps cost, in ticks of the virtual counter as the guest sees them.
//!
//! It judges nothing: it prints `bench: NAME TICKS...`, a line for each operation, and powers the machine off. With
//! QEMU's `-icount shift=0` and `-cpu NAME,cntfrq=1000000000` a tick is an instruction; tools/bench runs it so, bare at
//! EL1 and under Trapeze, and takes `nothing` off. `-` is an operation that the machine does not have.
//!
//! Follows the arm64 Linux boot protocol; machine.rs has the rest.
#![no_std]
#![no_main]

mod machine;

/// How often each operation is measured.
const REPEATS: usize = 8;
/// Rounds of the compute loop, four instructions each.
const ROUNDS: u64 = 10_000_000;
/// Ticks of the counter between two interrupts in the compute loop: 250 Hz at 1 GHz.
const PERIOD: u64 = 4_000_000;

/// Runs after reset.
#[unsafe(no_mangle)]
extern "C" fn measure_all() -> ! {
    let gic = machine::open_gic();
    measure("nothing", machine::nothing);
    measure("hvc", machine::hvc);
    measure("smc", machine::smc);
    measure("id-register", machine::id_register);
    measure("distributor", machine::distributor);
    measure("write-back", machine::write_back);
    measure("sgi", || machine::sgi(gic));
    measure("timer", || machine::timer(gic));
    measure("character", machine::character);
    report("compute", &[machine::compute(gic, ROUNDS, PERIOD)]);
    text("bench: end\r\n");
    machine::power_off()
}

/// Measures an operation several times and prints its line after that: printing is not measured.
fn measure(name: &str, operation: impl Fn() -> Option<u64>) {
    let mut samples = [None; REPEATS];
    for sample in &mut samples {
        *sample = operation();
    }
    report(name, &samples);
}

fn report(name: &str, samples: &[Option<u64>]) {
    text("\r\nbench: ");
    text(name);
    for sample in samples {
        text(" ");
        match sample {
            Some(ticks) => decimal(*ticks),
            None => text("-"),
        }
    }
    text("\r\n");
}

fn text(text: &str) {
    text.bytes().for_each(machine::put);
}

/// Prints without leading zeros, and without `core::fmt`, whose tables would need relocating.
fn decimal(value: u64) {
    if value >= 10 {
        decimal(value / 10);
    }
    machine::put(b'0' + u8::try_from(value % 10).unwrap_or(0));
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    text("bench: PANIC\r\n");
    machine::stop()
}
