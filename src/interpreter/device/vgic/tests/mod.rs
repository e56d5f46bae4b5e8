//! Tests of the virtual GIC as the machine and a guest see it.

mod cpu;
mod delivery;
mod distributor;
mod model;
mod redistributor;
mod sgi;

use super::*;
use crate::interpreter::device::Width;

/// Cases of a property test.
const CASES: u32 = if cfg!(miri) { 8 } else { 256 };

const CTLR: u64 = 0x000;
const IGROUPR: u64 = 0x080;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;
const IPRIORITYR: u64 = 0x400;
const ITARGETSR: u64 = 0x800;
const ICFGR: u64 = 0xc00;
const SGIR: u64 = 0xf00;
const CPENDSGIR: u64 = 0xf10;
const SPENDSGIR: u64 = 0xf20;
const IROUTER: u64 = 0x6000;
const SGI_BASE: u64 = 0x1_0000;

const CPU0: VcpuId = VcpuId(0);
const CPU1: VcpuId = VcpuId(1);
const TIMER: IntId = IntId(27);
const UART: IntId = IntId(33);

fn affinities(count: u8) -> Vec<Affinity> {
    (0..count).map(|aff0| Affinity { aff0, ..Affinity::default() }).collect()
}

fn new(version: GicVersion, vcpus: u8) -> Vgic {
    Vgic::new(version, &affinities(vcpus), MAX_SPIS)
}

impl Vgic {
    /// Reads a word of GICD.
    fn gicd(&self, cpu: VcpuId, offset: u64) -> u64 {
        self.distributor_read(cpu, offset, Width::Word)
    }

    /// Writes a word of GICD.
    fn set_gicd(&mut self, cpu: VcpuId, offset: u64, value: u64) -> VcpuSet {
        self.distributor_write(cpu, offset, Width::Word, value)
    }

    /// Writes a word of a bitmap array for the bank of `intid`, wherever the version has it.
    fn set_bank(&mut self, cpu: VcpuId, array: u64, intid: IntId, value: u64) -> VcpuSet {
        if self.version == GicVersion::V3 && intid.is_private() {
            let frame = u64::from(cpu.0) * REDISTRIBUTOR_BYTES + SGI_BASE;
            return self.redistributor_write(frame + array, Width::Word, value);
        }
        self.set_gicd(cpu, array + u64::from(intid.0 / 32) * 4, value)
    }

    /// Writes the one bit of `intid` to a bitmap array.
    fn set_bit(&mut self, cpu: VcpuId, array: u64, intid: IntId) -> VcpuSet {
        self.set_bank(cpu, array, intid, 1 << (intid.0 % 32))
    }

    /// Reads the one bit of `intid` from a bitmap array.
    fn bit(&self, cpu: VcpuId, array: u64, intid: IntId) -> bool {
        let word = if self.version == GicVersion::V3 && intid.is_private() {
            let frame = u64::from(cpu.0) * REDISTRIBUTOR_BYTES + SGI_BASE;
            self.redistributor_read(frame + array, Width::Word)
        } else {
            self.gicd(cpu, array + u64::from(intid.0 / 32) * 4)
        };
        word >> (intid.0 % 32) & 1 != 0
    }

    fn set_priority(&mut self, cpu: VcpuId, intid: IntId, priority: u8) -> VcpuSet {
        let (offset, priority) = (IPRIORITYR + u64::from(intid.0), u64::from(priority));
        if self.version == GicVersion::V3 && intid.is_private() {
            let frame = u64::from(cpu.0) * REDISTRIBUTOR_BYTES + SGI_BASE;
            return self.redistributor_write(frame + offset, Width::Byte, priority);
        }
        self.distributor_write(cpu, offset, Width::Byte, priority)
    }

    /// Makes an SPI edge-triggered or level-sensitive.
    fn set_edge(&mut self, cpu: VcpuId, intid: IntId, edge: bool) -> VcpuSet {
        let offset = ICFGR + u64::from(intid.0 / 16) * 4;
        let bit = 2 << (intid.0 % 16 * 2);
        let (base, private) = (u64::from(cpu.0) * REDISTRIBUTOR_BYTES + SGI_BASE, intid.is_private());
        if self.version == GicVersion::V3 && private {
            let word = self.redistributor_read(base + offset, Width::Word) & !bit;
            let word = if edge { word | bit } else { word };
            return self.redistributor_write(base + offset, Width::Word, word);
        }
        let word = self.gicd(cpu, offset) & !bit;
        self.set_gicd(cpu, offset, if edge { word | bit } else { word })
    }

    /// Routes an SPI to one vCPU.
    fn set_target(&mut self, spi: IntId, target: VcpuId) -> VcpuSet {
        match self.version {
            GicVersion::V2 => {
                let offset = ITARGETSR + u64::from(spi.0);
                self.distributor_write(CPU0, offset, Width::Byte, 1 << target.0)
            }
            GicVersion::V3 => {
                let offset = IROUTER + u64::from(spi.0) * 8;
                self.distributor_write(CPU0, offset, Width::Double, u64::from(target.0))
            }
        }
    }

    fn planned(&mut self, cpu: VcpuId) -> ListRegisters {
        let mut out = ListRegisters::new(4);
        self.plan(cpu, &mut out);
        out
    }
}

/// A GIC with both groups on and these interrupts enabled on every vCPU.
fn running(version: GicVersion, vcpus: u8, enabled: &[IntId]) -> Vgic {
    let mut vgic = new(version, vcpus);
    vgic.set_gicd(CPU0, CTLR, 3);
    for intid in enabled {
        for cpu in (0..vcpus).map(VcpuId) {
            vgic.set_bit(cpu, ISENABLER, *intid);
        }
        if !intid.is_private() {
            vgic.set_target(*intid, CPU0);
        }
    }
    vgic
}

const BOTH: [GicVersion; 2] = [GicVersion::V2, GicVersion::V3];
