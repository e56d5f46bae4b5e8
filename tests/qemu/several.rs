//! Several VMs on one machine.

use crate::bundle::{Bundle, Guest};
use crate::machine::{Machine, Outcome};

/// Returns the lines of a VM: those with its name and, of the one that is left alone, those without a name at the end.
fn lines_of<'a>(outcome: &'a Outcome, vm: &str, is_last: bool) -> Vec<&'a str> {
    let name = format!("[{vm}] ");
    let lines = outcome.of_guests().into_iter();
    lines
        .filter_map(|line| line.strip_prefix(&*name).or((is_last && !line.starts_with('[')).then_some(line)))
        .collect()
}

#[test]
fn two_vms_run_at_once_and_each_says_what_it_says_alone() {
    for (gic, cpu) in [("2", "cortex-a72"), ("3", "cortex-a72"), ("3", "max")] {
        let on_board = |machine: Machine| machine.with_all([("GIC", gic), ("CPU", cpu), ("CPUS", "4")]);
        let guest = |name: &str| Guest::hello(name).with("GIC", gic).with("CPUS", "2");
        let alone = on_board(Bundle::of(&[guest("alone")]).machine()).run();
        let both = on_board(Bundle::of(&[guest("one"), guest("two")]).machine()).run();
        alone.succeeded().contains("CPUs: 2 online").contains("hello: Goodbye");
        both.succeeded().complains(&[]).vm("one", "is off after ").vm("two", "is off after ");
        let ended = |vm: &str| both.console.find(&format!("trapeze: vm {vm}: is off")).unwrap();
        let is_one_last = ended("one") > ended("two");
        // A line of the hypervisor's own may come in the middle of one.
        let said = alone.of_guests().concat();
        assert_eq!(lines_of(&both, "one", is_one_last).concat(), said, "{both}");
        assert_eq!(lines_of(&both, "two", !is_one_last).concat(), said, "{both}");
    }
}

#[test]
fn what_is_typed_goes_to_the_vm_in_front() {
    let outcome = Machine::as_make_runs_it()
        .with_all([("GUEST", "linux,linux")])
        .within(std::time::Duration::from_secs(120))
        .after("[linux-2] Enter 'help' for a list", "\x1dn")
        .after("[linux-2] / # ", "echo to-$((1+1)); poweroff\n")
        .after("vm linux-2: is off", "\n")
        .after("/ # ", "echo back to-$((0+1)); poweroff\n")
        .run();
    outcome.succeeded().complains(&[]);
    outcome.contains("[linux-2] to-2").contains("back to-1").vm("linux", "is off after ");
}

#[test]
fn make_run_takes_several_guests() {
    let outcome = Machine::as_make_runs_it()
        .with_all([("GUEST", "hello,linux,hello"), ("APPEND", "quiet trapeze.test=boot")])
        .within(std::time::Duration::from_secs(120))
        .after("TEST uart ready", "a line\n")
        .run();
    outcome.succeeded().complains(&[]);
    for vm in ["hello", "linux", "hello-2"] {
        outcome.vm(vm, "is off after ");
    }
}

#[test]
fn a_vm_that_is_held_when_it_crashes_ends_by_the_operators_word() {
    let scratch = crate::machine::Scratch::new();
    let kernel = scratch.file("raw", &[0; 4]);
    let broken = Guest::new("broken", &kernel.to_string_lossy()).with("CRASH", "hold");
    let outcome = Bundle::of(&[broken])
        .machine()
        .after("vm broken: crashed, and is held", "\x1dm")
        .after("trapeze> ", "vm list\r")
        .after("trapeze> ", "vm stop broken\r")
        .run();
    outcome.failed().contains("held").vm("broken", "is off after ");
}

#[test]
fn a_vm_that_crashes_leaves_the_other_running_and_the_machine_fails() {
    let scratch = crate::machine::Scratch::new();
    let kernel = scratch.file("raw", &[0; 4]);
    let bundle = Bundle::of(&[Guest::new("broken", &kernel.to_string_lossy()), Guest::hello("sound")]);
    let outcome = bundle.machine().run();
    outcome.failed().vm("broken", "crashed after ").vm("sound", "is off after ").contains("hello: Goodbye");
    outcome.complains(&["vm broken: vcpu 0 stopped: it has no exception handler at 0x200 (VBAR_EL1 0x0)"]);
}

#[test]
fn what_one_vm_leaves_in_ram_the_next_does_not_find() {
    // Three VMs in turn on one CPU would be needed to hand a frame on; a reset does, see `ends`. Here: two at once do
    // not share a byte, each finds its RAM zero and fills it.
    use crate::code::Code;
    let scratch = crate::machine::Scratch::new();
    let code = Code::new()
        .set(4, 0x4030_0000)
        .load(5, 4)
        .unless(5, 0, |code| code.print("leak"))
        .set(6, 0x1234)
        .store(6, 4)
        .print("x")
        .power_off();
    let kernel = scratch.file("raw", &code.bytes());
    let guest = |name: &str| Guest::new(name, &kernel.to_string_lossy());
    let outcome = Bundle::of(&[guest("one"), guest("two")]).machine().run();
    outcome.succeeded().complains(&[]);
    let letters = outcome.of_guests().concat().replace("[one] ", "").replace("[two] ", "");
    assert_eq!(letters, "xx", "{outcome}");
}
