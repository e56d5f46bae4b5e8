//! Debian's own kernel, as `make run` starts it, to a shell and through the tests in `guests/linux/tests`.

use std::time::Duration;

use crate::machine::{Machine, Outcome};

/// A boot takes seconds; a busy host with 8 CPUs on 2 takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

fn debian(gic: &str, cpu: &str, cpus: &str, append: &str) -> Machine {
    let settings = [("GIC", gic), ("CPU", cpu), ("CPUS", cpus), ("APPEND", append), ("MEM", "256M")];
    Machine::as_make_runs_it().with_all(settings).within(PATIENCE)
}

/// Asserts that each fact that `guests/linux/tests/boot` looks at holds.
pub fn all_facts_hold(outcome: &Outcome, cpus: usize) {
    outcome.succeeded().complains(&[]).contains("TRAPEZE-GUEST: init reached");
    let facts: Vec<_> =
        outcome.of_guests().into_iter().filter_map(|line| line.strip_prefix("TEST ")).collect();
    let holds = |name: &str| facts.iter().any(|fact| fact.starts_with(&format!("{name} ok ")));
    let mut expected: Vec<_> = ["clock", "timer", "timer-percpu", "uart"].map(String::from).into();
    expected.extend((cpus > 1).then(|| "ipi".into()));
    expected.extend((1..cpus).map(|cpu| format!("hotplug-cpu{cpu}")));
    for name in &expected {
        assert!(holds(name), "{name} does not hold:\n{outcome}");
    }
    let all = if cpus > 1 { format!("0-{}", cpus - 1) } else { "0".into() };
    outcome.says(&format!("TEST cpus ok {cpus} online: {all}")).says("TEST done").lacks("FAIL");
    // Beside those: cpus, `uart ready` and `done`.
    assert_eq!(facts.len(), expected.len() + 3, "{outcome}");
}

fn debian_boots(gic: &str, cpu: &str, cpus: usize) {
    let outcome = debian(gic, cpu, &cpus.to_string(), "quiet trapeze.test=boot")
        .after("TEST uart ready", "a line for the UART\n")
        .run();
    all_facts_hold(&outcome, cpus);
    outcome.contains("received 'a line for the UART'").vm("linux", "is off after ");
}

macro_rules! debian_boots {
    ($($name:ident: GICv $gic:literal, $cpu:literal, $cpus:literal;)*) => {
        $(
            #[test]
            fn $name() {
                debian_boots(stringify!($gic), $cpu, $cpus);
            }
        )*
    };
}

debian_boots! {
    debian_boots_on_gicv2_and_cortex_a72_with_1_cpu: GICv 2, "cortex-a72", 1;
    debian_boots_on_gicv2_and_cortex_a72_with_4_cpus: GICv 2, "cortex-a72", 4;
    debian_boots_on_gicv2_and_max_with_1_cpu: GICv 2, "max", 1;
    debian_boots_on_gicv2_and_max_with_4_cpus: GICv 2, "max", 4;
    debian_boots_on_gicv3_and_cortex_a72_with_1_cpu: GICv 3, "cortex-a72", 1;
    debian_boots_on_gicv3_and_cortex_a72_with_4_cpus: GICv 3, "cortex-a72", 4;
    debian_boots_on_gicv3_and_max_with_1_cpu: GICv 3, "max", 1;
    debian_boots_on_gicv3_and_max_with_4_cpus: GICv 3, "max", 4;
    debian_boots_on_gicv2_with_8_cpus: GICv 2, "cortex-a72", 8;
    debian_boots_on_gicv3_with_8_cpus: GICv 3, "cortex-a72", 8;
}

#[test]
fn the_shell_takes_commands_and_poweroff_ends_the_machine() {
    let outcome = debian("3", "cortex-a72", "4", "quiet")
        .after("/ # ", "echo $((6 * 7)) on $(nproc)\n")
        .after("42 on 4", "poweroff\n")
        .run();
    outcome.succeeded().says("42 on 4").complains(&[]);
    // What the hypervisor says is prefixed; take that away, and what a quiet one prints is left.
    assert_eq!(outcome.of_trapeze().len(), 3, "{outcome}");
    outcome.vm("linux", "starts, 4 vCPUs").vm("linux", "is off after ");
}

#[test]
fn a_quiet_hypervisor_leaves_the_console_to_the_guest() {
    let outcome = debian("3", "max", "1", "quiet").with("QUIET", "1").after("/ # ", "poweroff\n").run();
    outcome.succeeded().lacks("trapeze: ");
    assert_eq!(outcome.of_guests().first(), Some(&"TRAPEZE-GUEST: init reached"), "{outcome}");
    assert_eq!(outcome.errors, "");
}
