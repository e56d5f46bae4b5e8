//! Where the vectors land: from the exception to the dispatcher and back to a frame.
//!
//! Not here: decisions. Interrupts stay masked at EL2, so a handler is never interrupted and each CPU
//! has at most one.

use core::sync::atomic::{AtomicBool, Ordering};

use trapeze::dispatcher::cause::Cause;
use trapeze::dispatcher::interrupts::{self, Disposition, Source};
use trapeze::dispatcher::{self, Left};
use trapeze::vcpu::Frame;

use super::hardware::{self, Hardware};
use super::percpu::{Guest, Pcpu};
use super::sysreg::read_sysreg;
use super::vectors::FatalFrame;
use super::{console, operator, run};

/// Answers a synchronous exception of the guest.
#[unsafe(no_mangle)]
extern "C" fn exit_sync(cpu: &mut Pcpu) -> *const Frame {
    let Some(Guest { vcpu, tenant, .. }) = &mut cpu.guest else { unreachable!("an exit without a guest") };
    let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
    match dispatcher::exit(hardware::syndrome(), vcpu, &tenant.vm, &mut machine) {
        Left::Nothing => &raw const vcpu.frame,
        left => run::carry_out(cpu, left),
    }
}

/// Answers a physical interrupt that came while the guest ran.
#[unsafe(no_mangle)]
extern "C" fn exit_irq(cpu: &mut Pcpu) -> *const Frame {
    if let Some(guest) = &mut cpu.guest {
        guest.vcpu.exits.interrupts = guest.vcpu.exits.interrupts.wrapping_add(1);
    }
    take_interrupt(cpu);
    run::go_on(cpu)
}

/// Answers a system error: it is the guest's, for EL2 has none of its own while a guest runs, unless it is older than all
/// guests: they are masked at EL2, so what firmware left pending comes now (Arm ARM DDI 0487K.a, ISR_EL1).
#[unsafe(no_mangle)]
extern "C" fn exit_serror(cpu: &mut Pcpu) -> *const Frame {
    if core::mem::take(&mut cpu.has_old_serror) {
        log::warn!("CPU {}: an SError was pending before it had a guest", cpu.id.0);
    } else if let Some(Guest { vcpu, tenant, .. }) = &mut cpu.guest {
        let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
        dispatcher::system_error(vcpu, &tenant.vm, &mut machine);
    }
    run::go_on(cpu)
}

/// Acknowledges one interrupt and gives it to whom it belongs. `false` when there was none.
pub fn take_interrupt(cpu: &mut Pcpu) -> bool {
    let Some(interrupt) = cpu.gic.acknowledge() else { return false };
    // At once, and before any deactivation: it stays active, so it cannot come again (Arm IHI 0069H, 4.1.1).
    cpu.gic.drop_priority(interrupt);
    let source = cpu.monitor.source_of(interrupt.intid());
    if source == Source::HypervisorTimer {
        hypervisor_timer(cpu);
    }
    let mut machine = Hardware { gic: &cpu.gic, timer: &cpu.timer, monitor: cpu.monitor };
    let mut command = None;
    let disposition = match (source, &mut cpu.guest) {
        (Source::Console, _) => {
            command = cpu.monitor.receive(&mut machine);
            Disposition::End
        }
        (Source::Device(intid), guest)
            if !guest.as_ref().is_some_and(|guest| guest.tenant.vm.layout.has(intid)) =>
        {
            cpu.monitor.device(intid, &mut machine)
        }
        // The line may have gone down since the vCPU before this one left the CPU.
        (Source::VirtualTimer, _) if !is_virtual_timer_up() => Disposition::End,
        (_, Some(Guest { vcpu, tenant, .. })) => interrupts::physical(source, vcpu, &tenant.vm, &mut machine),
        (_, None) => Disposition::End,
    };
    if disposition == Disposition::Silence && !interrupt.intid().is_sgi() {
        // Firmware left it on. A level that nobody lowers would come again for ever.
        cpu.gic.set_enabled(interrupt.intid(), false);
    }
    if disposition != Disposition::LeaveActive {
        cpu.gic.end(interrupt);
    }
    if let Some(command) = command {
        operator::carry_out(cpu, command);
    }
    if cpu.gic.wants_watch()
        && matches!(disposition, Disposition::LeaveActive) | (source == Source::HypervisorTimer)
    {
        watch(cpu);
    }
    true
}

/// Does what EL2's timer fired for, but for the guest's emulated timer.
fn hypervisor_timer(cpu: &Pcpu) {
    if cpu.timer.is_schedule_due() {
        cpu.monitor.cpus.call(cpu.id);
        cpu.timer.set_schedule(None); // until the run queue was looked at
    }
    if cpu.timer.has_lines() {
        cpu.timer.keep_lines(console::write_kept_lines());
    }
}

/// Tells whether the virtual timer of the vCPU in this CPU asks for its interrupt: ENABLE and ISTATUS without IMASK.
fn is_virtual_timer_up() -> bool {
    read_sysreg!("cntv_ctl_el0") & 0b111 == 0b101
}

/// Watches the guest while it has a physical interrupt to end, see [`super::gic::Gic::wants_watch`].
#[inline(never)]
pub fn watch(cpu: &Pcpu) {
    let is_held = |guest: &Guest| guest.vcpu.lists.in_use().any(|entry| entry.physical.is_some());
    cpu.timer.watch(cpu.guest.as_ref().is_some_and(is_held));
}

/// Whether a fatal exception is being reported.
static IS_DYING: AtomicBool = AtomicBool::new(false);

/// Reports an exception of EL2 itself and stops the machine.
#[unsafe(no_mangle)]
extern "C" fn exit_fatal(frame: &FatalFrame, vector: u64) -> ! {
    // No exchange: the MMU may be off.
    if IS_DYING.load(Ordering::Relaxed) {
        super::power::fail(); // reporting the first one failed
    }
    IS_DYING.store(true, Ordering::Relaxed);
    const KINDS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];
    let kind = KINDS[vector as usize % 4];
    let [esr_el2, far_el2, hpfar_el2] = hardware::syndrome();
    let elr_el2 = read_sysreg!("elr_el2");
    console::last_words(format_args!("{kind} at EL2: {}", Cause::decode(esr_el2, far_el2, hpfar_el2)));
    console::last_words(format_args!(
        "ELR_EL2 {elr_el2:#018x}  ESR_EL2 {esr_el2:#010x}  FAR_EL2 {far_el2:#018x}"
    ));
    console::last_words(format_args!(
        "HPFAR_EL2 {hpfar_el2:#x}  SPSR_EL2 {:#x}  MPIDR_EL1 {:#x}  image at {}",
        read_sysreg!("spsr_el2"),
        read_sysreg!("mpidr_el1"),
        super::mmu::image().start,
    ));
    for (row, registers) in frame.x.chunks(4).enumerate() {
        match registers {
            [a, b, c, d] => {
                console::last_words(format_args!("x{:<2} {a:#018x} {b:#018x} {c:#018x} {d:#018x}", row * 4))
            }
            [a, b, c] => {
                console::last_words(format_args!(
                    "x{:<2} {a:#018x} {b:#018x} {c:#018x} sp {:#018x}",
                    row * 4,
                    frame.sp
                ));
            }
            _ => {}
        }
    }
    super::power::fail()
}
