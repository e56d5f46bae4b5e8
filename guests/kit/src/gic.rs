//! The interrupt controller of the board, GICv2 or GICv3 with one Security state, by the same functions.
//!
//! Interrupts are Group 0 on a GICv2 and Group 1 on a GICv3, so that they are IRQs on both; raw registers are public.
//! Follows Arm IHI 0048B.b (GICv2) and Arm IHI 0069H (GICv3).

use crate::{mmio, mrs, msr, timer};

/// Distributor.
pub const GICD: u64 = 0x0800_0000;
/// GICv2 CPU interface.
pub const GICC: u64 = 0x0801_0000;
/// First GICv3 redistributor.
pub const GICR: u64 = 0x080a_0000;
/// Bytes of a redistributor: RD_base and SGI_base.
const GICR_STRIDE: u64 = 0x2_0000;
const SGI_BASE: u64 = 0x1_0000;

/// INTID that says there is none.
pub const SPURIOUS: u32 = 1023;
/// Priority that [`Gic::init_cpu`] lets through, and that interrupts have then.
pub const PRIORITY: u8 = 0x80;

// Offsets that distributor and SGI_base share.
const CTLR: u64 = 0;
const IGROUPR: u64 = 0x80;
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
const IROUTER: u64 = 0x6000;

const GICC_CTLR: u64 = GICC;
const GICC_PMR: u64 = GICC + 0x4;
const GICC_BPR: u64 = GICC + 0x8;
const GICC_IAR: u64 = GICC + 0xc;
const GICC_EOIR: u64 = GICC + 0x10;
const GICC_RPR: u64 = GICC + 0x14;
const GICC_HPPIR: u64 = GICC + 0x18;
const GICC_DIR: u64 = GICC + 0x1000;

const GICR_TYPER: u64 = 0x8;
const GICR_WAKER: u64 = 0x14;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
/// GICD_CTLR of a GICv3 with one Security state: ARE and EnableGrp1.
const CTLR_ARE_GRP1: u32 = 1 << 4 | 1 << 1;
const CTLR_RWP: u32 = 1 << 31;

/// Which GIC the CPUs speak to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gic {
    /// CPU interface in memory.
    V2,
    /// CPU interface in system registers.
    V3,
}

impl Gic {
    /// Reads it from ID_AA64PFR0_EL1.GIC.
    pub fn detect() -> Self {
        if mrs!("ID_AA64PFR0_EL1") >> 24 & 0xf == 0 { Self::V2 } else { Self::V3 }
    }

    /// Opens the distributor; SPIs are disabled, inactive and of one group.
    pub fn init_distributor(self) {
        mmio::write32(GICD + CTLR, 0);
        for word in 1..u64::from(self.intids() / 32) {
            mmio::write32(GICD + ICENABLER + 4 * word, u32::MAX);
            mmio::write32(GICD + ICACTIVER + 4 * word, u32::MAX);
            mmio::write32(GICD + ICPENDR + 4 * word, u32::MAX);
            mmio::write32(GICD + IGROUPR + 4 * word, if self == Self::V3 { u32::MAX } else { 0 });
        }
        mmio::write32(GICD + CTLR, if self == Self::V3 { CTLR_ARE_GRP1 } else { 1 });
        self.settle();
    }

    /// Opens this CPU's interface; SGIs and PPIs are disabled, inactive and have priority [`PRIORITY`].
    pub fn init_cpu(self) {
        if self == Self::V3 {
            let waker = redistributor() + GICR_WAKER;
            mmio::write32(waker, mmio::read32(waker) & !WAKER_PROCESSOR_SLEEP);
            timer::within_ms(1000, || mmio::read32(waker) & WAKER_CHILDREN_ASLEEP == 0);
        }
        let bank = self.bank(0);
        mmio::write32(bank + ICENABLER, u32::MAX);
        mmio::write32(bank + ICACTIVER, u32::MAX);
        mmio::write32(bank + ICPENDR, u32::MAX);
        (0..8).for_each(|word| mmio::write32(bank + IPRIORITYR + 4 * word, 0x8080_8080));
        match self {
            Self::V2 => {
                mmio::write32(bank + IGROUPR, 0);
                // SGIs have pending bits by source there.
                (0..4).for_each(|word| mmio::write32(GICD + 0xf10 + 4 * word, u32::MAX));
                mmio::write32(GICC_PMR, 0xff);
                mmio::write32(GICC_BPR, 0);
                mmio::write32(GICC_CTLR, 1);
            }
            Self::V3 => {
                mmio::write32(bank + IGROUPR, u32::MAX);
                msr!("ICC_SRE_EL1", 1);
                msr!("ICC_PMR_EL1", 0xff);
                msr!("ICC_BPR1_EL1", 0);
                msr!("ICC_CTLR_EL1", 0);
                msr!("ICC_IGRPEN1_EL1", 1);
            }
        }
    }

    /// Returns how many INTIDs the distributor has.
    pub fn intids(self) -> u32 {
        (32 * ((mmio::read32(GICD + 4) & 0x1f) + 1)).min(1020)
    }

    /// Returns the base for offsets of `intid`'s registers: distributor, or this CPU's SGI_base.
    pub fn bank(self, intid: u32) -> u64 {
        if self == Self::V3 && intid < 32 { redistributor() + SGI_BASE } else { GICD }
    }

    /// Writes `intid`'s bit of a register array with a bit for each INTID.
    fn set_bit(self, array: u64, intid: u32) {
        mmio::write32(self.bank(intid) + array + u64::from(intid / 32 * 4), 1 << (intid % 32));
        self.settle();
    }

    /// Reads `intid`'s bit of such an array.
    fn bit(self, array: u64, intid: u32) -> bool {
        mmio::read32(self.bank(intid) + array + u64::from(intid / 32 * 4)) >> (intid % 32) & 1 != 0
    }

    /// Waits until the distributor has done what was written to it.
    fn settle(self) {
        if self == Self::V3 {
            timer::within_ms(100, || mmio::read32(GICD + CTLR) & CTLR_RWP == 0);
        }
    }

    /// Enables `intid`.
    pub fn enable(self, intid: u32) {
        self.set_bit(ISENABLER, intid);
    }

    /// Disables `intid`.
    pub fn disable(self, intid: u32) {
        self.set_bit(ICENABLER, intid);
    }

    /// Says whether `intid` is enabled.
    pub fn is_enabled(self, intid: u32) -> bool {
        self.bit(ISENABLER, intid)
    }

    /// Makes `intid` pending.
    pub fn set_pending(self, intid: u32) {
        self.set_bit(ISPENDR, intid);
    }

    /// Takes `intid`'s pending state away.
    pub fn clear_pending(self, intid: u32) {
        self.set_bit(ICPENDR, intid);
    }

    /// Says whether `intid` is pending.
    pub fn is_pending(self, intid: u32) -> bool {
        self.bit(ISPENDR, intid)
    }

    /// Makes `intid` active.
    pub fn set_active(self, intid: u32) {
        self.set_bit(ISACTIVER, intid);
    }

    /// Takes `intid`'s active state away.
    pub fn clear_active(self, intid: u32) {
        self.set_bit(ICACTIVER, intid);
    }

    /// Says whether `intid` is active.
    pub fn is_active(self, intid: u32) -> bool {
        self.bit(ISACTIVER, intid)
    }

    /// Sets `intid`'s priority.
    pub fn set_priority(self, intid: u32, priority: u8) {
        mmio::write8(self.bank(intid) + IPRIORITYR + u64::from(intid), priority);
    }

    /// Reads `intid`'s priority.
    pub fn priority(self, intid: u32) -> u8 {
        mmio::read8(self.bank(intid) + IPRIORITYR + u64::from(intid))
    }

    /// Puts `intid` into group `group`, 0 or 1.
    pub fn set_group(self, intid: u32, group: u32) {
        let register = self.bank(intid) + IGROUPR + u64::from(intid / 32 * 4);
        let others = mmio::read32(register) & !(1 << (intid % 32));
        mmio::write32(register, others | group << (intid % 32));
    }

    /// Makes `intid` edge-triggered or level-sensitive.
    pub fn set_edge(self, intid: u32, is_edge: bool) {
        let register = self.bank(intid) + ICFGR + u64::from(intid / 16 * 4);
        let bit = 2 << (intid % 16 * 2);
        let others = mmio::read32(register) & !bit;
        mmio::write32(register, if is_edge { others | bit } else { others });
    }

    /// Sends SPI `intid` to CPU `cpu`, its affinity level 0.
    pub fn route(self, intid: u32, cpu: u32) {
        match self {
            Self::V2 => mmio::write8(GICD + ITARGETSR + u64::from(intid), 1 << cpu),
            Self::V3 => mmio::write64(GICD + IROUTER + 8 * u64::from(intid), u64::from(cpu)),
        }
    }

    /// Sends SGI `intid` to the CPUs of a mask.
    pub fn send_sgi(self, intid: u32, cpus: u32) {
        crate::ins!("dsb ish");
        match self {
            Self::V2 => mmio::write32(GICD + SGIR, cpus << 16 | intid),
            Self::V3 => msr!("ICC_SGI1R_EL1", u64::from(intid) << 24 | u64::from(cpus)),
        }
    }

    /// Sends SGI `intid` to all CPUs but this.
    pub fn send_sgi_to_others(self, intid: u32) {
        crate::ins!("dsb ish");
        match self {
            Self::V2 => mmio::write32(GICD + SGIR, 1 << 24 | intid),
            Self::V3 => msr!("ICC_SGI1R_EL1", 1 << 40 | u64::from(intid) << 24),
        }
    }

    /// Acknowledges: INTID, and on a GICv2 the source of an SGI above it.
    pub fn acknowledge(self) -> u32 {
        let iar = match self {
            Self::V2 => mmio::read32(GICC_IAR),
            Self::V3 => mrs!("ICC_IAR1_EL1") as u32,
        };
        crate::ins!("dsb sy");
        iar
    }

    /// Ends what [`Gic::acknowledge`] returned: priority, and without EOI mode 1 the active state.
    pub fn end(self, iar: u32) {
        match self {
            Self::V2 => mmio::write32(GICC_EOIR, iar),
            Self::V3 => msr!("ICC_EOIR1_EL1", u64::from(iar)),
        }
    }

    /// Deactivates, with EOI mode 1.
    pub fn deactivate(self, iar: u32) {
        match self {
            Self::V2 => mmio::write32(GICC_DIR, iar),
            Self::V3 => msr!("ICC_DIR_EL1", u64::from(iar)),
        }
    }

    /// Chooses whether [`Gic::end`] leaves the active state.
    pub fn set_eoi_mode(self, splits: bool) {
        match self {
            Self::V2 => mmio::write32(GICC_CTLR, 1 | u32::from(splits) << 9),
            Self::V3 => msr!("ICC_CTLR_EL1", u64::from(splits) << 1),
        }
    }

    /// Sets the priority mask.
    pub fn set_priority_mask(self, mask: u8) {
        match self {
            Self::V2 => mmio::write32(GICC_PMR, u32::from(mask)),
            Self::V3 => msr!("ICC_PMR_EL1", u64::from(mask)),
        }
    }

    /// Reads the priority mask.
    pub fn priority_mask(self) -> u8 {
        match self {
            Self::V2 => mmio::read32(GICC_PMR) as u8,
            Self::V3 => mrs!("ICC_PMR_EL1") as u8,
        }
    }

    /// Sets the binary point of the group that is used.
    pub fn set_binary_point(self, point: u8) {
        match self {
            Self::V2 => mmio::write32(GICC_BPR, u32::from(point)),
            Self::V3 => msr!("ICC_BPR1_EL1", u64::from(point)),
        }
    }

    /// Reads that binary point.
    pub fn binary_point(self) -> u8 {
        match self {
            Self::V2 => mmio::read32(GICC_BPR) as u8,
            Self::V3 => mrs!("ICC_BPR1_EL1") as u8,
        }
    }

    /// Reads the running priority, 0xff when idle.
    pub fn running_priority(self) -> u8 {
        match self {
            Self::V2 => mmio::read32(GICC_RPR) as u8,
            Self::V3 => mrs!("ICC_RPR_EL1") as u8,
        }
    }

    /// Reads the highest pending interrupt without acknowledging it.
    pub fn highest_pending(self) -> u32 {
        match self {
            Self::V2 => mmio::read32(GICC_HPPIR),
            Self::V3 => mrs!("ICC_HPPIR1_EL1") as u32,
        }
    }
}

/// Returns RD_base of this CPU's redistributor: the one whose GICR_TYPER has its affinity.
pub fn redistributor() -> u64 {
    let mpidr = mrs!("MPIDR_EL1");
    let affinity = mpidr >> 32 << 24 & 0xff00_0000 | mpidr & 0xff_ffff;
    let mut base = GICR;
    loop {
        let typer = mmio::read64(base + GICR_TYPER);
        // Last: what is not found is answered by the last one, for the test to fail on.
        if typer >> 32 == affinity || typer & 1 << 4 != 0 {
            return base;
        }
        base += GICR_STRIDE;
    }
}
