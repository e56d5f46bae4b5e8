//! How a VM ends or starts over, and what the machine makes of it.

use crate::code::{CPU_OFF, Code, Conduit, SYSTEM_RESET};
use crate::machine::{Machine, Outcome, Scratch};

/// An address in the VM's RAM where nothing was loaded.
const UNUSED_RAM: u32 = 0x4030_0000;

fn run(code: &Code, prepare: impl FnOnce(Machine) -> Machine) -> Outcome {
    let scratch = Scratch::new();
    let machine = Machine::as_make_runs_it().with_all([("CPUS", "1"), ("MEM", "16M")]);
    prepare(machine.with("KERNEL", scratch.file("raw", &code.bytes()))).run()
}

#[test]
fn an_exception_without_a_handler_stops_the_vm_and_fails_the_machine() {
    let undefined = Code::new().word(0); // UDF #0
    let outcome = run(&undefined, |machine| machine);
    outcome
        .failed()
        .vm("vm", "crashed after ")
        .complains(&["vm vm: vcpu 0 stopped: it has no exception handler at 0x200 (VBAR_EL1 0x0)"]);
    assert_eq!(outcome.of_guests(), [""; 0], "{outcome}");
}

#[test]
fn a_quiet_crash_still_fails_the_machine() {
    let outcome = run(&Code::new().word(0), |machine| machine.with("QUIET", "1"));
    outcome.failed();
    assert_eq!(outcome.console, "");
}

#[test]
fn a_vm_that_turns_its_last_cpu_off_has_crashed() {
    let outcome = run(&Code::new().call(CPU_OFF, Conduit::Hvc).word(0x1400_0000), |machine| machine);
    outcome.failed().complains(&["vm vm: every CPU is off, and none is left to turn one on"]);
}

#[test]
fn system_reset_gives_the_vm_its_machine_as_new() {
    for conduit in [Conduit::Hvc, Conduit::Smc] {
        // What the first run leaves in RAM, in the kernel's own bytes and in a system register, the second must not find.
        let code = Code::new()
            .here(10)
            .print("run ")
            .set(4, UNUSED_RAM)
            .load(5, 4)
            .unless(5, 0, |code| code.print("leak "))
            .set(6, 0x1234)
            .store(6, 4)
            .word(0xd538_d085) // MRS X5, TPIDR_EL1
            .unless(5, 0, |code| code.print("register "))
            .word(0xd518_d086) // MSR TPIDR_EL1, X6
            .load(5, 10)
            .unless(5, 0x1000_000a, |code| code.print("kernel "))
            .store(6, 10)
            .print("\n")
            .call(SYSTEM_RESET, conduit)
            .print("still here\n");
        let outcome = run(&code, |machine| machine.until("run \n", 4));
        outcome.complains(&[]).vm("vm", "resets");
        assert!(
            outcome.of_guests().iter().filter(|line| !line.is_empty()).all(|line| *line == "run "),
            "{outcome}"
        );
    }
}

#[test]
fn what_was_typed_before_a_reset_and_not_taken_is_there_after_it() {
    // The UART takes one character while its FIFO is off: the second comes when the first is read, and the third waits.
    let code = Code::new()
        .print("ready\n")
        .set(4, 0x0900_0018) // UARTFR
        .set(7, 0x0900_0000) // UARTDR
        .load(5, 4)
        .word(0x3727_ffe5) // TBNZ W5, #4, back to the load: RXFE
        .load(6, 7)
        .unless(6, u32::from(b'a'), |code| code.print("another\n").power_off())
        .call(SYSTEM_RESET, Conduit::Hvc);
    let outcome = run(&code, |machine| machine.after("ready", "abc"));
    outcome.succeeded().complains(&[]).vm("vm", "resets").contains("another");
}

#[test]
fn one_vm_resets_alone() {
    use crate::bundle::{Bundle, Guest};
    let scratch = Scratch::new();
    let forever = Code::new().print(".").call(SYSTEM_RESET, Conduit::Hvc);
    let kernel = scratch.file("raw", &forever.bytes());
    let bundle = Bundle::of(&[
        Guest::new("restless", &kernel.to_string_lossy()).with("MEM", "2M"),
        Guest::hello("steady"),
    ]);
    let outcome = bundle.machine().until("vm steady: is off after ", 1).until("vm restless: resets", 2).run();
    outcome.complains(&[]).vm("restless", "resets").vm("steady", "is off after ");
}
