//! Routing of SPIs: which vCPU is shown which interrupt.
//!
//! Not here: delivery. A route always names at most one vCPU, so that no interrupt is shown twice.
//! Follows Arm IHI 0048B.b, 4.3.12 (GICD_ITARGETSRn) and Arm IHI 0069H, 12.9.22 (`GICD_IROUTER<n>`).

use super::{Bank, FIRST_SPI, GicVersion, Vgic, set_word};
use crate::ids::{Affinity, IntId, VcpuId, VcpuSet};

/// GICD_IROUTER.Interrupt_Routing_Mode: any one vCPU that takes part.
const ANY_PARTICIPATING: u64 = 1 << 31;

/// GICD_IROUTER has the affinity fields where MPIDR_EL1 has them.
const AFFINITY_FIELDS: u64 = 0xff_00ff_ffff;

impl Vgic {
    /// Returns the register that routes an SPI; 0 for what is none.
    pub(super) fn route(&self, spi: IntId) -> u64 {
        let index = spi.0.checked_sub(FIRST_SPI).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.routes.get(index)).copied().unwrap_or(0)
    }

    /// Changes the register that routes an SPI; returns the vCPUs that it leaves and reaches.
    pub(super) fn set_route(&mut self, spi: IntId, route: u64) -> VcpuSet {
        let Some(number) = spi.0.checked_sub(FIRST_SPI) else { return VcpuSet::EMPTY };
        let Some(slot) = usize::try_from(number).ok().and_then(|index| self.routes.get_mut(index)) else {
            return VcpuSet::EMPTY;
        };
        if *slot == route {
            return VcpuSet::EMPTY;
        }
        *slot = route;
        self.apply_route(number)
    }

    /// Routes every SPI anew; returns the vCPUs concerned.
    pub(super) fn route_all(&mut self) -> VcpuSet {
        let mut concerned = VcpuSet::EMPTY;
        for number in 0..32 * self.banks() {
            concerned.add(self.apply_route(number));
        }
        concerned
    }

    fn apply_route(&mut self, number: u32) -> VcpuSet {
        let Ok(index) = usize::try_from(number / 32) else { return VcpuSet::EMPTY };
        let bit = 1 << (number % 32);
        let before = self.holders(index, bit);
        let target = self.target_of(self.route(IntId(number + FIRST_SPI)));
        for (vcpu, id) in self.vcpus.iter_mut().zip(0..) {
            let bits = if target == Some(VcpuId(id)) { bit } else { 0 };
            set_word(&mut vcpu.routed, index, bit, bits);
        }
        let mut concerned = self.holders(index, bit);
        let moved = concerned != before;
        concerned.add(before);
        // What stands for a physical interrupt may be let through now that there is somebody to plan it.
        let matters = |bank: &Bank| (bank.pending() | bank.active() | bank.backed) & bit != 0;
        let waits = self.spis.get(index).is_some_and(matters);
        if moved && waits { concerned } else { VcpuSet::EMPTY }
    }

    /// Returns the one vCPU that a route leads to.
    pub(super) fn target_of(&self, route: u64) -> Option<VcpuId> {
        let mut vcpus = self.vcpus.iter().zip((0..).map(VcpuId));
        let found = match self.version {
            // With one CPU interface there are no target registers: everything goes there.
            GicVersion::V2 if self.vcpus.len() == 1 => return Some(VcpuId(0)),
            GicVersion::V2 => vcpus.find(|(_, id)| route & VcpuSet::only(*id).bits() != 0),
            GicVersion::V3 if route & ANY_PARTICIPATING != 0 => {
                return vcpus.find(|(vcpu, _)| vcpu.awake).map(|(_, id)| id).or(Some(VcpuId(0)));
            }
            GicVersion::V3 => {
                let affinity = Affinity::from_mpidr(route & AFFINITY_FIELDS);
                vcpus.find(|(vcpu, _)| vcpu.affinity == affinity)
            }
        };
        found.map(|(_, id)| id)
    }

    /// Sets GICR_WAKER.ProcessorSleep; SPIs that any vCPU may take follow those that are awake.
    pub(super) fn set_awake(&mut self, vcpu: VcpuId, awake: bool) -> VcpuSet {
        let Some(state) = self.vcpus.get_mut(vcpu.index()) else { return VcpuSet::EMPTY };
        if state.awake == awake {
            return VcpuSet::EMPTY;
        }
        state.awake = awake;
        if self.routes.iter().any(|route| route & ANY_PARTICIPATING != 0) {
            self.route_all()
        } else {
            VcpuSet::EMPTY
        }
    }
}
