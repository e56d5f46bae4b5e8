//! The distributor: the GICD frame of both versions.
//!
//! Not here: what happens to interrupts (`bank`), SPI routes (`routing`), SGIs (`sgi`).
//! Follows Arm IHI 0048B.b, 4.3 and Arm IHI 0069H, 12.9. Accesses that these do not have read as zero and
//! are ignored.

use super::registers::{Access, IDENTIFICATION_BYTES, IIDR, Register, decode, identification};
use super::{FIRST_SPI, GicVersion, Groups, Vgic};
use crate::ids::{IntId, VcpuId, VcpuSet};
use crate::interpreter::device::Width;

/// GICD_CTLR.DS and ARE of a GICv3 with one security state: both read as one (Arm IHI 0069H, 12.9.4).
const CONTROL_V3: u64 = 1 << 6 | 1 << 4;

/// GICD_TYPER of a GICv3 but for ITLinesNumber: No1N, A3V, 16 bits of INTID, as QEMU's virt board has it without LPIs.
const TYPER_V3: u64 = 1 << 25 | 1 << 24 | 0xf << 19;

const ROUTER: u64 = 0x6000;
const ROUTER_END: u64 = ROUTER + 8 * 1020;

/// Size of the frame in bytes.
const fn frame_bytes(version: GicVersion) -> u64 {
    match version {
        GicVersion::V2 => 0x1000,
        GicVersion::V3 => 0x1_0000,
    }
}

/// Returns the bits of a write to bank 0 that count: SGIs of a GICv2 are always enabled and have pending registers
/// of their own; SGIs are edge-triggered for good.
pub(super) fn private_mask(version: GicVersion, access: Access) -> u32 {
    match (version, access.register) {
        (GicVersion::V2, Register::ClearEnable | Register::SetPending | Register::ClearPending) => {
            0xffff_0000
        }
        _ => u32::MAX,
    }
}

impl Vgic {
    /// Reads a distributor register for `cpu`; `offset` counts from the start of the frame.
    #[must_use]
    pub fn distributor_read(&self, cpu: VcpuId, offset: u64, width: Width) -> u64 {
        match decode(offset, width) {
            Some(access) => match access.register {
                Register::Control => self.read_control(offset),
                Register::Targets => u64::from(self.read_targets(cpu, access)),
                Register::SgiControl if self.version == GicVersion::V2 => {
                    u64::from(self.read_sgi_pending(cpu, access))
                }
                Register::Reserved => self.read_upper(offset, width),
                _ => u64::from(self.read_bank(cpu, access)),
            },
            None => self.read_upper(offset, width),
        }
    }

    /// Tells whether a read shows which private interrupts of its vCPU are pending (ISPENDR0, ICPENDR0): then
    /// [`Vgic::sample_line`] is to come first.
    #[must_use]
    pub fn distributor_shows_lines(&self, offset: u64) -> bool {
        self.version == GicVersion::V2 && offset & !0x83 == 0x200
    }

    /// Writes a distributor register for `cpu`; returns the vCPUs whose plan may have changed.
    pub fn distributor_write(&mut self, cpu: VcpuId, offset: u64, width: Width, value: u64) -> VcpuSet {
        let Some(access) = decode(offset, width) else { return self.write_router(offset, width, value) };
        let Ok(value) = u32::try_from(value & width.mask()) else { return VcpuSet::EMPTY };
        match access.register {
            Register::Control => self.write_control(offset, value),
            Register::Targets => self.write_targets(access, value),
            Register::SgiControl if self.version == GicVersion::V2 => {
                self.write_sgi_control(cpu, access, value)
            }
            Register::SgiControl | Register::Reserved => VcpuSet::EMPTY,
            _ => self.write_bank(cpu, access, value),
        }
    }

    fn read_control(&self, offset: u64) -> u64 {
        match (offset, self.version) {
            (0x0, GicVersion::V2) => self.groups.to_control(),
            (0x0, GicVersion::V3) => CONTROL_V3 | self.groups.to_control(),
            (0x4, GicVersion::V2) => {
                let others = u64::try_from(self.vcpus.len()).unwrap_or(1).saturating_sub(1);
                others << 5 | u64::from(self.banks())
            }
            (0x4, GicVersion::V3) => TYPER_V3 | u64::from(self.banks()),
            (0x8, _) => IIDR,
            _ => 0,
        }
    }

    fn write_control(&mut self, offset: u64, value: u32) -> VcpuSet {
        let groups = Groups::from_control(u64::from(value));
        if offset != 0 || groups == self.groups {
            return VcpuSet::EMPTY;
        }
        self.groups = groups;
        self.busy = self.all_banks();
        let mut everyone = VcpuSet::EMPTY;
        for (_, number) in self.vcpus.iter().zip(0..) {
            everyone.add(VcpuSet::only(VcpuId(number)));
        }
        everyone
    }

    /// Reads what lies above the arrays: routes and identification.
    fn read_upper(&self, offset: u64, width: Width) -> u64 {
        if let Some((spi, shift)) = self.router(offset, width) {
            return self.route(spi) >> shift & width.mask();
        }
        let end = frame_bytes(self.version);
        let distance = offset.checked_sub(end - IDENTIFICATION_BYTES).filter(|_| offset < end);
        match (distance, width, self.version) {
            (Some(distance), Width::Word, GicVersion::V2) => identification(distance, 0x90, 0x2b, 0x04),
            (Some(distance), Width::Word, GicVersion::V3) => identification(distance, 0x92, 0x3b, 0x44),
            _ => 0,
        }
    }

    fn read_bank(&self, cpu: VcpuId, access: Access) -> u32 {
        let bank = match (access.bank().checked_sub(1), self.version) {
            (Some(index), _) => self.spis.get(index),
            (None, GicVersion::V2) => self.vcpus.get(cpu.index()).map(|vcpu| &vcpu.private),
            (None, GicVersion::V3) => None, // with affinity routing these are the redistributor's
        };
        bank.map_or(0, |bank| bank.read(access))
    }

    fn write_bank(&mut self, cpu: VcpuId, access: Access, value: u32) -> VcpuSet {
        let Some(index) = access.bank().checked_sub(1) else {
            return match self.version {
                GicVersion::V2 => self.write_private(cpu, access, value),
                GicVersion::V3 => VcpuSet::EMPTY,
            };
        };
        let Some(bank) = self.spis.get_mut(index) else { return VcpuSet::EMPTY };
        let before = bank.active;
        let changed = bank.write(access, value);
        let activated = bank.active & !before;
        if activated != 0
            && let Some(vcpu) = self.vcpus.get_mut(cpu.index())
        {
            super::set_word(&mut vcpu.owned, index, activated, activated);
        }
        let concerned = self.spi_changed(index, changed);
        if access.register == Register::ClearActive {
            self.disown_inactive(index);
        }
        concerned
    }

    /// Writes the bank of SGIs and PPIs of one vCPU, through the distributor of a GICv2.
    pub(super) fn write_private(&mut self, cpu: VcpuId, access: Access, value: u32) -> VcpuSet {
        let value = value & private_mask(self.version, access);
        let Some(vcpu) = self.vcpus.get_mut(cpu.index()) else { return VcpuSet::EMPTY };
        if vcpu.private.write(access, value) == 0 { VcpuSet::EMPTY } else { VcpuSet::only(cpu) }
    }

    /// Reads ITARGETSR: the reader itself for its own interrupts; zero in a GICv3, and with one CPU interface.
    fn read_targets(&self, cpu: VcpuId, access: Access) -> u32 {
        if self.version == GicVersion::V3 || self.vcpus.len() <= 1 {
            return 0;
        }
        let own = VcpuSet::only(cpu).bits();
        self.spis_of(access).into_iter().rev().fold(0, |word, intid| {
            let targets = match intid {
                Some(_) if access.bank() == 0 => own,
                Some(spi) => self.route(spi),
                None => 0,
            };
            word << 8 | u32::try_from(targets & 0xff).unwrap_or(0)
        })
    }

    fn write_targets(&mut self, access: Access, value: u32) -> VcpuSet {
        if self.version == GicVersion::V3 || self.vcpus.len() <= 1 || access.bank() == 0 {
            return VcpuSet::EMPTY;
        }
        // Targets that are not there read as zero (Arm IHI 0048B.b, 4.3.12).
        let existing = u8::MAX >> 8_usize.saturating_sub(self.vcpus.len());
        let mut concerned = VcpuSet::EMPTY;
        let spis: [Option<IntId>; 4] = self.spis_of(access);
        for (spi, targets) in spis.into_iter().zip(value.to_le_bytes()) {
            if let Some(spi) = spi {
                concerned.add(self.set_route(spi, u64::from(targets & existing)));
            }
        }
        concerned
    }

    /// Finds the SPI whose GICD_IROUTER an access means, and at which bit it begins.
    fn router(&self, offset: u64, width: Width) -> Option<(IntId, u64)> {
        let aligned = offset & (width.bytes() - 1) == 0 && matches!(width, Width::Word | Width::Double);
        if self.version != GicVersion::V3 || !aligned || !(ROUTER..ROUTER_END).contains(&offset) {
            return None;
        }
        let intid = u32::try_from((offset - ROUTER) / 8).ok()?;
        self.has_spi(intid).then_some((IntId(intid), (offset & 4) * 8))
    }

    fn write_router(&mut self, offset: u64, width: Width, value: u64) -> VcpuSet {
        let Some((spi, shift)) = self.router(offset, width) else { return VcpuSet::EMPTY };
        let kept = self.route(spi) & !(width.mask() << shift);
        self.set_route(spi, kept | (value & width.mask()) << shift)
    }

    /// Lists the INTIDs of an access to an array of bytes; `None` stands for those that do not exist.
    fn spis_of(&self, access: Access) -> [Option<IntId>; 4] {
        let first = access.bank() * 32 + access.lane();
        core::array::from_fn(|byte| {
            let intid = u32::try_from(first + byte).ok()?;
            let exists = byte < access.bytes() && (intid < FIRST_SPI || self.has_spi(intid));
            exists.then_some(IntId(intid))
        })
    }
}
