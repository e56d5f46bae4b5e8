//! Reports as they are read.

use super::table::MAX_WIDTH;
use super::*;
use vocabulary::addr::{Ipa, Pa, Region};

const MIB: u64 = 1 << 20;

fn vm<'a>(number: u16, name: &'a str, standing: Standing, share: Share) -> VmStatus<'a> {
    VmStatus {
        number,
        name,
        standing,
        vcpus: 4,
        cpu_permille: 1873,
        memory_bytes: 512 * MIB,
        exits_per_second: 1204,
        share,
    }
}

#[test]
fn vms_are_listed_with_what_they_have_and_take() {
    let control = Share { class: Class::RealTime { priority: 31 }, cap_percent: Some(40) };
    let idle =
        VmStatus { cpu_permille: 0, exits_per_second: 0, ..vm(2, "control", Standing::NotStarted, control) };
    let text = list(&[vm(1, "linux", Standing::Running, Share::default()), idle]);
    assert_eq!(
        text,
        "#  NAME     STATE        VCPUS   CPU%  MIB  EXITS/S  SHARE        CAP%\n\
         1  linux    running          4  187.3  512     1204  weight 100      -\n\
         2  control  not started      4    0.0  512        0  priority 31    40\n"
    );
}

#[test]
fn a_list_of_vms_with_long_names_is_100_columns_wide() {
    let name = "a-virtual-machine-with-a-name-that-is-much-too-long-for-any-table";
    let share = Share { class: Class::Shared { weight: 10_000 }, cap_percent: Some(100) };
    let large = VmStatus {
        memory_bytes: u64::MAX,
        exits_per_second: u64::from(u32::MAX),
        cpu_permille: u32::MAX,
        ..vm(u16::MAX, name, Standing::NotStarted, share)
    };
    let text = list(&[large, vm(1, "b", Standing::Held, share)]);
    assert!(text.lines().all(|line| line.len() <= MAX_WIDTH), "{text}");
    assert!(text.contains("a-v") && text.contains("~  not started"), "{text}");
}

#[test]
fn cpus_are_listed_with_what_runs_there() {
    let cpu = |pcpu: u8, running: Option<(&'static str, VcpuId)>, busy_permille| CpuStatus {
        pcpu: PcpuId(pcpu),
        running,
        queued: 1,
        members: 3,
        busy_permille,
    };
    assert_eq!(
        cpus(&[cpu(0, Some(("linux", VcpuId(2))), 1000), cpu(10, None, 3)]),
        "CPU  RUNS     QUEUED  MEMBERS  BUSY%\n  0  linux/2       1        3  100.0\n 10  idle          1        3    0.3\n"
    );
}

#[test]
fn memory_adds_up() {
    let status = MemStatus {
        total_bytes: 2048 * MIB,
        free_bytes: 1531 * MIB + MIB / 2,
        hypervisor_bytes: 4 * MIB + MIB / 2,
        vms: &[("linux", 512 * MIB)],
    };
    assert_eq!(
        mem(&status),
        "WHOSE          MIB\nhypervisor     4.5\nvm linux     512.0\nfree        1531.5\nall         2048.0\n"
    );
}

#[test]
fn the_dearest_exits_come_first_and_those_that_did_not_happen_not_at_all() {
    let rows = [
        ExitRow { name: "WFI or WFE", count: 10, cost: 4005 },
        ExitRow { name: "SMC", count: 0, cost: 0 },
        ExitRow { name: "uart@9000000", count: 1000, cost: 502_000 },
    ];
    assert_eq!(
        exits(&rows, Cost::Instructions),
        "EXITS BY      COUNT  INSTRUCTIONS   EACH\n\
         uart@9000000   1000        502000  502.0\n\
         WFI or WFE       10          4005  400.5\n\
         all            1010        506005  500.9\n"
    );
    assert_eq!(exits(&[], Cost::Ticks), "EXITS BY  COUNT  TICKS  EACH\nall           0      0     -\n");
}

#[test]
fn an_address_is_explained() {
    let region = |start: u64, bytes: u64| Region::<Ipa>::new(Ipa::new(start), bytes).unwrap();
    let nodes = [
        Node { name: "memory@40000000", region: region(0x4000_0000, 0x1000_0000) },
        Node { name: "uart@9000000", region: region(0x900_0000, 0x1000) },
    ];
    let at = |ipa: u64, walk| map(&MapStatus { vm: "linux", ipa: Ipa::new(ipa), walk, nodes: &nodes });
    let ram = Walk::Mapped {
        pa: Pa::new(0x8020_1000),
        level: 2,
        read: true,
        write: true,
        execute: false,
        memory: Memory::Normal,
    };
    assert_eq!(
        at(0x4000_1000, ram),
        "linux: IPA 0x40001000\n  PA 0x80201000, rw-, normal memory, by a level-2 block\n  \
         memory@40000000 has it, at offset 0x1000\n"
    );
    let none = Walk::Invalid { level: 3, descriptor: 0x40 };
    assert_eq!(
        at(0x900_1234, none),
        "linux: IPA 0x9001234\n  nothing is mapped: level-3 descriptor 0x40 is invalid\n  \
         nothing in the VM's tree; uart@9000000 ends 0x235 bytes below\n"
    );
    assert!(at(0x3fff_0000, none).ends_with("memory@40000000 begins 0x10000 bytes above\n"));
    assert!(at(u64::MAX, none).ends_with("memory@40000000 ends 0xffffffffb0000000 bytes below\n"));
}
