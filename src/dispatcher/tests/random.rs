//! Properties: whatever a guest does, on whichever vCPU, the monitor stands and the guest stays at EL1 or EL0.

use proptest::prelude::*;

use super::super::Next;
use super::super::interrupts::{Disposition, Source};
use super::bench::{
    BOTH, Bench, GICC_DIR, GICD, GICR, GICR_HIGH, HOST_DEVICE, HOST_TIMER, SECOND_UART, SGI_BASE, Touch,
    UART, VIRTUAL_TIMER, hpfar, system_esr,
};
use super::journal::take_warnings;
use super::machine::Call;
use crate::ids::IntId;
use crate::interpreter::device::Width;
use crate::interpreter::sysreg::SystemRegister;

const VCPUS: usize = 3;
const CASES: u32 = if cfg!(miri) { 8 } else { 256 };

/// What a guest, or the machine under it, does next.
#[derive(Clone, Debug)]
enum Step {
    /// An exit with a syndrome out of nowhere.
    Syndrome { esr_el2: u64, far_el2: u64, hpfar_el2: u64 },
    /// A load or store near a device.
    Device { base: usize, offset: u64, size: usize, write: bool, value: u64 },
    /// An access to a register that somebody answers.
    Register { register: usize, read: bool, value: u64 },
    /// An HVC with a function that somebody answers.
    Call { function: u64, arguments: [u64; 3] },
    /// A physical interrupt.
    Interrupt(usize),
    /// Characters from the console.
    Characters(u8),
    /// An acknowledge in the guest's CPU interface, and maybe the end.
    Handle { ends: bool },
    /// Another state to come from.
    State { pstate: usize, splits: bool, sctlr_el1: u64, now: u64 },
    /// Other tables of the guest's own.
    Tables { tcr_el1: u64, ttbr_el1: [u64; 2] },
    /// CPUs look at their requests.
    Kicks,
}

const DEVICES: [u64; 7] = [GICD, GICR + SGI_BASE, GICR_HIGH + SGI_BASE, UART, SECOND_UART, GICC_DIR, GICR];
const WIDTHS: [Width; 4] = [Width::Byte, Width::Half, Width::Word, Width::Double];
const SOURCES: [Source; 7] = [
    Source::Kick,
    Source::VirtualTimer,
    Source::HypervisorTimer,
    Source::Maintenance,
    Source::Console,
    Source::Device(HOST_DEVICE),
    Source::Device(IntId(1019)),
];
const REGISTERS: [SystemRegister; 9] = [
    SystemRegister::ICC_SGI1R_EL1,
    SystemRegister::ICC_SGI0R_EL1,
    SystemRegister::ICC_DIR_EL1,
    SystemRegister::CNTP_CTL_EL0,
    SystemRegister::CNTP_CVAL_EL0,
    SystemRegister::CNTP_TVAL_EL0,
    SystemRegister::MDSCR_EL1,
    SystemRegister::DC_CISW,
    SystemRegister::new(3, 0, 0, 4, 0),
];
/// EL0t, EL1t, EL1h, User in A32, User in T32.
const STATES: [u64; 5] = [0, 4, 5, 0x10, 0x30];

/// Words in which guests' numbers are likelier than noise.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..64_u64,
        (0..64_u32).prop_map(|bit| 1 << bit),
        Just(u64::MAX),
        (0..16_u64, 0..8_u64).prop_map(|(intid, targets)| intid << 24 | targets),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let device =
        (0..DEVICES.len(), prop_oneof![0..0x1000_u64, any::<u64>().prop_map(|bits| bits & 0x2_ffff)]);
    let psci = prop_oneof![0x8400_0000..0x8400_0014_u64, 0xc400_0000..0xc400_0014_u64];
    let function = prop_oneof![4 => psci, 1 => 0xc500_0020..0xc500_0022_u64, 2 => word()];
    prop_oneof![
        2 => (any::<u64>(), word(), word()).prop_map(|(esr_el2, far_el2, hpfar_el2)| Step::Syndrome {
            esr_el2: esr_el2 & 0xff_ffff_ffff,
            far_el2,
            hpfar_el2,
        }),
        6 => (device, 0..4_usize, any::<bool>(), word()).prop_map(|((base, offset), size, write, value)| {
            Step::Device { base, offset, size, write, value }
        }),
        3 => (0..REGISTERS.len(), any::<bool>(), word())
            .prop_map(|(register, read, value)| Step::Register { register, read, value }),
        1 => (function, [word(), word(), word()])
            .prop_map(|(function, arguments)| Step::Call { function, arguments }),
        2 => (0..SOURCES.len()).prop_map(Step::Interrupt),
        1 => (0..20_u8).prop_map(Step::Characters),
        4 => any::<bool>().prop_map(|ends| Step::Handle { ends }),
        1 => (0..STATES.len(), any::<bool>(), any::<u64>(), word())
            .prop_map(|(pstate, splits, sctlr_el1, now)| Step::State { pstate, splits, sctlr_el1, now }),
        1 => (any::<u64>(), [word().boxed(), (0x4000_0000..0x5000_0000_u64).boxed()])
            .prop_map(|(tcr_el1, ttbr_el1)| Step::Tables { tcr_el1, ttbr_el1 }),
        2 => Just(Step::Kicks),
    ]
}

/// The bench, and what the physical timer of each CPU would know.
struct Play {
    bench: Bench,
    timer_is_active: [bool; VCPUS],
    timer_is_heard: [bool; VCPUS],
}

impl Play {
    fn take(&mut self, cpu: usize, step: &Step) -> Option<Next> {
        let bench = &mut self.bench;
        match *step {
            Step::Syndrome { esr_el2, far_el2, hpfar_el2 } => {
                return Some(bench.exit(cpu, esr_el2, far_el2, hpfar_el2));
            }
            Step::Device { offset, write: true, .. } if forges_a_timer(offset) => {}
            Step::Device { base, offset, size, write, value } => {
                bench.vcpus[cpu].frame.x[1] = value;
                let ipa = DEVICES[base] + offset;
                let touch = Touch { write, ..Touch::load(ipa, WIDTHS[size]) };
                return Some(bench.exit(cpu, touch.esr(), ipa, hpfar(ipa)));
            }
            Step::Register { register, read, value } => {
                bench.vcpus[cpu].frame.x[1] = value;
                return Some(bench.exit(cpu, system_esr(REGISTERS[register], 1, read), 0, 0));
            }
            Step::Call { function, arguments: [x1, x2, x3] } => {
                return Some(bench.hvc(cpu, [function, x1, x2, x3]));
            }
            Step::Interrupt(source) => self.interrupt(cpu, SOURCES[source]),
            Step::Characters(count) => bench.receive(cpu, &vec![b'x'; usize::from(count)]),
            Step::Handle { ends } => {
                if let (Some(intid), true) = (bench.cpus[cpu].acknowledge(), ends) {
                    bench.cpus[cpu].end(intid);
                }
            }
            Step::State { pstate, splits, sctlr_el1, now } => {
                bench.vcpus[cpu].frame.pstate = STATES[pstate];
                let machine = &mut bench.cpus[cpu];
                (machine.splits, machine.sctlr_el1, machine.now) = (splits, sctlr_el1, now);
            }
            Step::Tables { tcr_el1, ttbr_el1 } => {
                let machine = &mut bench.cpus[cpu];
                (machine.tcr_el1, machine.ttbr_el1) = (tcr_el1, ttbr_el1);
            }
            Step::Kicks => {
                bench.serve_kicks();
            }
        }
        None
    }

    /// The virtual timer fires only where it is listened to, and while its last interrupt has ended.
    fn interrupt(&mut self, cpu: usize, source: Source) {
        let is_timer = source == Source::VirtualTimer;
        if is_timer && (self.timer_is_active[cpu] || !self.timer_is_heard[cpu]) {
            return;
        }
        self.timer_is_active[cpu] |= is_timer;
        let left = match source {
            Source::VirtualTimer | Source::Device(HOST_DEVICE) => Disposition::LeaveActive,
            Source::Device(_) => Disposition::Silence,
            _ => Disposition::End,
        };
        assert_eq!(self.bench.interrupt(cpu, source), left);
    }

    /// Does what the calls ask of the physical timers.
    fn settle_timers(&mut self) {
        for (cpu, machine) in self.bench.cpus.iter_mut().enumerate() {
            if std::mem::take(&mut machine.ended).contains(&HOST_TIMER) {
                self.timer_is_active[cpu] = false;
            }
            machine.calls.retain(|call| match call {
                Call::LetThrough(HOST_TIMER, on) => {
                    self.timer_is_heard[cpu] = *on;
                    false
                }
                Call::Deactivate(HOST_TIMER) => {
                    assert!(self.timer_is_active[cpu], "deactivated twice");
                    self.timer_is_active[cpu] = false;
                    false
                }
                Call::Kick(_) => true,
                _ => false,
            });
            let held = machine.lists.iter().filter(|entry| entry.virtual_id == VIRTUAL_TIMER);
            for entry in held.filter(|entry| entry.state.is_pending()) {
                assert!(self.timer_is_active[cpu], "a timer interrupt from nowhere: {entry:?}");
            }
        }
    }
}

/// Tells whether a write may make a PPI pending or active that the machine did not: then the guest ends a physical
/// interrupt that there is not, which hurts nobody but would confuse this test.
fn forges_a_timer(offset: u64) -> bool {
    matches!(offset & 0xffff, 0x200..0x204 | 0x300..0x304)
}

/// Counts the registers that differ.
fn changed(before: &[u64; 31], after: &[u64; 31]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_guest_can_stop_the_monitor_or_leave_its_level(
        version in prop::sample::select(BOTH.to_vec()),
        count in 1..5_u8,
        steps in prop::collection::vec((0..VCPUS, step()), 1..64),
    ) {
        take_warnings();
        let vcpus = u8::try_from(VCPUS).unwrap();
        let mut bench = Bench::with_list_registers(version, vcpus, count);
        for cpu in 0..VCPUS {
            bench.listen_to(cpu, &[VIRTUAL_TIMER]);
        }
        let mut play = Play { bench, timer_is_active: [false; VCPUS], timer_is_heard: [true; VCPUS] };
        for (cpu, step) in steps {
            let before = play.bench.vcpus[cpu].frame.clone();
            let next = play.take(cpu, &step);
            play.settle_timers();
            play.bench.check_locks();
            let frame = &play.bench.vcpus[cpu].frame;
            prop_assert!(matches!(frame.pstate & 0x1f, 0 | 4 | 5 | 0x10), "PSTATE {:#x}", frame.pstate);
            match next {
                None => prop_assert_eq!(before.pc, frame.pc),
                Some(Next::Step | Next::Inject(_)) => prop_assert!(false, "not settled: {:?}", next),
                Some(_) if matches!(step, Step::Syndrome { .. }) => {
                    prop_assert!(changed(&before.x, &frame.x) <= 1, "more than one register changed");
                }
                Some(_) => {}
            }
            let distance = frame.pc.wrapping_sub(before.pc);
            let vector = frame.pc.wrapping_sub(play.bench.cpus[cpu].vbar_el1);
            prop_assert!(distance <= 4 || matches!(vector, 0 | 0x200 | 0x400 | 0x600), "PC {:#x}", frame.pc);
        }
    }
}
