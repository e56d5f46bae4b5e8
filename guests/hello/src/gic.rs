//! The few GIC registers that one PPI needs, on the GICv2 or GICv3 of QEMU's `virt` board. Not a driver.
//!
//! Follows Arm IHI 0048B.b (GICv2) and Arm IHI 0069H (GICv3).

use crate::machine;

const GICD: u64 = 0x0800_0000;
const GICC: u64 = 0x0801_0000;
/// SGI_base frame of the first CPU's redistributor; RD_base is 64 KiB below.
const GICR_SGI: u64 = 0x080b_0000;
const GICR: u64 = 0x080a_0000;

const GICD_CTLR: u64 = GICD;
const GICD_ISENABLER0: u64 = GICD + 0x100;
const GICD_IPRIORITYR: u64 = GICD + 0x400;
const GICC_CTLR: u64 = GICC;
const GICC_PMR: u64 = GICC + 0x4;
const GICC_IAR: u64 = GICC + 0xc;
const GICC_EOIR: u64 = GICC + 0x10;
const GICR_WAKER: u64 = GICR + 0x14;
const GICR_IGROUPR0: u64 = GICR_SGI + 0x80;
const GICR_ISENABLER0: u64 = GICR_SGI + 0x100;
const GICR_IPRIORITYR: u64 = GICR_SGI + 0x400;

/// GICD_CTLR of a GICv3 with one Security state: ARE and EnableGrp1.
const CTLR_ARE_GRP1: u32 = 1 << 4 | 1 << 1;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
const ANY_PRIORITY: u32 = 0xff;
const PRIORITY: u8 = 0x80;

/// Which GIC the CPU speaks to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gic {
    /// Memory-mapped CPU interface.
    V2,
    /// CPU interface in system registers.
    V3,
}

impl Gic {
    /// Reads from ID_AA64PFR0_EL1.GIC which one it is.
    pub fn detect() -> Self {
        if machine::has_gic_system_registers() { Self::V3 } else { Self::V2 }
    }

    /// Says the version as a number.
    pub fn version(self) -> u64 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }

    /// Enables PPI or SGI `intid` on this CPU and the way from it to the CPU.
    pub fn enable(self, intid: u32) {
        match self {
            Self::V2 => {
                machine::store8(GICD_IPRIORITYR + u64::from(intid), PRIORITY);
                machine::store(GICD_ISENABLER0, 1 << intid);
                machine::store(GICD_CTLR, 1);
                machine::store(GICC_PMR, ANY_PRIORITY);
                machine::store(GICC_CTLR, 1);
            }
            Self::V3 => {
                machine::store(GICD_CTLR, CTLR_ARE_GRP1);
                wake_redistributor();
                machine::store8(GICR_IPRIORITYR + u64::from(intid), PRIORITY);
                machine::store(GICR_IGROUPR0, u32::MAX);
                machine::store(GICR_ISENABLER0, 1 << intid);
                machine::enable_gic_system_registers(u64::from(ANY_PRIORITY));
            }
        }
    }

    /// Acknowledges the pending interrupt and returns its INTID.
    pub fn acknowledge(self) -> u32 {
        match self {
            Self::V2 => machine::load(GICC_IAR),
            Self::V3 => machine::acknowledge_group1(),
        }
    }

    /// Ends interrupt `intid`.
    pub fn end(self, intid: u32) {
        match self {
            Self::V2 => machine::store(GICC_EOIR, intid),
            Self::V3 => machine::end_group1(intid),
        }
    }
}

/// Takes the first redistributor out of sleep, within a bounded number of reads.
fn wake_redistributor() {
    machine::store(GICR_WAKER, machine::load(GICR_WAKER) & !WAKER_PROCESSOR_SLEEP);
    (0..1_000_000).any(|_| machine::load(GICR_WAKER) & WAKER_CHILDREN_ASLEEP == 0);
}
