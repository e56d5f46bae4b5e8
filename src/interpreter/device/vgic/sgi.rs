//! Software generated interrupts: GICD_SGIR and its pending registers, and `ICC_SGI<n>R_EL1`.
//!
//! Not here: the traps. A GICv2 SGI remembers who sent it, and each sender counts as one of its own.
//! Follows Arm IHI 0048B.b, 4.3.15 to 4.3.17, and Arm IHI 0069H, 12.2.19 (ICC_SGI1R_EL1).

use super::registers::Access;
use super::{GicVersion, PerVcpu, Vgic};
use crate::ids::{Affinity, VcpuId, VcpuSet};
use tock_registers::register_bitfields;

register_bitfields! [u64,
    GICD_SGIR [
        INTID OFFSET(0) NUMBITS(4) [],
        TARGET_LIST OFFSET(16) NUMBITS(8) [],
        FILTER OFFSET(24) NUMBITS(2) [Listed = 0, Others = 1, Sender = 2],
    ],
    ICC_SGIR [
        AFF1 OFFSET(16) NUMBITS(8) [],
        INTID OFFSET(24) NUMBITS(4) [],
        AFF2 OFFSET(32) NUMBITS(8) [],
        IRM OFFSET(40) NUMBITS(1) [],
        RS OFFSET(44) NUMBITS(4) [],
        AFF3 OFFSET(48) NUMBITS(8) [],
    ],
];

/// The system register by which a guest sends an SGI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiRegister {
    /// ICC_SGI0R_EL1: reaches SGIs that the target has in Group 0.
    Sgi0r,
    /// ICC_SGI1R_EL1: reaches SGIs that the target has in Group 1.
    Sgi1r,
    /// ICC_ASGI1R_EL1: names the other security state; with one state it reaches Group 0, as in QEMU.
    Asgi1r,
}

/// Offset of CPENDSGIR and SPENDSGIR from SGIR (0xf00), and their end.
const CLEAR_PENDING: usize = 0x10;
const SET_PENDING: usize = 0x20;
const END: usize = 0x30;

impl Vgic {
    /// Sends the SGI that a GICv3 guest wrote to `register`; a GICv2 has no such register.
    pub fn send_sgi_v3(&mut self, from: VcpuId, register: SgiRegister, value: u64) -> VcpuSet {
        if self.version != GicVersion::V3 {
            return VcpuSet::EMPTY;
        }
        let others = ICC_SGIR::IRM.is_set(value);
        let bit = 1_u32.unbounded_shl(u32::try_from(ICC_SGIR::INTID.read(value)).unwrap_or(u32::MAX));
        let group1 = register == SgiRegister::Sgi1r;
        let mut concerned = VcpuSet::EMPTY;
        for (vcpu, id) in self.vcpus.iter_mut().zip((0..).map(VcpuId)) {
            let chosen = if others { id != from } else { vcpu.sgi_name.is_in(value) };
            if chosen && (vcpu.private.group & bit != 0) == group1 {
                vcpu.private.latch |= bit;
                if vcpu.private.forwarded(self.groups) & bit != 0 {
                    concerned.add(VcpuSet::only(id));
                }
            }
        }
        concerned
    }

    /// Sends the SGI that a GICv2 guest wrote to GICD_SGIR.
    pub(super) fn send_sgi_v2(&mut self, from: VcpuId, sgir: u64) -> VcpuSet {
        let targets = match GICD_SGIR::FILTER.read_as_enum(sgir) {
            Some(GICD_SGIR::FILTER::Value::Listed) => GICD_SGIR::TARGET_LIST.read(sgir),
            Some(GICD_SGIR::FILTER::Value::Others) => !VcpuSet::only(from).bits(),
            Some(GICD_SGIR::FILTER::Value::Sender) => VcpuSet::only(from).bits(),
            None => 0, // reserved
        };
        let Ok(sgi) = usize::try_from(GICD_SGIR::INTID.read(sgir)) else { return VcpuSet::EMPTY };
        let mut concerned = VcpuSet::EMPTY;
        for (vcpu, id) in self.vcpus.iter_mut().zip((0..).map(VcpuId)) {
            if targets & VcpuSet::only(id).bits() != 0 {
                vcpu.add_sgi_sources(sgi, u8::try_from(VcpuSet::only(from).bits()).unwrap_or(0));
                concerned.add(VcpuSet::only(id));
            }
        }
        concerned
    }

    /// Reads CPENDSGIR or SPENDSGIR: a byte of sources per SGI.
    pub(super) fn read_sgi_pending(&self, cpu: VcpuId, access: Access) -> u32 {
        let Some(vcpu) = self.vcpus.get(cpu.index()) else { return 0 };
        let Some(first) = access.lane().checked_sub(CLEAR_PENDING).filter(|_| access.lane() < END) else {
            return 0; // SGIR is write-only
        };
        let sgis = (first % 16..16).take(access.bytes());
        sgis.rev().fold(0, |value, sgi| value << 8 | u32::from(vcpu.pending_sgi_sources(sgi)))
    }

    /// Writes SGIR, CPENDSGIR or SPENDSGIR of a GICv2.
    pub(super) fn write_sgi_control(&mut self, cpu: VcpuId, access: Access, value: u32) -> VcpuSet {
        if access.lane() == 0 && access.bytes() == 4 {
            return self.send_sgi_v2(cpu, u64::from(value));
        }
        let existing = u8::MAX >> 8_usize.saturating_sub(self.vcpus.len());
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return VcpuSet::EMPTY };
        if access.lane() < CLEAR_PENDING || access.lane() >= END {
            return VcpuSet::EMPTY;
        }
        let sgis = (access.lane() % 16..16).take(access.bytes());
        for (sgi, sources) in sgis.zip(value.to_le_bytes()) {
            if access.lane() < SET_PENDING {
                vcpu.clear_sgi_sources(sgi, sources);
            } else {
                vcpu.add_sgi_sources(sgi, sources & existing);
            }
        }
        VcpuSet::only(cpu)
    }
}

/// The fields of `ICC_SGI<n>R_EL1` that name 16 vCPUs; the target list chooses among them.
const RANGE: u64 = 0xff << 48 | 0xf << 44 | 0xff << 32 | 0xff << 16;

/// How `ICC_SGI<n>R_EL1` names a vCPU: the fields of [`RANGE`], and its bit of the target list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SgiName {
    range: u64,
    bit: u64,
}

impl SgiName {
    pub fn of(affinity: Affinity) -> Self {
        let range = ICC_SGIR::AFF3.val(u64::from(affinity.aff3))
            + ICC_SGIR::RS.val(u64::from(affinity.aff0 >> 4))
            + ICC_SGIR::AFF2.val(u64::from(affinity.aff2))
            + ICC_SGIR::AFF1.val(u64::from(affinity.aff1));
        Self { range: range.value, bit: 1 << (affinity.aff0 & 15) }
    }

    /// Tells whether a value of `ICC_SGI<n>R_EL1` with IRM clear names the vCPU.
    fn is_in(self, value: u64) -> bool {
        value & RANGE == self.range && value & self.bit != 0
    }
}

impl PerVcpu {
    /// Makes a GICv2 SGI pending from more sources, one bit each.
    pub(super) fn add_sgi_sources(&mut self, sgi: usize, sources: u8) {
        if let Some(slot) = self.sgi_sources.get_mut(sgi) {
            *slot |= sources;
            self.latch_sgi(sgi);
        }
    }

    /// Takes the lowest source of a GICv2 SGI, to be the one that a list register shows.
    #[inline]
    pub(super) fn take_sgi_source(&mut self, sgi: usize) -> u8 {
        let sources = self.sgi_sources.get(sgi).copied().unwrap_or(0);
        let source = u8::try_from(sources.trailing_zeros() & 7).unwrap_or(0);
        if let Some(slot) = self.sgi_sources.get_mut(sgi) {
            *slot &= sources.wrapping_sub(1);
        }
        if let Some(slot) = self.sgi_source.get_mut(sgi) {
            *slot = source;
        }
        self.latch_sgi(sgi);
        source
    }

    /// Returns the sources from which a GICv2 SGI is pending, in a list register or not.
    fn pending_sgi_sources(&self, sgi: usize) -> u8 {
        let waiting = self.sgi_sources.get(sgi).copied().unwrap_or(0);
        waiting | if self.private.is_lent(sgi_bit(sgi)) { 1 << self.shown_sgi_source(sgi) } else { 0 }
    }

    /// Returns the source of a GICv2 SGI that is active or in a list register.
    pub(super) fn shown_sgi_source(&self, sgi: usize) -> u8 {
        self.sgi_source.get(sgi).copied().unwrap_or(0) & 7
    }

    fn clear_sgi_sources(&mut self, sgi: usize, sources: u8) {
        if self.private.is_lent(sgi_bit(sgi)) && sources & 1 << self.shown_sgi_source(sgi) != 0 {
            self.private.clear_pending(sgi_bit(sgi));
        }
        if let Some(slot) = self.sgi_sources.get_mut(sgi) {
            *slot &= !sources;
        }
        self.latch_sgi(sgi);
    }

    /// Lets the latch say whether an SGI is pending from anyone.
    fn latch_sgi(&mut self, sgi: usize) {
        let bit = sgi_bit(sgi);
        let pending = self.sgi_sources.get(sgi).is_some_and(|sources| *sources != 0);
        self.private.latch = self.private.latch & !bit | if pending { bit } else { 0 };
    }
}

fn sgi_bit(sgi: usize) -> u32 {
    1_u32.unbounded_shl(u32::try_from(sgi).unwrap_or(u32::MAX))
}
