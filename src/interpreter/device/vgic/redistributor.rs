//! Redistributors: the GICR frames of a GICv3, 128 KiB for each vCPU.
//!
//! Not here: LPIs; GICR_TYPER says that there are none. GICR_WAKER follows its protocol, but, as on QEMU's
//! virt board, a sleeping redistributor goes on delivering to its vCPU.
//! Follows Arm IHI 0069H, 12.10 and 12.11.

use super::distributor::private_mask;
use super::registers::{Access, IDENTIFICATION_BYTES, IIDR, Register, decode, identification};
use super::{GicVersion, Vgic};
use crate::ids::{VcpuId, VcpuSet};
use crate::interpreter::device::Width;

/// Size of one redistributor in bytes: the frames RD_base and SGI_base (Arm IHI 0069H, 12.10).
pub const REDISTRIBUTOR_BYTES: u64 = 0x2_0000;

const FRAME_BYTES: u64 = 0x1_0000;
const PIDR4: u64 = FRAME_BYTES - IDENTIFICATION_BYTES;

/// GICR_WAKER.ProcessorSleep and ChildrenAsleep.
const PROCESSOR_SLEEP: u64 = 1 << 1;
const CHILDREN_ASLEEP: u64 = 1 << 2;

/// A register of the RD_base frame.
enum RdRegister {
    Iidr,
    /// The whole of GICR_TYPER, or its half that begins at this bit.
    Typer(u32),
    Waker,
    Identification(u64),
}

impl Vgic {
    /// Reads a redistributor register; `offset` counts from the start of the first vCPU's RD_base.
    #[must_use]
    pub fn redistributor_read(&self, offset: u64, width: Width) -> u64 {
        let Some((vcpu, offset)) = self.locate(offset) else { return 0 };
        if let Some(access) = sgi_base(offset, width) {
            return self.vcpus.get(vcpu.index()).map_or(0, |vcpu| u64::from(vcpu.private.read(access)));
        }
        let value = match rd_base(offset, width) {
            Some(RdRegister::Iidr) => IIDR,
            Some(RdRegister::Typer(shift)) => self.redistributor_typer(vcpu) >> shift,
            Some(RdRegister::Waker) => match self.vcpus.get(vcpu.index()) {
                Some(vcpu) if vcpu.awake => 0,
                _ => PROCESSOR_SLEEP | CHILDREN_ASLEEP,
            },
            Some(RdRegister::Identification(distance)) => identification(distance, 0x93, 0x3b, 0x44),
            None => 0,
        };
        value & width.mask()
    }

    /// Tells whether a read by `cpu` shows which of its own interrupts are pending: then [`Vgic::sample_line`] is to come
    /// first. Of another vCPU's lines it shows what was sampled last.
    #[must_use]
    pub fn redistributor_shows_lines(&self, cpu: VcpuId, offset: u64) -> bool {
        self.locate(offset).is_some_and(|(id, offset)| id == cpu && offset & !0x83 == FRAME_BYTES + 0x200)
    }

    /// Writes a redistributor register; returns the vCPUs whose plan may have changed.
    pub fn redistributor_write(&mut self, offset: u64, width: Width, value: u64) -> VcpuSet {
        let Some((id, offset)) = self.locate(offset) else { return VcpuSet::EMPTY };
        if let Some(access) = sgi_base(offset, width) {
            let Some(vcpu) = self.vcpus.get_mut(id.index()) else { return VcpuSet::EMPTY };
            let Ok(value) = u32::try_from(value & width.mask()) else { return VcpuSet::EMPTY };
            let value = value & private_mask(GicVersion::V3, access);
            let changed = vcpu.private.write(access, value);
            return if changed != 0 { VcpuSet::only(id) } else { VcpuSet::EMPTY };
        }
        match rd_base(offset, width) {
            Some(RdRegister::Waker) => self.set_awake(id, value & PROCESSOR_SLEEP == 0),
            _ => VcpuSet::EMPTY,
        }
    }

    /// Finds whose redistributor an offset lies in, and where there; GICv2 has none.
    fn locate(&self, offset: u64) -> Option<(VcpuId, u64)> {
        let id = VcpuId(u8::try_from(offset / REDISTRIBUTOR_BYTES).ok()?);
        let exists = self.version == GicVersion::V3 && id.index() < self.vcpus.len();
        exists.then_some((id, offset % REDISTRIBUTOR_BYTES))
    }

    /// Builds GICR_TYPER (Arm IHI 0069H, 12.11.31): affinity, CommonLPIAff = Aff3, processor number, Last.
    fn redistributor_typer(&self, id: VcpuId) -> u64 {
        let affinity = self.vcpus.get(id.index()).map(|vcpu| vcpu.affinity).unwrap_or_default();
        let affinity = u32::from_be_bytes([affinity.aff3, affinity.aff2, affinity.aff1, affinity.aff0]);
        let last = u64::from(id.index() + 1 == self.vcpus.len());
        u64::from(affinity) << 32 | 1 << 24 | u64::from(id.0) << 8 | last << 4
    }
}

/// Decodes an access to the SGI_base frame, which has the first bank of what the distributor has for SPIs.
fn sgi_base(offset: u64, width: Width) -> Option<Access> {
    let access = decode(offset.checked_sub(FRAME_BYTES)?, width)?;
    let missing = matches!(access.register, Register::Control | Register::Targets | Register::SgiControl);
    (access.bank() == 0 && !missing).then_some(access)
}

/// Decodes an access to the RD_base frame.
fn rd_base(offset: u64, width: Width) -> Option<RdRegister> {
    match (width, offset) {
        (Width::Word, 0x04) => Some(RdRegister::Iidr),
        (Width::Word | Width::Double, 0x08) => Some(RdRegister::Typer(0)),
        (Width::Word, 0x0c) => Some(RdRegister::Typer(32)),
        (Width::Word, 0x14) => Some(RdRegister::Waker),
        (Width::Word, PIDR4..FRAME_BYTES) => Some(RdRegister::Identification(offset - PIDR4)),
        _ => None, // GICR_CTLR, GICR_STATUSR and the LPI registers among them
    }
}
