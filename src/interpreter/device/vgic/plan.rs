//! Plan: chooses what a vCPU is entered with in its list registers.
//!
//! Not here: the CPU interface, which decides by priority mask and running priority what the guest takes.
//! Follows Arm IHI 0069H, 6.2 and 12.4 (`ICH_LR<n>_EL2`, ICH_HCR_EL2), and Arm IHI 0048B.b, 5.2 and 5.3.
//!
//! When there are more interrupts than list registers, the best pending one always gets in; the rest of the
//! places goes by priority, active interrupts before pending ones of the same priority. What stays out is
//! heard of again: pending ones by a maintenance interrupt when the resident ones are taken (NPIE; it does not
//! depend on the guest ending them, as UIE would), active ones by EOIcount (LRENPIE). With EOImode 0 the guest ends
//! interrupts in the order of their priorities, so a counted end is that of the highest one
//! outside; with EOImode 1 ends come in any order, so DIR is to be trapped (`trap_deactivation`).

use super::bank::{Bank, Groups, bits_of};
use super::list_registers::{ListRegister, ListRegisters, State};
use super::{FIRST_SPI, GicVersion, MAX_SPI_BANKS, PerVcpu, Place, Vgic, set_word, word};
use crate::ids::{IntId, VcpuId};

/// What the machine is to do with a physical interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errand {
    /// Deactivate it, because the guest will not: its virtual one was withdrawn or ended without a list register.
    Deactivate(IntId),
    /// Let it through, or not: an SPI, as the guest does with its own.
    LetThrough(IntId, bool),
}

/// Interrupts of one vCPU that want a list register, bank by bank.
#[derive(Default)]
struct Wanted {
    words: [u32; MAX_SPI_BANKS + 1],
    /// Banks that are not all zero, one bit each.
    banks: u32,
    count: u32,
}

impl Wanted {
    fn add(&mut self, bank: usize, bits: u32) {
        if bits != 0 {
            set_word(&mut self.words, bank, bits, bits);
            self.banks |= 1_u32.unbounded_shl(u32::try_from(bank).unwrap_or(u32::MAX));
            self.count += bits.count_ones();
        }
    }

    fn remove(&mut self, place: Place) {
        set_word(&mut self.words, place.bank, place.bit, 0);
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let banks = bits_of(self.banks).filter_map(|number| usize::try_from(number).ok());
        banks.flat_map(|bank| {
            bits_of(word(&self.words, bank)).map(move |lane| Place { bank, lane, bit: 1 << lane })
        })
    }
}

/// What a plan works on.
struct Planner<'a> {
    version: GicVersion,
    groups: Groups,
    vcpu: &'a mut PerVcpu,
    spis: &'a mut [Bank],
    physical: &'a [IntId],
    /// More is wanted than there are list registers.
    crowded: bool,
}

impl Vgic {
    /// Says what the list registers of `cpu` are to hold when it is entered, and what else the machine
    /// is to set up. Calling it again without a fold in between gives the same answer.
    pub fn plan(&mut self, cpu: VcpuId, out: &mut ListRegisters) {
        out.clear();
        out.trap_deactivation = self.vcpus.len() > 1;
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return };
        let bank = &vcpu.private;
        let private = bank.signalled(self.groups) | bank.active;
        let rare = private & private.wrapping_sub(1) | bank.unheard(self.groups) | vcpu.residents | self.busy;
        if rare != 0 || out.count == 0 {
            return self.plan_several(cpu, out);
        }
        out.hardware_enabled = bank.backed & bank.forwarded(self.groups);
        out.withdrawn = bank.released != 0 || self.spi_released;
        if private != 0 {
            let lane = private.trailing_zeros();
            let mut entry = vcpu.lend(lane, self.version, self.groups, false);
            if vcpu.private.backed & private != 0 {
                entry.physical = physical_of(&self.physical, entry.virtual_id);
            }
            out.push(entry);
        }
    }

    /// Does what `fold`, `set_line(.., true)` and `plan` would do where a private interrupt that hardware backs has fired and
    /// is the only one that `cpu` has to do with: it was ended in its list register and is to be pending there again, with
    /// nothing else changed. `false`: it is not so, nothing was done, and those three are to be called.
    #[inline]
    pub fn renew(&mut self, cpu: VcpuId, intid: IntId, lists: &mut ListRegisters) -> bool {
        let (Some(vcpu), Some(place)) = (self.vcpus.get_mut(cpu.index()), Place::of(intid)) else {
            return false;
        };
        let [entry, ..] = &mut lists.entries;
        let is_its_own = lists.used == 1 && entry.virtual_id == intid && entry.state == State::Invalid;
        let is_alone = place.bank == 0 && vcpu.residents == 1 && self.busy == 0 && !self.spi_released;
        let is_same = entry.priority == vcpu.private.priority_of(place.lane)
            && entry.group1 == (vcpu.private.group & place.bit != 0);
        if is_its_own && is_alone && is_same && vcpu.private.renew(place.bit, self.groups) {
            entry.state = State::Pending;
            return true;
        }
        false
    }

    /// Plans SPIs, more than one interrupt, and what else is not every day's business.
    #[inline(never)] // the common plan is not to pay for its registers
    fn plan_several(&mut self, cpu: VcpuId, out: &mut ListRegisters) {
        // Only after a fold that did not come: nothing of this reached other vCPUs that a kick would not repeat.
        self.take_back_rest(cpu);
        let groups = self.groups;
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return };
        vcpu.private.release_unheard(groups);
        out.hardware_enabled = vcpu.private.backed & vcpu.private.forwarded(groups);
        let mut wanted = Wanted::default();
        wanted.add(0, vcpu.private.signalled(groups) | vcpu.private.active);
        self.want_spis(cpu, &mut wanted);
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return };
        out.withdrawn = vcpu.private.released != 0 || self.spi_released;
        let (spis, physical) = (self.spis.as_mut_slice(), self.physical.as_slice());
        let crowded = usize::try_from(wanted.count).map_or(true, |count| count > out.capacity());
        let mut planner = Planner { version: self.version, groups, vcpu, spis, physical, crowded };
        if crowded {
            planner.choose(&mut wanted, out);
        } else {
            for place in wanted.places() {
                planner.lend(place, out);
            }
        }
    }

    /// Returns one thing that the machine is to do with a physical interrupt. To be called until `None` when
    /// [`ListRegisters::withdrawn`] is set.
    pub fn take_errand(&mut self, cpu: VcpuId) -> Option<Errand> {
        if let Some(vcpu) = self.vcpus.get_mut(cpu.index())
            && let Some(lane) = take_lowest(&mut vcpu.private.released)
        {
            return physical_of(&self.physical, IntId(lane)).map(Errand::Deactivate);
        }
        if self.spi_released {
            for (bank, first) in self.spis.iter_mut().zip((FIRST_SPI..).step_by(32)) {
                let physical = |lane| physical_of(&self.physical, IntId(first + lane));
                // Before it is deactivated: a level would come again at once.
                if let Some((lane, on)) = bank.take_unlike(self.groups) {
                    return physical(lane).map(|physical| Errand::LetThrough(physical, on));
                }
                if let Some(lane) = take_lowest(&mut bank.released) {
                    return physical(lane).map(Errand::Deactivate);
                }
            }
            self.spi_released = false;
        }
        None
    }

    /// Adds the SPIs that want a list register of `cpu`; forgets banks in which none wants any.
    fn want_spis(&mut self, cpu: VcpuId, wanted: &mut Wanted) {
        let Some(vcpu) = self.vcpus.get(cpu.index()) else { return };
        for number in bits_of(self.busy) {
            let Ok(index) = usize::try_from(number) else { continue };
            let Some(bank) = self.spis.get_mut(index) else { continue };
            self.spi_released |= bank.release_unheard_levels(self.groups);
            if bank.is_idle(self.groups) {
                self.busy &= !(1 << number);
                continue;
            }
            let signalled = bank.signalled(self.groups) & word(&vcpu.routed, index);
            wanted.add(index + 1, signalled | bank.active & word(&vcpu.owned, index));
        }
    }
}

impl Planner<'_> {
    /// Fills the list registers when not all that is wanted finds room.
    fn choose(&mut self, wanted: &mut Wanted, out: &mut ListRegisters) {
        let capacity = out.capacity();
        let mut next = self.best(wanted, out, true);
        while usize::from(out.used) < capacity {
            let Some(place) = next.or_else(|| self.best(wanted, out, false)) else { break };
            next = None;
            wanted.remove(place);
            self.lend(place, out);
        }
        for place in wanted.places() {
            let Some(bank) = self.bank(place) else { continue };
            if bank.active & place.bit != 0 {
                out.not_present_maintenance = true;
                out.trap_deactivation = true;
            } else if is_off(bank, place, out) {
                out.group_enable_maintenance = true;
            } else {
                out.no_pending_maintenance = true;
            }
        }
    }

    /// Finds the interrupt that most deserves a place.
    fn best(&self, wanted: &Wanted, out: &ListRegisters, pending_only: bool) -> Option<Place> {
        let mut best: Option<(u32, Place)> = None;
        for place in wanted.places() {
            let Some(bank) = self.bank(place) else { continue };
            let active = bank.active & place.bit != 0;
            if active && pending_only {
                continue;
            }
            let useless = !active && is_off(bank, place, out);
            let priority = u32::from(bank.priority_of(place.lane));
            // Places come in the order of their INTIDs: the lowest wins a tie.
            let rank = u32::from(useless) << 9 | priority << 1 | u32::from(!active);
            if best.is_none_or(|(best, _)| rank < best) {
                best = Some((rank, place));
            }
        }
        best.map(|(_, place)| place)
    }

    fn bank(&self, place: Place) -> Option<&Bank> {
        match place.bank.checked_sub(1) {
            None => Some(&self.vcpu.private),
            Some(index) => self.spis.get(index),
        }
    }

    /// Puts one interrupt into the next list register.
    fn lend(&mut self, place: Place, out: &mut ListRegisters) {
        match place.bank.checked_sub(1) {
            None => self.lend_private(place.lane, out),
            Some(index) => self.lend_spi(index, place, out),
        }
    }

    fn lend_spi(&mut self, index: usize, place: Place, out: &mut ListRegisters) {
        let Some(bank) = self.spis.get_mut(index) else { return };
        let mut deliverable = word(&self.vcpu.routed, index);
        if self.crowded {
            deliverable &= !bank.active;
        }
        set_word(&mut self.vcpu.resident, index, place.bit, place.bit);
        self.vcpu.residents += 1;
        let mut entry = bank.lend(place.lane, self.groups, deliverable);
        entry.virtual_id = place.intid();
        if bank.backed & place.bit != 0 {
            entry.physical = physical_of(self.physical, entry.virtual_id);
        }
        out.push(entry);
    }

    fn lend_private(&mut self, lane: u32, out: &mut ListRegisters) {
        let mut entry = self.vcpu.lend(lane, self.version, self.groups, self.crowded);
        if self.vcpu.private.backed & 1 << lane != 0 {
            entry.physical = physical_of(self.physical, entry.virtual_id);
        }
        out.push(entry);
    }
}

impl PerVcpu {
    /// Hands an SGI or PPI to a list register.
    #[inline]
    fn lend(&mut self, lane: u32, version: GicVersion, groups: Groups, crowded: bool) -> ListRegister {
        self.residents += 1;
        if version == GicVersion::V2 && lane < 16 {
            return self.lend_sgi_v2(lane, groups);
        }
        // Pending again when its active part ends, it would get ahead of those that found no room.
        let deliverable = if crowded { !self.private.active } else { u32::MAX };
        self.private.lend(lane, groups, deliverable)
    }

    /// Lends a GICv2 SGI from one source; the end of it lets the next source in.
    #[inline(always)] // a call here would cost every plan its registers
    fn lend_sgi_v2(&mut self, lane: u32, groups: Groups) -> ListRegister {
        // An active SGI is that of one source: it cannot become pending from another in its list register.
        let deliverable = !self.private.active;
        let mut entry = self.private.lend(lane, groups, deliverable);
        let Ok(sgi) = usize::try_from(lane) else { return entry };
        if entry.state.is_pending() {
            self.take_sgi_source(sgi);
            entry.eoi_maintenance = self.private.latch & 1 << lane != 0;
        }
        entry.source = VcpuId(self.shown_sgi_source(sgi));
        entry
    }
}

/// Looks up the physical interrupt that stands behind a virtual one; a number that nothing was wired to is 0.
pub(super) fn physical_of(physical: &[IntId], intid: IntId) -> Option<IntId> {
    physical.get(usize::try_from(intid.0).ok()?).copied()
}

/// Tells whether the guest's CPU interface has the group of a pending interrupt off.
fn is_off(bank: &Bank, place: Place, out: &ListRegisters) -> bool {
    let [group0_off, group1_off] = out.group_off;
    if bank.group & place.bit != 0 { group1_off } else { group0_off }
}

/// Takes the lowest bit out of a word.
fn take_lowest(word: &mut u32) -> Option<u32> {
    let lane = word.trailing_zeros();
    *word &= word.wrapping_sub(1);
    (lane < 32).then_some(lane)
}
