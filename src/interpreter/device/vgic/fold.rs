//! Fold: takes in what became of the interrupts that a vCPU had in its list registers.
//!
//! Not here: what goes in (`plan`, where the policy is explained).
//! Follows Arm IHI 0069H, 6.2 and 12.4 (`ICH_LR<n>_EL2`, ICH_HCR_EL2.EOIcount), and Arm IHI 0048B.b, 5.2 and 5.3.

use super::bank::{Bank, bits_of};
use super::list_registers::{ListRegisters, State};
use super::{GicVersion, PerVcpu, Place, Vgic, set_word, word};
use crate::ids::{IntId, VcpuId, VcpuSet};

impl Vgic {
    /// Takes in what the list registers of `cpu` held when it was left; returns other vCPUs whose plan may have
    /// changed. Entries are known by their INTID; those that are missing count as unchanged.
    #[must_use = "the vCPUs it names have to be planned anew"]
    pub fn fold(&mut self, cpu: VcpuId, hardware: &ListRegisters) -> VcpuSet {
        if hardware.eoi_count != 0 {
            return self.fold_with_absent(cpu, hardware);
        }
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return VcpuSet::EMPTY };
        for entry in hardware.in_use() {
            let lane = entry.virtual_id.0;
            if lane < 32 && !vcpu.private.has_posted(1 << lane) {
                vcpu.take_back(self.version, lane, entry.state);
            }
        }
        if vcpu.residents == 0 { VcpuSet::EMPTY } else { self.fold_rest(cpu, hardware) }
    }

    /// Folds SPIs, interrupts that writes have missed, and those that are missing.
    #[inline(never)] // the common fold is not to pay for its registers
    fn fold_rest(&mut self, cpu: VcpuId, hardware: &ListRegisters) -> VcpuSet {
        let mut others = VcpuSet::EMPTY;
        for entry in hardware.in_use() {
            others.add(self.take_back(cpu, entry.virtual_id, entry.state));
        }
        others.add(self.take_back_rest(cpu));
        others.without(cpu)
    }

    #[cold]
    fn fold_with_absent(&mut self, cpu: VcpuId, hardware: &ListRegisters) -> VcpuSet {
        let mut others = self.end_absent(cpu, hardware.eoi_count);
        others.add(self.fold_rest(cpu, hardware));
        others.without(cpu)
    }

    /// Takes an interrupt out of the list registers of `cpu`; ignores one that is not there.
    fn take_back(&mut self, cpu: VcpuId, intid: IntId, state: State) -> VcpuSet {
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return VcpuSet::EMPTY };
        let Some(place) = Place::of(intid) else { return VcpuSet::EMPTY };
        if place.bank != 0 {
            return self.take_back_spi(cpu, place, Some(state));
        }
        let state = vcpu.private.settle(place.bit, state);
        vcpu.take_back(self.version, place.lane, state);
        VcpuSet::EMPTY
    }

    /// Takes back what no fold mentioned, in the state in which it was lent.
    #[inline]
    pub(super) fn take_back_rest(&mut self, cpu: VcpuId) -> VcpuSet {
        match self.vcpus.get(cpu.index()) {
            Some(vcpu) if vcpu.residents != 0 => self.take_back_all(cpu),
            _ => VcpuSet::EMPTY,
        }
    }

    #[cold]
    fn take_back_all(&mut self, cpu: VcpuId) -> VcpuSet {
        let mut others = VcpuSet::EMPTY;
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return others };
        for lane in bits_of(vcpu.private.resident) {
            let state = vcpu.private.lent_state(1 << lane);
            let state = vcpu.private.settle(1 << lane, state);
            vcpu.take_back(self.version, lane, state);
        }
        let resident = vcpu.resident;
        for (bits, bank) in resident.into_iter().zip(1..) {
            for lane in bits_of(bits) {
                others.add(self.take_back_spi(cpu, Place { bank, lane, bit: 1 << lane }, None));
            }
        }
        others
    }

    /// Takes an SPI out of the list registers of `cpu`; ignores one that is not there.
    fn take_back_spi(&mut self, cpu: VcpuId, place: Place, state: Option<State>) -> VcpuSet {
        let Some(index) = place.bank.checked_sub(1) else { return VcpuSet::EMPTY };
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return VcpuSet::EMPTY };
        let Some(bank) = self.spis.get_mut(index) else { return VcpuSet::EMPTY };
        if word(&vcpu.resident, index) & place.bit == 0 {
            return VcpuSet::EMPTY;
        }
        let state = bank.settle(place.bit, state.unwrap_or_else(|| bank.lent_state(place.bit)));
        bank.take_back(place.bit, state);
        self.spi_released |= bank.released != 0;
        self.busy |= 1_u32.unbounded_shl(u32::try_from(index).unwrap_or(u32::MAX));
        vcpu.residents = vcpu.residents.saturating_sub(1);
        set_word(&mut vcpu.resident, index, place.bit, 0);
        set_word(&mut vcpu.owned, index, place.bit, bank.active);
        if bank.signalled(self.groups) & place.bit & !word(&vcpu.routed, index) != 0 {
            self.holders(index, place.bit)
        } else {
            VcpuSet::EMPTY
        }
    }

    /// Ends `count` active interrupts that had no list register, the highest priority first.
    fn end_absent(&mut self, cpu: VcpuId, count: u8) -> VcpuSet {
        let mut others = VcpuSet::EMPTY;
        for _ in 0..count {
            match self.highest_absent_active(cpu) {
                Some(intid) => others.add(self.deactivate(cpu, intid)),
                None => break,
            }
        }
        others
    }

    /// Finds the active interrupt of `cpu` with the highest priority that had no list register.
    fn highest_absent_active(&self, cpu: VcpuId) -> Option<IntId> {
        let vcpu = self.vcpus.get(cpu.index())?;
        let private = vcpu.private.active & !vcpu.private.resident;
        let absent = |(index, bank): (usize, &Bank)| bank.active & word(&vcpu.owned, index) & !bank.resident;
        let spis = self.spis.iter().enumerate().map(absent);
        let banks = core::iter::once(&vcpu.private).chain(&self.spis);
        let mut highest: Option<(u8, u32)> = None;
        for ((word, bank), first) in core::iter::once(private).chain(spis).zip(banks).zip((0..).step_by(32)) {
            for lane in bits_of(word) {
                let candidate = (bank.priority_of(lane), first + lane);
                if highest.is_none_or(|best| candidate < best) {
                    highest = Some(candidate);
                }
            }
        }
        highest.map(|(_, intid)| IntId(intid))
    }
}

impl PerVcpu {
    /// Takes an SGI or PPI out of a list register; ignores one that is not there.
    #[inline]
    fn take_back(&mut self, version: GicVersion, lane: u32, state: State) {
        let bit = 1_u32 << (lane & 31);
        if self.private.resident & bit == 0 {
            return;
        }
        self.residents = self.residents.saturating_sub(1);
        let returned = self.private.take_back(bit, state);
        if returned && version == GicVersion::V2 && lane < 16 {
            let Ok(sgi) = usize::try_from(lane) else { return };
            self.add_sgi_sources(sgi, 1 << self.shown_sgi_source(sgi));
        }
    }
}
