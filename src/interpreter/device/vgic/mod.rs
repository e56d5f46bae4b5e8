//! The virtual GIC: one model of a distributor and its redistributors, for GICv2 and GICv3 guests.
//!
//! Not here: the CPU interface, which the hardware virtualizes, and any access to hardware: before a vCPU is
//! entered [`Vgic::plan`] says what its list registers are to hold, after it was left [`Vgic::fold`] takes
//! in what became of it. Not emulated: LPIs and the ITS, security states, message-based SPIs.
//! Follows Arm IHI 0048B.b (GICv2) and Arm IHI 0069H (GICv3, GICD_CTLR.DS = 1), with the reset values and
//! identification of QEMU's virt board.
//!
//! ```text
//!   registers, SGIs, lines ──▶ latch, line, enabled, ... ──plan──▶ list registers ──▶ guest
//!                                       ▲                                │
//!                                       └─────────────fold───────────────┘
//! ```
//!
//! An interrupt is *resident* from the plan that puts it into list registers to the fold that takes it out. Its
//! latch goes along, so that what arrives meanwhile is told apart; writes that it misses are posted for the fold.
//! [`VcpuSet`]s that come back name the vCPUs whose list registers may no longer be right: fold and
//! plan them, by an interrupt to their CPU if they run elsewhere.

mod bank;
mod distributor;
mod fold;
mod list_registers;
mod plan;
mod redistributor;
mod registers;
mod routing;
mod sgi;
#[cfg(test)]
mod tests;

use crate::ids::{Affinity, IntId, VcpuId, VcpuSet};
pub use crate::ids::{FIRST_SPI, MAX_SPIS};
use alloc::vec;
use alloc::vec::Vec;
use bank::{Bank, Groups};
pub use list_registers::{ListRegister, ListRegisters, MAX_LIST_REGISTERS, State, encode_v2, encode_v3};
#[cfg(test)]
pub(crate) use list_registers::{decode_v2, decode_v3};
pub use plan::Errand;
pub use redistributor::REDISTRIBUTOR_BYTES;
use sgi::SgiName;
pub use sgi::SgiRegister;

/// Most vCPUs that a GICv2 can serve (Arm IHI 0048B.b, 2.1).
pub const MAX_VCPUS_V2: usize = 8;

/// Most banks of 32 SPIs.
const MAX_SPI_BANKS: usize = 8;

const _: () = assert!(MAX_SPIS == 32 * 8 && MAX_SPI_BANKS == 8);

/// The GIC architecture that the guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicVersion {
    /// GICv2: the guest's CPU interface is the hardware's GICV frame.
    V2,
    /// GICv3 with affinity routing, one security state and system registers.
    V3,
}

/// What belongs to one vCPU: SGIs, PPIs, and its part in the SPIs.
#[derive(Clone, Debug, Default)]
struct PerVcpu {
    affinity: Affinity,
    sgi_name: SgiName,
    private: Bank,
    /// GICv2: who has sent each SGI, one bit per source (SPENDSGIR).
    sgi_sources: [u8; 16],
    /// GICv2: who sent the SGI that is active or in a list register.
    sgi_source: [u8; 16],
    /// SPIs routed here.
    routed: [u32; MAX_SPI_BANKS],
    /// Active SPIs that were acknowledged here: no other vCPU can end them in its own list registers.
    owned: [u32; MAX_SPI_BANKS],
    /// SPIs in this vCPU's list registers.
    resident: [u32; MAX_SPI_BANKS],
    /// How many interrupts are in this vCPU's list registers.
    residents: u32,
    /// GICR_WAKER.ProcessorSleep is clear.
    awake: bool,
}

impl PerVcpu {
    fn new(affinity: Affinity) -> Self {
        Self { affinity, sgi_name: SgiName::of(affinity), ..Self::default() }
    }
}

/// A virtual GIC: the distributor and the redistributors of one VM.
#[derive(Clone, Debug)]
pub struct Vgic {
    version: GicVersion,
    groups: Groups,
    vcpus: Vec<PerVcpu>,
    spis: Vec<Bank>,
    /// Per SPI: GICD_IROUTER, or GICD_ITARGETSR in GICv2.
    routes: Vec<u64>,
    /// Banks of SPIs that a plan has to look at, one bit each.
    busy: u32,
    /// Some bank of SPIs may have errands for the machine.
    spi_released: bool,
    /// Physical INTID of each backed interrupt.
    physical: Vec<IntId>,
}

/// Where an INTID lives: bank 0 is private to each vCPU, SPIs begin in bank 1.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    bank: usize,
    lane: u32,
    bit: u32,
}

impl Place {
    fn of(intid: IntId) -> Option<Self> {
        let bank = usize::try_from(intid.0 / 32).ok()?;
        let lane = intid.0 % 32;
        (bank <= MAX_SPI_BANKS).then_some(Self { bank, lane, bit: 1 << lane })
    }

    fn intid(self) -> IntId {
        IntId(u32::try_from(self.bank).unwrap_or(0) * 32 + self.lane)
    }
}

/// Looks up a word of an array of words; 0 beyond its end.
fn word(words: &[u32], index: usize) -> u32 {
    words.get(index).copied().unwrap_or(0)
}

/// Replaces the bits `mask` of a word of an array of words by those of `bits`.
fn set_word(words: &mut [u32], index: usize, mask: u32, bits: u32) {
    if let Some(word) = words.get_mut(index) {
        *word = *word & !mask | bits & mask;
    }
}

impl Vgic {
    /// Makes a GIC as it comes out of reset, for vCPUs with these affinities, vCPU 0 first, and at least `spis` shared
    /// interrupts: a multiple of 32, at most [`MAX_SPIS`]. A GICv2 takes the first 8 vCPUs.
    #[must_use]
    pub fn new(version: GicVersion, affinities: &[Affinity], spis: u32) -> Self {
        let banks = usize::try_from(spis.min(MAX_SPIS).div_ceil(32)).unwrap_or(MAX_SPI_BANKS);
        let most = match version {
            GicVersion::V2 => MAX_VCPUS_V2,
            GicVersion::V3 => crate::ids::MAX_VCPUS,
        };
        let vcpus = affinities.iter().take(most);
        let vcpus = vcpus.map(|affinity| PerVcpu::new(*affinity)).collect();
        let mut vgic = Self {
            version,
            groups: Groups::default(),
            vcpus,
            spis: vec![Bank::default(); banks],
            routes: vec![0; banks * 32],
            busy: 0,
            spi_released: false,
            physical: vec![IntId(0); 32 * (1 + banks)],
        };
        vgic.reset();
        vgic
    }

    /// Returns the architecture that the guest sees.
    #[must_use]
    pub fn version(&self) -> GicVersion {
        self.version
    }

    /// Puts the GIC back to reset. List registers that are in use count as empty from now on; physical
    /// interrupts that were on their way to the guest are withdrawn.
    pub fn reset(&mut self) {
        // SGIs are edge-triggered for good; in GICv2 they are also always enabled (QEMU's choice; Arm IHI
        // 0048B.b, 4.3.5 leaves it open).
        let sgis = 0xffff;
        let enabled = if self.version == GicVersion::V2 { sgis } else { 0 };
        for vcpu in &mut self.vcpus {
            vcpu.private.reset(enabled, sgis);
            let private = core::mem::take(&mut vcpu.private);
            *vcpu = PerVcpu { private, ..PerVcpu::new(vcpu.affinity) };
        }
        for bank in &mut self.spis {
            bank.reset(0, 0);
            self.spi_released |= bank.released | bank.heard != 0;
        }
        self.groups = Groups::default();
        self.busy = 0;
        self.routes.fill(0);
        let target = self.target_of(0);
        if let Some(vcpu) = target.and_then(|vcpu| self.vcpus.get_mut(vcpu.index())) {
            vcpu.routed = [u32::MAX; MAX_SPI_BANKS];
        }
    }

    /// Lets `intid` (a PPI of every vCPU, or an SPI) stand for the physical interrupt `physical`: the guest's
    /// deactivation deactivates that one too. SGIs and INTIDs that do not exist are left alone.
    ///
    /// Such an interrupt is made pending by `set_line(.., true)` when the physical one was acknowledged
    /// (it stays active); the level is then the hardware's business.
    pub fn back_by_hardware(&mut self, intid: IntId, physical: IntId) {
        let Some(place) = Place::of(intid).filter(|_| !intid.is_sgi()) else { return };
        match place.bank.checked_sub(1) {
            None => self.vcpus.iter_mut().for_each(|vcpu| vcpu.private.backed |= place.bit),
            Some(index) => self.spis.get_mut(index).into_iter().for_each(|bank| bank.backed |= place.bit),
        }
        if let Some(slot) = usize::try_from(intid.0).ok().and_then(|index| self.physical.get_mut(index)) {
            *slot = physical;
        }
    }

    /// Returns the physical interrupt that `intid` stands for.
    #[must_use]
    pub fn physical(&self, intid: IntId) -> Option<IntId> {
        plan::physical_of(&self.physical, intid).filter(|physical| physical.0 != 0)
    }

    /// Sets the level of an interrupt's input line: of `cpu`'s own if it is a PPI.
    pub fn set_line(&mut self, cpu: VcpuId, intid: IntId, level: bool) -> VcpuSet {
        let Some(place) = Place::of(intid).filter(|_| !intid.is_sgi()) else { return VcpuSet::EMPTY };
        let Some(index) = place.bank.checked_sub(1) else {
            let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return VcpuSet::EMPTY };
            let changed = vcpu.private.set_line(place.bit, level);
            let matters = vcpu.private.forwarded(self.groups) | vcpu.private.backed;
            return if changed & matters != 0 { VcpuSet::only(cpu) } else { VcpuSet::EMPTY };
        };
        let Some(bank) = self.spis.get_mut(index) else { return VcpuSet::EMPTY };
        let changed = bank.set_line(place.bit, level);
        let matters = bank.forwarded(self.groups) | bank.backed;
        self.spi_changed(index, changed & matters)
    }

    /// Takes in how a private interrupt of `cpu` that is backed by hardware stands there: one that was acknowledged for
    /// the guest, and whose line has gone down before the guest took it, is withdrawn.
    pub fn sample_line(&mut self, cpu: VcpuId, intid: IntId, physical: State) -> VcpuSet {
        let Some(place) = Place::of(intid).filter(|place| place.bank == 0) else { return VcpuSet::EMPTY };
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return VcpuSet::EMPTY };
        let changed = vcpu.private.sample(place.bit, physical);
        if changed != 0 { VcpuSet::only(cpu) } else { VcpuSet::EMPTY }
    }

    /// Deactivates an interrupt: a trapped write to ICC_DIR_EL1 or GICC_DIR by `cpu`. The caller ignores
    /// those that come while EOImode is 0.
    pub fn deactivate(&mut self, cpu: VcpuId, intid: IntId) -> VcpuSet {
        let Some(place) = Place::of(intid) else { return VcpuSet::EMPTY };
        let Some(index) = place.bank.checked_sub(1) else {
            let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return VcpuSet::EMPTY };
            let changed = vcpu.private.deactivate(place.bit);
            return if changed != 0 { VcpuSet::only(cpu) } else { VcpuSet::EMPTY };
        };
        let Some(bank) = self.spis.get_mut(index) else { return VcpuSet::EMPTY };
        let changed = bank.deactivate(place.bit);
        let concerned = self.spi_changed(index, changed);
        self.disown_inactive(index);
        concerned
    }

    /// Tells whether `intid` is enabled and its group too: whether a physical interrupt behind it is to be
    /// enabled in the physical GIC.
    #[must_use]
    pub fn is_enabled(&self, cpu: VcpuId, intid: IntId) -> bool {
        let Some(place) = Place::of(intid) else { return false };
        let bank = match place.bank.checked_sub(1) {
            None => self.vcpus.get(cpu.index()).map(|vcpu| &vcpu.private),
            Some(index) => self.spis.get(index),
        };
        bank.is_some_and(|bank| bank.forwarded(self.groups) & place.bit != 0)
    }

    /// Tells whether an interrupt waits for `cpu` that ends a WFI. What is in list registers counts as
    /// it was planned: fold first. The priority mask is the CPU interface's and is not looked at.
    #[must_use]
    pub fn has_pending(&self, cpu: VcpuId) -> bool {
        let Some(vcpu) = self.vcpus.get(cpu.index()) else { return false };
        if vcpu.private.wakes(self.groups) != 0 {
            return true;
        }
        let banks = if vcpu.residents == 0 { self.busy } else { self.all_banks() };
        bank::bits_of(banks).filter_map(|number| usize::try_from(number).ok()).any(|index| {
            self.spis.get(index).is_some_and(|bank| {
                let reachable = word(&vcpu.routed, index) & !bank.resident | word(&vcpu.resident, index);
                bank.wakes(self.groups) & reachable != 0
            })
        })
    }

    /// Returns the banks of SPIs that there are, one bit each.
    fn all_banks(&self) -> u32 {
        !u32::MAX.unbounded_shl(self.banks())
    }

    /// Returns GICD_TYPER.ITLinesNumber (Arm IHI 0069H, 12.9.38): banks of 32 interrupts beyond the first.
    fn banks(&self) -> u32 {
        u32::try_from(self.spis.len()).unwrap_or(0)
    }

    /// Tells whether there is such an SPI.
    fn has_spi(&self, intid: u32) -> bool {
        (FIRST_SPI..FIRST_SPI + 32 * self.banks()).contains(&intid)
    }

    /// Notes that SPIs of a bank changed; returns the vCPUs that have to do with them.
    fn spi_changed(&mut self, index: usize, bits: u32) -> VcpuSet {
        let Some(bank) = self.spis.get(index) else { return VcpuSet::EMPTY };
        self.busy |= 1_u32.unbounded_shl(u32::try_from(index).unwrap_or(u32::MAX));
        self.spi_released |= bank.released != 0;
        if bits == 0 { VcpuSet::EMPTY } else { self.holders(index, bits) }
    }

    /// Returns the vCPUs to which SPIs of a bank are routed, or that hold them.
    fn holders(&self, index: usize, bits: u32) -> VcpuSet {
        let mut holders = VcpuSet::EMPTY;
        for (vcpu, number) in self.vcpus.iter().zip(0..) {
            let part = word(&vcpu.routed, index) | word(&vcpu.owned, index) | word(&vcpu.resident, index);
            if part & bits != 0 {
                holders.add(VcpuSet::only(VcpuId(number)));
            }
        }
        holders
    }

    /// Forgets who acknowledged SPIs that are no longer active.
    fn disown_inactive(&mut self, index: usize) {
        let Some(bank) = self.spis.get(index) else { return };
        // One that is resident is owned until its list register comes back.
        let active = bank.active;
        for vcpu in &mut self.vcpus {
            set_word(&mut vcpu.owned, index, !active, 0);
        }
    }
}
