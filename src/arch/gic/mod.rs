//! The real interrupt controller: what EL2 takes, and the words of the guest's list registers.
//!
//! Not here: which interrupt is whose, and what a guest sees of its own controller (the vGIC model plans that).

mod v2;
mod v3;

use alloc::vec::Vec;

use trapeze::ids::IntId;
use trapeze::interpreter::device::vgic::{ListRegister, ListRegisters, State};
use trapeze::platform::dtb::interrupt::Trigger;
use trapeze::vcpu::CpuInterface;

use super::mmio::Mmio;

pub use v2::{Blocks, V2};
pub use v3::{Distributor, V3};

/// SGI by which one CPU asks another to look at its requests.
pub const KICK: IntId = IntId(0);
/// INTIDs from here on are special: nothing was pending (Arm IHI 0069H, 2.2.1).
const SPECIAL: u32 = 1020;

/// ICH_HCR_EL2 and GICH_HCR, whose low bits agree (Arm IHI 0069H, 12.4.5; Arm IHI 0048B.b, 5.3.1).
const HCR_EN: u32 = 1;
const HCR_LRENPIE: u32 = 1 << 2;
const HCR_NPIE: u32 = 1 << 3;
const HCR_VGRP0_EIE: u32 = 1 << 4;
const HCR_VGRP1_EIE: u32 = 1 << 6;
const HCR_TDIR: u32 = 1 << 14;
/// ICH_VMCR_EL2.VEOIM and GICH_VMCR.VEM.
const VMCR_EOIM: u32 = 1 << 9;
const EOI_COUNT_SHIFT: u32 = 27;

/// Registers of a distributor that both versions have where the other has them, for SPIs.
const ICPENDR: u64 = 0x280;
const ICFGR: u64 = 0xc00;
const ITARGETSR: u64 = 0x800;
const GICD_IROUTER: u64 = 0x6000;

/// Where a distributor and an SGI_base have what is pending, and what is active, of SGIs and PPIs.
const ISPENDR: u64 = 0x200;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;

/// What the list registers of a CPU hold, so that only changes are written.
#[derive(Clone, Copy, Default)]
struct Loaded {
    /// List registers that are not 0, from the first.
    used: u8,
    /// ICH_HCR_EL2 or GICH_HCR.
    control: u32,
}

/// Works out ICH_HCR_EL2 or GICH_HCR for a plan.
fn control(lists: &ListRegisters) -> u32 {
    let [group0_off, group1_off] = lists.group_off;
    let counted = u32::from(lists.eoi_count) << EOI_COUNT_SHIFT; // 0, but for a vCPU that left before it was folded
    let bits = [
        (lists.not_present_maintenance, HCR_LRENPIE),
        (lists.no_pending_maintenance, HCR_NPIE),
        // Asked of a group that is on already, it would be asserted at once and for ever.
        (lists.group_enable_maintenance && group0_off, HCR_VGRP0_EIE),
        (lists.group_enable_maintenance && group1_off, HCR_VGRP1_EIE),
        (lists.trap_deactivation, HCR_TDIR),
    ];
    bits.iter().filter(|(is_asked, _)| *is_asked).fold(HCR_EN | counted, |hcr, (_, bit)| hcr | bit)
}

/// An acknowledged interrupt: what IAR gave, to be handed back when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged(u32);

impl Acknowledged {
    /// Returns the interrupt's number, without the source that GICv2 adds to an SGI.
    pub fn intid(self) -> IntId {
        IntId(self.0 & 0x3ff)
    }
}

/// What each CPU opens its part from.
pub enum GicParts {
    /// Register blocks of a GICv2.
    V2(Blocks),
    /// A GICv3.
    V3 {
        /// The distributor, initialised.
        distributor: Distributor,
        /// Regions of redistributors.
        redistributors: Vec<Mmio>,
        /// Bytes from one redistributor to the next, where GICR_TYPER does not tell.
        stride: Option<u64>,
    },
}

impl GicParts {
    /// Returns the number of INTIDs that the distributor has (GICD_TYPER.ITLinesNumber).
    pub fn intids(&self) -> u32 {
        match self {
            Self::V2(blocks) => blocks.intids(),
            Self::V3 { distributor, .. } => distributor.intids(),
        }
    }
}

/// One CPU's part of the interrupt controller.
pub enum Gic {
    /// GICv2 with its virtualization extensions, all in memory.
    V2(V2),
    /// GICv3, CPU interface in system registers.
    V3(V3),
}

macro_rules! each {
    ($self:expr, $gic:ident => $call:expr) => {
        match $self {
            Self::V2($gic) => $call,
            Self::V3($gic) => $call,
        }
    };
}

impl Gic {
    /// Takes the most urgent pending interrupt; `None` if there is none.
    pub fn acknowledge(&self) -> Option<Acknowledged> {
        each!(self, gic => gic.acknowledge())
    }

    /// Ends the interrupt's priority but leaves it active.
    pub fn drop_priority(&self, interrupt: Acknowledged) {
        each!(self, gic => gic.drop_priority(interrupt));
    }

    /// Tells whether an interrupt that was left active to the guest is to be watched: EL2 takes an interrupt of its own a
    /// moment later.
    ///
    /// A level that rises between the guest's handler and its end of the interrupt is signalled when the list register
    /// deactivates it (Arm IHI 0048B.b, 5.2.1). There are GICv2s, QEMU's model up to 10.0 among them, that look at their
    /// inputs again only when something else changes; a guest that sleeps until then would sleep for ever.
    pub fn wants_watch(&self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// Ends an interrupt whose priority was dropped.
    pub fn end(&self, interrupt: Acknowledged) {
        each!(self, gic => gic.deactivate(interrupt));
    }

    /// Makes a private or shared interrupt inactive that no guest will deactivate any more.
    pub fn deactivate(&self, intid: IntId) {
        each!(self, gic => gic.deactivate(Acknowledged(intid.0)));
    }

    /// Gets an SPI that is off ready to be let through to the CPU whose [`Gic::address`] this is: nothing is pending. The
    /// caller changes no other SPI's meanwhile.
    pub fn route(&self, intid: IntId, trigger: Trigger, address: u64) {
        let (number, distributor) = (u64::from(intid.0), each!(self, gic => gic.distributor()));
        let configuration = ICFGR + number / 16 * 4;
        let edge = 0b10 << (number % 16 * 2);
        let others = distributor.read32(configuration) & !edge;
        distributor.write32(configuration, if trigger == Trigger::Edge { others | edge } else { others });
        distributor.write32(ICPENDR + number / 32 * 4, 1 << (number % 32));
        distributor.write32(ICACTIVER + number / 32 * 4, 1 << (number % 32)); // a former owner may have left it so
        match self {
            Self::V2(_) => distributor.write8(ITARGETSR + number, address as u8),
            Self::V3(_) => distributor.write64(GICD_IROUTER + 8 * number, address),
        }
    }

    /// Lets an interrupt through to this CPU, or stops it.
    pub fn set_enabled(&self, intid: IntId, enabled: bool) {
        each!(self, gic => gic.set_enabled(intid, enabled));
    }

    /// Reads the state of an SGI or PPI of this CPU.
    pub fn private_state(&self, intid: IntId) -> State {
        let of = |register| each!(self, gic => gic.read_private(register)) >> (intid.0 % 32) & 1 != 0;
        State::new(of(ISPENDR), of(ISACTIVER))
    }

    /// Sends [`KICK`] to the CPU whose [`Gic::address`] this is.
    pub fn kick(&self, address: u64) {
        each!(self, gic => gic.kick(address));
    }

    /// Returns by what name other CPUs kick this one.
    pub fn address(&self) -> u64 {
        each!(self, gic => gic.address())
    }

    /// Tells how many list registers the CPU has.
    pub fn list_registers(&self) -> u8 {
        each!(self, gic => gic.list_registers())
    }

    /// Moves the plan into the list registers.
    pub fn load(&self, lists: &ListRegisters) {
        each!(self, gic => gic.load(lists));
    }

    /// Reads the state in the first list register.
    pub fn first_state(&self) -> State {
        each!(self, gic => gic.first_state())
    }

    /// Writes the first list register.
    pub fn load_first(&self, first: &ListRegister) {
        each!(self, gic => gic.load_first(first));
    }

    /// Moves the states of the list registers that the plan used back into it.
    pub fn save(&self, lists: &mut ListRegisters) {
        each!(self, gic => gic.save(lists));
    }

    /// Tells whether the guest's CPU interface has EOImode 1: EOIR drops the priority, DIR deactivates.
    pub fn splits_deactivation(&self) -> bool {
        each!(self, gic => gic.virtual_control()) & VMCR_EOIM != 0
    }

    /// Takes a vCPU's part out of the CPU interface and its interrupts off this CPU: those that it is at are inactive here
    /// until it comes back.
    #[inline(never)]
    pub fn leave(&self, lists: &mut ListRegisters, interface: &mut CpuInterface) {
        each!(self, gic => gic.leave(lists, interface));
        for intid in held(lists) {
            self.deactivate(intid);
        }
    }

    /// Puts a vCPU's part into the CPU interface. Its timer is still off: an interrupt that it is at does not come again.
    #[inline(never)]
    pub fn enter(&self, lists: &ListRegisters, interface: &CpuInterface) {
        for intid in held(lists) {
            each!(self, gic => gic.activate(intid));
        }
        each!(self, gic => gic.enter(lists, interface));
    }
}

/// Lists the private physical interrupts that a vCPU is to deactivate by its list registers. Shared ones stay active.
#[inline]
fn held(lists: &ListRegisters) -> impl Iterator<Item = IntId> {
    let in_hand = |entry: &&ListRegister| entry.state != State::Invalid;
    lists.in_use().filter(in_hand).filter_map(|entry| entry.physical).filter(|physical| physical.is_private())
}
