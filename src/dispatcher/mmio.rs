//! Stage-2 aborts: which device an address belongs to, and what the guest gets where there is none.
//!
//! Not here: what a load or store does with the answer (`load_store`), the devices, and instructions that the syndrome
//! does not describe (`instruction`).

use crate::addr::{GuestVa, Ipa, PAGE_BYTES};
use crate::ids::{IntId, VcpuSet};
use crate::interpreter::device::Width;
use crate::interpreter::inject::{DataFault, Exception};
use crate::interpreter::load_store::{self, Access};
use crate::interpreter::watchpoint;
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use crate::vm::{Uart, Vm};

use super::cause::{self, Abort, Fault};
use super::traps::Grants;
use super::{Next, instruction, interrupts};

/// One access to a device: where in it, how wide, and the value if it is a write.
#[derive(Clone, Copy)]
struct Request {
    offset: u64,
    width: Width,
    write: Option<u64>,
}

/// Answers a data abort.
#[inline(never)]
pub fn data_abort(abort: &Abort, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> Next {
    let at_el0 = vcpu.frame.is_el0();
    if has_watchpoints(vcpu, machine)
        && let Some(watched) = watched(abort, at_el0, machine)
    {
        return Next::Inject(watchpoint::exception(&watched));
    }
    let answered = match (abort.fault, abort.ipa, abort.access) {
        (Fault::TlbConflict, ..) => {
            machine.invalidate_guest_tlb();
            return Next::Resume;
        }
        // Maintenance of what no memory and no device has: there is no line to clean, and nothing on the bus that could
        // fail.
        (Fault::Translation(_), ..) if abort.cache_maintenance && !abort.stage1_walk => Some(()),
        (Fault::Translation(_), Some(ipa), Some(access))
            if is_whole(ipa, access.width, abort.gva, vcpu, machine) =>
        {
            load_or_store::<false>(ipa, access, vcpu, vm, machine)
        }
        (Fault::Translation(_), Some(_), _) if !abort.stage1_walk => {
            match instruction::interpret(abort, vcpu, vm, machine) {
                Some(next) => return next,
                None => None,
            }
        }
        _ => None,
    };
    match answered {
        Some(()) => Next::Step,
        None => nothing_there(abort, vcpu, vm, machine),
    }
}

/// Tells whether the guest may watch what it accesses.
#[inline(always)]
pub fn has_watchpoints(vcpu: &Vcpu, machine: &impl Machine) -> bool {
    vcpu.granted.has(Grants::DEBUG)
        && watchpoint::are_enabled(machine.mdscr_el1(), vcpu.frame.pstate, vcpu.frame.is_el0())
}

/// Returns the load or store if the guest watches it: what is emulated raises no watchpoint by itself.
#[cold]
fn watched(abort: &Abort, at_el0: bool, machine: &impl Machine) -> Option<watchpoint::Access> {
    if abort.stage1_walk || abort.cache_maintenance {
        return None;
    }
    // How much is accessed where the syndrome does not say is not known: a byte at least.
    let bytes = abort.access.map_or(1, |access| access.width.bytes());
    let access = watchpoint::Access { address: abort.gva?, bytes, write: abort.write, at_el0 };
    machine.watchpoints().watch(&access).then_some(access)
}

/// Tells whether an access is all of what its instruction accesses, in one piece. In AArch32 it is taken for that.
///
/// A syndrome speaks of the first page that faults. So what is at the start of a page may be the rest of an access that
/// is not aligned; but in Device memory that would have been an alignment fault.
#[inline(always)]
pub fn is_whole(
    ipa: Ipa,
    width: Width,
    gva: Option<GuestVa>,
    vcpu: &mut Vcpu,
    machine: &mut impl Machine,
) -> bool {
    if ipa.is_aligned(PAGE_BYTES) && width != Width::Byte {
        if vcpu.frame.is_aarch32() {
            return true;
        }
        let is_device = instruction::is_device_memory(gva, machine);
        vcpu.device_page = gva.filter(|_| is_device);
        return is_device;
    }
    ipa.is_aligned(width.bytes()) || vcpu.frame.is_aarch32()
}

/// Turns an instruction fetch that stage 2 refused into the external abort of a bus without memory there.
pub fn instruction_abort(abort: &Abort, vm: &Vm, machine: &mut impl Machine) -> Next {
    if abort.fault == Fault::TlbConflict {
        machine.invalidate_guest_tlb();
        return Next::Resume;
    }
    Next::Inject(Exception::InstructionAbort { walk_level: walk_level(abort, vm, machine), far: abort.gva })
}

/// Lets a device do a load or store; `None` when no device has the whole access. `AT_ONCE` is the one that is fast.
#[inline(always)]
pub fn load_or_store<const AT_ONCE: bool>(
    ipa: Ipa,
    access: cause::Access,
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut impl Machine,
) -> Option<()> {
    let cause::Access { width, sign_extend, gpr, sixty_four, write, .. } = access;
    let big_endian = load_store::is_big_endian(vcpu.frame.pstate, machine.sctlr_el1());
    let access = Access { width, sign_extend, sixty_four, gpr, write, big_endian };
    let stored = write.then(|| access.stored(vcpu.frame.get(gpr)));
    let answer = if AT_ONCE {
        device(ipa, width, stored, vcpu, vm, machine)?
    } else {
        device_at_length(ipa, width, stored, vcpu, vm, machine)?
    };
    if !write {
        vcpu.frame.set(gpr, access.loaded(answer));
    }
    Some(())
}

/// Does what [`device`] does, for those who come here seldom.
#[inline(never)]
pub(super) fn device_at_length(
    ipa: Ipa,
    width: Width,
    write: Option<u64>,
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut impl Machine,
) -> Option<u64> {
    device(ipa, width, write, vcpu, vm, machine)
}

/// Finds the device at `ipa` and makes the access. The value means nothing for a write.
#[inline(always)]
fn device(
    ipa: Ipa,
    width: Width,
    write: Option<u64>,
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut impl Machine,
) -> Option<u64> {
    let layout = &vm.layout;
    let request = |offset| Request { offset, width, write };
    if let Some(offset) = layout.distributor.offset_of(ipa, width.bytes()) {
        return Some(distributor(request(offset), vcpu, vm, machine));
    }
    for (region, before) in &layout.redistributors {
        if let Some(offset) = region.offset_of(ipa, width.bytes()) {
            return Some(redistributor(request(before + offset), vcpu, vm, machine));
        }
    }
    if let Some(offset) = layout.deactivation.and_then(|region| region.offset_of(ipa, width.bytes())) {
        return Some(deactivation(request(offset), vcpu, vm, machine));
    }
    vm.uarts.iter().enumerate().find_map(|(number, device)| {
        let offset = device.region.offset_of(ipa, width.bytes())?;
        Some(uart(request(offset), (device, number == 0), vcpu, vm, machine))
    })
}

fn distributor(request: Request, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> u64 {
    let Request { offset, width, write } = request;
    interrupts::with_vgic(vcpu, vm, machine, |vgic, id, machine| match write {
        Some(value) => (0, vgic.distributor_write(id, offset, width, value)),
        None if vgic.distributor_shows_lines(offset) => {
            let changed = interrupts::sample_lines(vgic, id, vm, machine);
            (vgic.distributor_read(id, offset, width), changed)
        }
        None => (vgic.distributor_read(id, offset, width), VcpuSet::EMPTY),
    })
}

fn redistributor(request: Request, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> u64 {
    let Request { offset, width, write } = request;
    interrupts::with_vgic(vcpu, vm, machine, |vgic, id, machine| match write {
        Some(value) => (0, vgic.redistributor_write(offset, width, value)),
        None if vgic.redistributor_shows_lines(id, offset) => {
            let changed = interrupts::sample_lines(vgic, id, vm, machine);
            (vgic.redistributor_read(offset, width), changed)
        }
        None => (vgic.redistributor_read(offset, width), VcpuSet::EMPTY),
    })
}

/// The second page of a GICv2 CPU interface: GICC_DIR is its only register (Arm IHI 0048B.b, 4.4.15).
#[inline(never)]
fn deactivation(request: Request, vcpu: &mut Vcpu, vm: &Vm, machine: &mut impl Machine) -> u64 {
    if let Request { offset: 0, width: Width::Word, write: Some(value) } = request
        && machine.splits_deactivation()
    {
        let intid = IntId(u32::try_from(value & 0x3ff).unwrap_or(0));
        interrupts::change(vcpu, vm, machine, |vgic, id| vgic.deactivate(id, intid));
    }
    0
}

#[inline(never)]
fn uart(
    request: Request,
    (device, has_console): (&Uart, bool),
    vcpu: &mut Vcpu,
    vm: &Vm,
    machine: &mut impl Machine,
) -> u64 {
    let Request { offset, width, write } = request;
    let mut model = device.model.lock();
    let (was_full, old_line) = (!model.can_receive(), model.line());
    let (value, effect) = match write {
        Some(value) => (0, model.write(offset, width, value)),
        None => model.read(offset, width),
    };
    if let Some(byte) = effect.transmit {
        machine.transmit(vm.id, byte);
    }
    let has_room_again = has_console && was_full && model.can_receive();
    if effect.line != old_line {
        interrupts::change(vcpu, vm, machine, |vgic, id| vgic.set_line(id, device.intid, effect.line));
    }
    drop(model);
    if has_room_again {
        interrupts::console(vm, machine);
    }
    value
}

/// The bus answers with an external abort where there is nothing (and where the access cannot be decoded).
#[cold]
fn nothing_there(abort: &Abort, vcpu: &Vcpu, vm: &Vm, machine: &mut impl Machine) -> Next {
    let kind = if abort.access.is_none() && abort.ipa.is_some_and(|ipa| vm.has_device_at(ipa)) {
        "an access to a device that its syndrome does not describe"
    } else {
        "an access to nothing"
    };
    match abort.ipa {
        Some(ipa) => log::debug!("vm {}: {kind}: {ipa} at {:#x}", vm.name, vcpu.frame.pc),
        None => log::debug!("vm {}: {kind} at {:#x}", vm.name, vcpu.frame.pc),
    }
    let fault = match abort.fault {
        Fault::Alignment => DataFault::Alignment,
        Fault::UnsupportedExclusive | Fault::UnsupportedAtomicUpdate => DataFault::UnsupportedAtomic,
        _ => walk_level(abort, vm, machine).map_or(DataFault::External, DataFault::ExternalOnWalk),
    };
    Next::Inject(Exception::DataAbort {
        fault,
        write: abort.write,
        cache_maintenance: abort.cache_maintenance,
        far: abort.gva,
    })
}

/// Returns at which level of the guest's own tables the walk was that stage 2 refused; `None` if it refused another access.
fn walk_level(abort: &Abort, vm: &Vm, machine: &mut impl Machine) -> Option<i8> {
    let address = abort.gva.filter(|_| abort.stage1_walk)?;
    level_refused(address, abort.ipa, vm, machine)
}

/// Walks the guest's own tables for `address`, in the VM's RAM only, to the level that lies in the page `refused` or in no
/// RAM.
#[cold]
#[inline(never)]
pub(super) fn level_refused(
    address: GuestVa,
    refused: Option<Ipa>,
    vm: &Vm,
    machine: &mut impl Machine,
) -> Option<i8> {
    machine.stage1().level_refused(address, refused, |descriptor| {
        let at = machine.stage2(descriptor)?;
        machine.access_ram(vm.id, at, Width::Double, None)
    })
}
