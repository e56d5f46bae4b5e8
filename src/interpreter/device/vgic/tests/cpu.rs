//! A CPU interface for tests: plays the hardware's part on list registers.
//!
//! Follows Arm IHI 0069H, 12.4: acknowledge, priority drop, deactivation, EOIcount, maintenance interrupts.

use super::*;

/// A vCPU with its list registers, and the interrupts that it has acknowledged.
pub(super) struct VirtualCpu {
    pub id: VcpuId,
    pub loaded: ListRegisters,
    /// Acknowledged, priority not yet dropped; the running priority is that of the last.
    pub running: Vec<(IntId, u8)>,
    /// EOImode 1: priority dropped, not yet deactivated.
    pub dropped: Vec<IntId>,
    /// Some list register asked for a maintenance interrupt at its end.
    ended: bool,
    /// Physical interrupts that the hardware deactivated along with virtual ones.
    pub deactivated: Vec<IntId>,
}

impl VirtualCpu {
    pub fn new(id: VcpuId, count: u8) -> Self {
        let loaded = ListRegisters::new(count);
        Self { id, loaded, running: vec![], dropped: vec![], ended: false, deactivated: vec![] }
    }

    /// Loads a plan.
    pub fn enter(&mut self, vgic: &mut Vgic) {
        vgic.plan(self.id, &mut self.loaded);
        self.ended = false;
    }

    /// Hands the list registers back.
    pub fn leave(&mut self, vgic: &mut Vgic) -> VcpuSet {
        vgic.fold(self.id, &self.loaded)
    }

    fn used(&mut self) -> &mut [ListRegister] {
        &mut self.loaded.entries[..usize::from(self.loaded.used)]
    }

    /// Returns the interrupt that an acknowledge would get.
    pub fn signalled(&self) -> Option<IntId> {
        let running = self.running.last().map_or(0x100, |(_, priority)| u16::from(*priority));
        let pending = self.loaded.in_use().filter(|entry| entry.state == State::Pending);
        let best = pending.min_by_key(|entry| (entry.priority, entry.virtual_id))?;
        (u16::from(best.priority) < running).then_some(best.virtual_id)
    }

    /// Acknowledges the signalled interrupt.
    pub fn acknowledge(&mut self) -> Option<ListRegister> {
        let id = self.signalled()?;
        let entry = self.used().iter_mut().find(|entry| entry.virtual_id == id)?;
        entry.state = State::Active;
        let taken = *entry;
        self.running.push((id, taken.priority));
        Some(taken)
    }

    /// Writes EOIR for the running interrupt: drops the priority and, with EOImode 0, deactivates.
    pub fn end(&mut self, split: bool) -> Option<IntId> {
        let (id, _) = self.running.pop()?;
        if split {
            self.dropped.push(id);
        } else {
            self.deactivate(id);
        }
        Some(id)
    }

    /// Deactivates in the list registers, or counts that there was nothing to deactivate.
    pub fn deactivate(&mut self, id: IntId) {
        let entry = self.used().iter_mut().find(|entry| entry.virtual_id == id && entry.state.is_active());
        let Some(entry) = entry else {
            self.loaded.eoi_count += 1;
            return;
        };
        entry.state = State::new(entry.state.is_pending(), false);
        let (physical, state, asks) = (entry.physical, entry.state, entry.eoi_maintenance);
        self.ended |= asks && state == State::Invalid;
        self.deactivated.extend(physical);
    }

    /// Tells whether a maintenance interrupt is signalled.
    pub fn wants_maintenance(&self) -> bool {
        let pending = self.loaded.in_use().any(|entry| entry.state == State::Pending);
        self.ended
            || self.loaded.no_pending_maintenance && !pending
            || self.loaded.not_present_maintenance && self.loaded.eoi_count != 0
    }
}
