//! Room 1: what trapped, and who answers?
//!
//! Not here: the answers themselves. `arch/` calls [`exit()`] or [`interrupts::physical`] and does what is [`Left`].

pub mod cause;
mod instruction;
pub mod interrupts;
pub mod mmio;
pub mod traps;

use crate::ids::Gpr;
use crate::interpreter::device::ptimer;
use crate::interpreter::device::vgic::SgiRegister;
use crate::interpreter::inject::{self, Exception};
use crate::interpreter::psci::PsciNext;
use crate::interpreter::smccc::{self, Answer};
use crate::interpreter::sysreg::{
    self, GuestLevel, Outcome, PhysicalTimerRegister, SgiGroup, SystemRegisterAccess,
};
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use crate::vm::{State, Vm};
use cause::{Cause, DeviceAccess, Everyday, Wfx, WfxInstruction};

/// What happens next to the vCPU that trapped.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It goes on where it is.
    Resume,
    /// It goes on behind the instruction that trapped.
    Step,
    /// It goes on when an interrupt is pending for it.
    Wait,
    /// It goes on behind the instruction that trapped, when an interrupt is pending for it, or at `until`, a count of its
    /// virtual counter.
    Idle {
        /// When it has waited long enough.
        until: Option<u64>,
    },
    /// It goes on behind the instruction that trapped, after others that wait for its CPU.
    Yield,
    /// It takes an exception to EL1.
    Inject(Exception),
    /// It is off until PSCI turns it on.
    Off,
    /// The VM leaves [`State::Running`]: every vCPU stops.
    Stop(State),
}

/// What of [`Next`] is left for `arch/`, once registers say the rest.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing: the vCPU goes on.
    Nothing,
    /// The vCPU goes on when an interrupt is pending for it, or at `until`, a count of its virtual counter.
    Wait {
        /// When it has waited long enough.
        until: Option<u64>,
    },
    /// The vCPU goes on after others that wait for its CPU.
    Yield,
    /// The vCPU is off until PSCI turns it on.
    Off,
    /// The VM leaves [`State::Running`]: every vCPU stops.
    Stop(State),
}

/// Takes a synchronous exit from its syndrome (ESR_EL2, FAR_EL2, HPFAR_EL2) to what is left for `arch/` to do: nothing
/// but to resume, mostly.
#[inline(always)]
pub fn exit(syndrome: [u64; 3], vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Left {
    let [esr_el2, ..] = syndrome;
    vcpu.exits.count(cause::class_index(esr_el2));
    match Everyday::decode(esr_el2) {
        Some(everyday) if at_once(everyday, vcpu, vm) => Left::Nothing,
        _ => by_device(syndrome, vcpu, vm, machine),
    }
}

/// Answers an everyday access to a device, as [`synchronous`] would; leaves all else to that one.
#[inline(never)]
fn by_device(syndrome: [u64; 3], vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Left {
    let [esr_el2, ..] = syndrome;
    match DeviceAccess::decode(syndrome) {
        Some(DeviceAccess { ipa, access, page })
            if (page.is_none() || page == vcpu.device_page)
                && !mmio::has_watchpoints(vcpu, machine)
                && mmio::load_or_store::<true>(ipa, access, vcpu, vm, machine).is_some() =>
        {
            vcpu.frame.step(cause::instruction_bytes(esr_el2));
            Left::Nothing
        }
        _ => at_length(syndrome, vcpu, vm, machine),
    }
}

/// Answers what needs neither a lock nor hardware, as [`synchronous`] would. `false`: it is for that one to answer.
#[inline(always)]
fn at_once(everyday: Everyday, vcpu: &mut Vcpu, vm: &Vm) -> bool {
    match everyday {
        Everyday::Call { is_smc } => {
            let [x0, x1, x2, x3, ..] = vcpu.frame.x;
            let Answer::Return(value) = smccc::call(0, [x0, x1, x2, x3]) else { return false };
            vcpu.frame.x[0] = value.cast_unsigned();
            if is_smc {
                vcpu.frame.step(4);
            }
            true
        }
        Everyday::IdRegister { crm, op2, gpr } if !vcpu.frame.is_el0() => {
            vcpu.frame.set(gpr, vm.processor.ids.read(crm, op2));
            vcpu.frame.step(4);
            true
        }
        Everyday::IdRegister { .. } => false,
    }
}

#[inline(never)]
fn at_length(syndrome: [u64; 3], vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Left {
    let [esr_el2, far_el2, hpfar_el2] = syndrome;
    let cause = Cause::decode(esr_el2, far_el2, hpfar_el2);
    let next = synchronous(&cause, vcpu, vm, machine);
    settle(next, cause::instruction_bytes(esr_el2), vcpu, vm, machine)
}

/// Answers a synchronous exit. The one routing table: a row for each ESR_EL2.EC.
///
/// It is one piece with the decoding of its only caller, so that a cause is never put together in memory but for
/// those who want all of it.
#[inline(always)]
pub fn synchronous(cause: &Cause, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Next {
    match *cause {
        // ELR_EL2 is behind an HVC, but at an SMC that trapped.
        Cause::Hvc { imm16 } => call(imm16, Next::Resume, vcpu, vm, machine),
        Cause::Smc { imm16 } => call(imm16, Next::Step, vcpu, vm, machine),
        Cause::SystemRegister(access) => system_register(access, vcpu, vm, machine),
        Cause::DataAbort(abort) => mmio::data_abort(&abort, vcpu, vm, machine),
        Cause::InstructionAbort(abort) => mmio::instruction_abort(&abort, vm, machine),
        Cause::Wfx(wait) => wait_for(wait, vcpu),
        Cause::FloatingPoint if !vcpu.has_floating_point => {
            machine.give_floating_point(vcpu);
            Next::Resume
        }
        Cause::IllegalState => Next::Inject(Exception::IllegalState),
        // Everything else is hidden from the VM, or cannot come from it: UNDEFINED, as on a CPU without it.
        other => undefined(&other, vcpu, vm),
    }
}

/// Turns what the room returned into registers: steps, or enters EL1. What remains is for `arch/`.
///
/// `instruction_bytes` is the length of the instruction that trapped.
#[inline(always)]
pub fn settle(
    next: Next,
    instruction_bytes: u64,
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut impl Machine,
) -> Left {
    match next {
        Next::Step => {
            vcpu.frame.step(instruction_bytes);
            Left::Nothing
        }
        Next::Resume => Left::Nothing,
        Next::Inject(exception) => inject(exception, vcpu, vm, machine),
        Next::Wait => Left::Wait { until: None },
        Next::Idle { until } => {
            vcpu.frame.step(instruction_bytes);
            Left::Wait { until }
        }
        Next::Yield => {
            vcpu.frame.step(instruction_bytes);
            Left::Yield
        }
        Next::Off => Left::Off,
        Next::Stop(state) => Left::Stop(state),
    }
}

/// Answers a system error that the guest's accesses brought about.
pub fn system_error(vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) {
    if vm.is_first_report(SYSTEM_ERROR) {
        log::warn!("vm {}: SError at {:#x}", vm.name, vcpu.frame.pc);
    }
    machine.raise_virtual_serror();
}

/// Bit of [`Vm::is_first_report`] for SErrors: their own exception class.
const SYSTEM_ERROR: usize = 0x2f;

#[inline(never)]
fn inject(exception: Exception, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Left {
    let from = machine.el1(vcpu.frame.pc, vcpu.frame.pstate);
    let entry = inject::enter_el1(exception, &from, machine.features());
    if matches!(exception, Exception::InstructionAbort { .. }) && entry.pc == vcpu.frame.pc {
        // The handler's first instruction cannot be fetched, so the handler would be entered for ever.
        log::error!(
            "vm {}: vcpu {} stopped: it has no exception handler at {:#x} (VBAR_EL1 {:#x})",
            vm.name,
            vcpu.id.0,
            entry.pc,
            from.vbar_el1
        );
        return Left::Stop(State::Crashed);
    }
    machine.enter_el1(&entry);
    vcpu.frame.pc = entry.pc;
    vcpu.frame.pstate = entry.pstate;
    Left::Nothing
}

#[cold]
fn undefined(cause: &Cause, vcpu: &Vcpu, vm: &Vm) -> Next {
    if vm.is_first_report(cause.class_index()) {
        log::warn!("vm {}: {cause} at {:#x}: UNDEFINED", vm.name, vcpu.frame.pc);
    }
    Next::Inject(Exception::Undefined)
}

/// Answers WFI and WFE, which trap where vCPUs share CPUs. Both are hints: they may end at any time.
#[inline(never)]
fn wait_for(wait: Wfx, vcpu: &Vcpu) -> Next {
    let until = wait.timeout.map(|gpr| vcpu.frame.get(gpr));
    match wait.instruction {
        WfxInstruction::Wfi => Next::Idle { until: None },
        WfxInstruction::Wfit if until.is_some() => Next::Idle { until },
        WfxInstruction::Wfe | WfxInstruction::Wfet | WfxInstruction::Wfit => Next::Yield,
    }
}

/// Answers HVC, which has stepped already, and SMC, which has not.
#[inline(never)]
fn call(immediate: u16, after: Next, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Next {
    let [x0, x1, x2, x3, ..] = vcpu.frame.x;
    let request = match smccc::call(immediate, [x0, x1, x2, x3]) {
        Answer::Return(value) => return answer(value, after, vcpu),
        Answer::Power(request) => request,
    };
    let power_next = vm.power.lock().call(vcpu.id, request, &vm.layout.ram);
    match power_next {
        PsciNext::Return(value) => answer(value, after, vcpu),
        PsciNext::TurnOn { target } => {
            machine.turn_on(vm.id, target);
            answer(0, after, vcpu)
        }
        PsciNext::TurnOff if vm.power.lock().is_all_off() => {
            log::error!("vm {}: every CPU is off, and none is left to turn one on", vm.name);
            Next::Stop(State::Crashed)
        }
        PsciNext::TurnOff => {
            interrupts::power_down(vcpu, vm, machine);
            Next::Off
        }
        PsciNext::Suspend => {
            vcpu.frame.x[0] = 0;
            if after == Next::Step {
                vcpu.frame.step(4);
            }
            Next::Wait
        }
        PsciNext::SystemOff => Next::Stop(State::Off),
        PsciNext::SystemReset => Next::Stop(State::Resetting),
    }
}

fn answer(value: i64, after: Next, vcpu: &mut Vcpu) -> Next {
    vcpu.frame.x[0] = value.cast_unsigned();
    after
}

fn system_register(
    access: SystemRegisterAccess,
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut impl Machine,
) -> Next {
    let value = vcpu.frame.get(access.gpr);
    let from = GuestLevel::from_spsr(vcpu.frame.pstate);
    match sysreg::access(&access, value, from, &vm.processor) {
        Outcome::Read(value) => vcpu.frame.set(access.gpr, value),
        Outcome::SetWay => machine.clean_invalidate_set_way(value),
        Outcome::Sgi { group, value } => {
            let register = match group {
                SgiGroup::Zero => SgiRegister::Sgi0r,
                SgiGroup::AsConfigured => SgiRegister::Sgi1r,
            };
            interrupts::change(vcpu, vm, machine, |vgic, from| vgic.send_sgi_v3(from, register, value));
        }
        Outcome::Deactivate(intid) if machine.splits_deactivation() => {
            interrupts::change(vcpu, vm, machine, |vgic, vcpu| vgic.deactivate(vcpu, intid));
        }
        Outcome::Done | Outcome::Deactivate(_) => {}
        Outcome::PhysicalTimer { register, write } => {
            physical_timer(access.gpr, register, write, vcpu, vm, machine)
        }
        Outcome::Grant(new) if !vcpu.granted.has(new) => {
            vcpu.granted = vcpu.granted.with(new);
            machine.grant(vcpu.granted, new);
            return Next::Resume;
        }
        Outcome::Grant(_) | Outcome::Undefined => return unknown_register(&access, vcpu, vm),
    }
    Next::Step
}

#[cold]
fn unknown_register(access: &SystemRegisterAccess, vcpu: &Vcpu, vm: &Vm) -> Next {
    log::debug!("vm {}: {} at {:#x}: UNDEFINED", vm.name, access.register, vcpu.frame.pc);
    Next::Inject(Exception::Undefined)
}

#[inline(never)]
fn physical_timer(
    gpr: Gpr,
    register: PhysicalTimerRegister,
    write: Option<u64>,
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut impl Machine,
) {
    let now = machine.now();
    let register = match register {
        PhysicalTimerRegister::Counter => return vcpu.frame.set(gpr, now.0),
        PhysicalTimerRegister::TimerValue => ptimer::Register::TimerValue,
        PhysicalTimerRegister::Control => ptimer::Register::Control,
        PhysicalTimerRegister::CompareValue => ptimer::Register::CompareValue,
    };
    match write {
        Some(value) => {
            vcpu.physical_timer.write(register, value, now);
            interrupts::update_physical_timer(vcpu, vm, machine);
        }
        None => vcpu.frame.set(gpr, vcpu.physical_timer.read(register, now)),
    }
}

#[cfg(test)]
mod tests;
