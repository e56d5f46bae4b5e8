//! hello, the bundle that is built in, on every board and CPU that the image is for.

use crate::machine::{Machine, Outcome};

const ELF: &str = "target/aarch64-unknown-none-softfloat/release/trapeze";

/// Asserts that hello found all it looks for on a VM with these CPUs, said nothing else, and powered off.
pub fn hello_is_content(outcome: &Outcome, gic: &str, cpus: &str) {
    outcome.succeeded().complains(&[]);
    let said = outcome.of_guests();
    let [hello, cpu, clock, interrupts, online, goodbye] = said[..] else {
        panic!("not six lines:\n{outcome}")
    };
    assert_eq!(hello, "hello: Hello from EL1!");
    assert!(
        cpu.starts_with("hello: CPU: MIDR_EL1 0x") && cpu.ends_with(", MPIDR_EL1 0x80000000"),
        "{outcome}"
    );
    assert!(clock.starts_with("hello: Clock: ") && clock.ends_with("000 Hz, advances"), "{outcome}");
    assert_eq!(
        interrupts,
        format!("hello: Interrupts: GICv{gic}, timer interrupt taken, INTID 27"),
        "{outcome}"
    );
    assert_eq!(online, format!("hello: CPUs: {cpus} online"), "{outcome}");
    assert_eq!(goodbye, "hello: Goodbye");
    assert_eq!(outcome.errors, "");
}

fn hello_runs_on(gic: &str, cpu: &str) {
    // What is built in has one vCPU: on a board with more, the others stay in EL2.
    for cpus in ["1", "4"] {
        let outcome = Machine::new().with_all([("GIC", gic), ("CPU", cpu), ("CPUS", cpus)]).run();
        hello_is_content(&outcome, gic, "1");
        let name = if gic == "2" { "hello-gicv2" } else { "hello" };
        outcome.vm(name, "starts, 1 vCPUs").vm(name, "is off after ");
    }
    let four = [("GUEST", "hello"), ("GIC", gic), ("CPU", cpu), ("CPUS", "4"), ("MEM", "16M")];
    hello_is_content(&Machine::as_make_runs_it().with_all(four).run(), gic, "4");
}

macro_rules! hello_runs_on {
    ($($name:ident: GICv $gic:literal, $cpu:literal;)*) => {
        $(
            #[test]
            fn $name() {
                hello_runs_on(stringify!($gic), $cpu);
            }
        )*
    };
}

hello_runs_on! {
    hello_runs_on_gicv2_and_cortex_a53: GICv 2, "cortex-a53";
    hello_runs_on_gicv2_and_cortex_a57: GICv 2, "cortex-a57";
    hello_runs_on_gicv2_and_cortex_a72: GICv 2, "cortex-a72";
    hello_runs_on_gicv2_and_cortex_a76: GICv 2, "cortex-a76";
    hello_runs_on_gicv2_and_neoverse_n1: GICv 2, "neoverse-n1";
    hello_runs_on_gicv2_and_max: GICv 2, "max";
    hello_runs_on_gicv3_and_cortex_a53: GICv 3, "cortex-a53";
    hello_runs_on_gicv3_and_cortex_a57: GICv 3, "cortex-a57";
    hello_runs_on_gicv3_and_cortex_a72: GICv 3, "cortex-a72";
    hello_runs_on_gicv3_and_cortex_a76: GICv 3, "cortex-a76";
    hello_runs_on_gicv3_and_neoverse_n1: GICv 3, "neoverse-n1";
    hello_runs_on_gicv3_and_max: GICv 3, "max";
}

#[test]
fn the_elf_boots_with_the_tree_at_the_base_of_ram() {
    for (gic, cpu, cpus) in
        [("2", "cortex-a72", "1"), ("2", "max", "4"), ("3", "cortex-a72", "4"), ("3", "max", "1")]
    {
        let elf = [("IMAGE", ELF), ("GIC", gic), ("CPU", cpu), ("CPUS", cpus)];
        hello_is_content(&Machine::new().with_all(elf).run(), gic, "1");
    }
}

#[test]
fn started_at_el1_it_names_what_is_missing_and_the_option_that_gives_it() {
    for (gic, image) in [("2", "target/trapeze.img"), ("3", "target/trapeze.img"), ("3", ELF)] {
        let at_el1 = [("GIC", gic), ("IMAGE", image), ("QEMU_ARGS", "-machine virtualization=off")];
        let outcome = Machine::new().with_all(at_el1).run();
        outcome.complains(&[
            "started at EL1, but a hypervisor needs EL2: give QEMU `-machine virt,virtualization=on`...",
        ]);
        assert_eq!(outcome.console.lines().count(), 1, "{outcome}");
    }
}
