//! GICv3: distributor and redistributor in memory, CPU interface and list registers in system registers.
//!
//! Follows Arm IHI 0069H, chapters 6 (virtual interrupts), 11 (ICC, ICH) and 12 (GICD, GICR).

use core::cell::Cell;

use trapeze::ids::{Affinity, IntId};
use trapeze::interpreter::device::vgic::{self, ListRegister, ListRegisters, State};
use trapeze::vcpu::CpuInterface;

use super::{Acknowledged, EOI_COUNT_SHIFT, GICD_IROUTER, ISACTIVER, KICK, Loaded, SPECIAL, control};
use crate::arch::mmio::Mmio;
use crate::arch::sysreg::{dsb_sy, isb, read_sysreg, write_sysreg};

const GICD_CTLR: u64 = 0x0000;
const GICD_TYPER: u64 = 0x0004;
const IGROUPR: u64 = 0x0080;
const ISENABLER: u64 = 0x0100;
const ICENABLER: u64 = 0x0180;
const ICACTIVER: u64 = 0x0380;
const IPRIORITYR: u64 = 0x0400;
const GICR_TYPER: u64 = 0x0008;
const GICR_WAKER: u64 = 0x0014;
const GICR_SGI_BASE: u64 = 0x1_0000;
/// RD_base and SGI_base, 64 KiB each.
const FRAME_BYTES: u64 = 0x2_0000;
/// GICR_TYPER.VLPIS: two more 64 KiB frames follow.
const TYPER_VLPIS: u64 = 1 << 1;
/// GICR_TYPER.Last: no further redistributor in this region.
const TYPER_LAST: u64 = 1 << 4;
const RWP: u32 = 1 << 31;
const GICR_RWP: u32 = 1 << 3;
/// GICD_CTLR: affinity routing and Group 1 on, in either security configuration (Arm IHI 0069H, 12.9.4).
const ROUTED_GROUP_1: u32 = 1 << 4 | 0b11;
const PRIORITY: u32 = 0xa0a0_a0a0;

/// The distributor, which all CPUs share.
#[derive(Clone, Copy)]
pub struct Distributor(Mmio);

impl Distributor {
    /// Takes the distributor over: every SPI off, Group 1, to the CPU at `home`.
    pub fn initialise(registers: Mmio, home: Affinity) -> Self {
        let this = Self(registers);
        registers.write32(GICD_CTLR, 0);
        this.wait();
        let words = this.intids() / 32;
        for word in 1..words {
            registers.write32(ICENABLER + 4 * u64::from(word), u32::MAX);
            registers.write32(ICACTIVER + 4 * u64::from(word), u32::MAX);
            registers.write32(IGROUPR + 4 * u64::from(word), u32::MAX);
        }
        this.wait();
        for word in 8..words * 8 {
            registers.write32(IPRIORITYR + 4 * u64::from(word), PRIORITY);
        }
        registers.write32(GICD_CTLR, ROUTED_GROUP_1);
        this.wait();
        for spi in 32..(words * 32).min(SPECIAL) {
            registers.write64(GICD_IROUTER + 8 * u64::from(spi), home.to_mpidr());
        }
        this
    }

    /// Returns the number of INTIDs, a multiple of 32.
    pub fn intids(self) -> u32 {
        ((self.0.read32(GICD_TYPER) & 0x1f) + 1) * 32
    }

    fn wait(self) {
        while self.0.read32(GICD_CTLR) & RWP != 0 {}
    }
}

/// Walks the frames of one region to the one whose GICR_TYPER has this affinity.
fn find(region: Mmio, stride: Option<u64>, affinity: Affinity) -> Option<Mmio> {
    let wanted = affinity.to_mpidr();
    let mut offset = 0;
    loop {
        let frame = region.part(offset, FRAME_BYTES)?;
        let typer = frame.read64(GICR_TYPER);
        let found = (typer >> 32 & 0xff_ffff) | (typer >> 56) << 32;
        if found == wanted {
            return Some(frame);
        }
        if typer & TYPER_LAST != 0 {
            return None;
        }
        let frames = if typer & TYPER_VLPIS != 0 { 2 } else { 1 };
        offset += stride.unwrap_or(frames * FRAME_BYTES);
    }
}

/// One CPU's redistributor and CPU interface.
pub struct V3 {
    distributor: Distributor,
    redistributor: Mmio,
    affinity: Affinity,
    list_registers: u8,
    /// Bits of preemption: there is an active priorities register for each 32 levels.
    priority_bits: u8,
    loaded: Cell<Loaded>,
}

impl V3 {
    /// Finds the redistributor of the CPU that runs this in `regions` and opens its CPU interface.
    pub fn open(
        distributor: Distributor,
        regions: &[Mmio],
        stride: Option<u64>,
        affinity: Affinity,
    ) -> Option<Self> {
        let redistributor = regions.iter().find_map(|region| find(*region, stride, affinity))?;
        redistributor.write32(GICR_WAKER, redistributor.read32(GICR_WAKER) & !(1 << 1));
        while redistributor.read32(GICR_WAKER) & (1 << 2) != 0 {}
        redistributor.write32(GICR_SGI_BASE + ICENABLER, u32::MAX);
        redistributor.write32(GICR_SGI_BASE + ICACTIVER, u32::MAX);
        redistributor.write32(GICR_SGI_BASE + IGROUPR, u32::MAX);
        while redistributor.read32(0) & GICR_RWP != 0 {}
        for word in 0..8 {
            redistributor.write32(GICR_SGI_BASE + IPRIORITYR + 4 * word, PRIORITY);
        }

        // ICC_SRE_EL2: SRE, DFB, DIB, and Enable, so that EL1 may read and write its ICC_SRE_EL1.
        write_sysreg!("S3_4_C12_C9_5", 0b1111);
        isb(); // SRE decides whether the registers below exist
        write_sysreg!("S3_0_C4_C6_0", 0xff); // ICC_PMR_EL1: everything
        write_sysreg!("S3_0_C12_C12_4", 1 << 1); // ICC_CTLR_EL1.EOImode: EOIR drops, DIR deactivates
        write_sysreg!("S3_0_C12_C8_4", 0); // ICC_AP0R0_EL1 and ICC_AP1R0_EL1: a priority that firmware left
        write_sysreg!("S3_0_C12_C9_0", 0); // active would mask everything
        write_sysreg!("S3_0_C12_C12_7", 1); // ICC_IGRPEN1_EL1
        let vtr = read_sysreg!("S3_4_C12_C11_1"); // ICH_VTR_EL2
        let this = Self {
            distributor,
            redistributor,
            affinity,
            list_registers: (vtr & 0x1f) as u8 + 1,
            priority_bits: (vtr >> 26 & 0b111) as u8 + 1,
            loaded: Cell::default(),
        };
        this.clear();
        this.set_enabled(KICK, true);
        isb();
        Some(this)
    }

    pub(super) fn acknowledge(&self) -> Option<Acknowledged> {
        let iar = read_sysreg!("S3_0_C12_C12_0") as u32; // ICC_IAR1_EL1
        dsb_sy(); // the acknowledge is over before the device is touched (Arm IHI 0069H, 4.1.1)
        (iar & 0xff_ffff < SPECIAL).then_some(Acknowledged(iar))
    }

    pub(super) fn drop_priority(&self, interrupt: Acknowledged) {
        write_sysreg!("S3_0_C12_C12_1", u64::from(interrupt.0)); // ICC_EOIR1_EL1
        isb();
    }

    pub(super) fn deactivate(&self, interrupt: Acknowledged) {
        write_sysreg!("S3_0_C12_C11_1", u64::from(interrupt.0)); // ICC_DIR_EL1
        isb();
    }

    pub(super) fn set_enabled(&self, intid: IntId, enabled: bool) {
        let register = if enabled { ISENABLER } else { ICENABLER };
        let bit = 1 << (intid.0 % 32);
        if intid.is_private() {
            self.redistributor.write32(GICR_SGI_BASE + register, bit);
            while !enabled && self.redistributor.read32(0) & GICR_RWP != 0 {}
        } else {
            self.distributor.0.write32(register + 4 * u64::from(intid.0 / 32), bit);
            if !enabled {
                self.distributor.wait();
            }
        }
    }

    pub(super) fn distributor(&self) -> Mmio {
        self.distributor.0
    }

    pub(super) fn read_private(&self, register: u64) -> u32 {
        self.redistributor.read32(GICR_SGI_BASE + register)
    }

    pub(super) fn kick(&self, address: u64) {
        let to = Affinity::from_mpidr(address);
        let sgi1r = u64::from(to.aff3) << 48
            | u64::from(to.aff0 >> 4) << 44
            | u64::from(to.aff2) << 32
            | u64::from(KICK.0) << 24
            | u64::from(to.aff1) << 16
            | 1 << (to.aff0 & 15);
        super::super::memory::publish(); // what the kick is about is visible before the kick
        write_sysreg!("S3_0_C12_C11_5", sgi1r); // ICC_SGI1R_EL1
        isb();
    }

    pub(super) fn address(&self) -> u64 {
        self.affinity.to_mpidr()
    }

    pub(super) fn list_registers(&self) -> u8 {
        self.list_registers
    }

    pub(super) fn load(&self, lists: &ListRegisters) {
        let loaded = self.loaded.get();
        if let Some(first) = lists.in_use().next() {
            write_sysreg!("S3_4_C12_C12_0", vgic::encode_v3(first)); // ICH_LR0_EL2: mostly the only one
        } else if loaded.used != 0 {
            write_sysreg!("S3_4_C12_C12_0", 0);
        }
        if lists.used.max(loaded.used) > 1 {
            self.load_further(lists, loaded.used);
        }
        let hcr = control(lists);
        if hcr != loaded.control {
            write_sysreg!("S3_4_C12_C11_0", u64::from(hcr)); // ICH_HCR_EL2; EOIcount begins at 0 again
        }
        self.loaded.set(Loaded { used: lists.used, control: hcr });
        // No barrier: the ERET that follows is a context synchronization event.
    }

    #[inline(never)]
    fn load_further(&self, lists: &ListRegisters, loaded: u8) {
        for (index, entry) in (0..lists.used).zip(&lists.entries).skip(1) {
            write_lr(index, vgic::encode_v3(entry));
        }
        for index in lists.used.max(1)..loaded {
            write_lr(index, 0);
        }
    }

    pub(super) fn first_state(&self) -> State {
        State::of_v3(read_sysreg!("S3_4_C12_C12_0"))
    }

    pub(super) fn load_first(&self, first: &ListRegister) {
        write_sysreg!("S3_4_C12_C12_0", vgic::encode_v3(first));
    }

    pub(super) fn save(&self, lists: &mut ListRegisters) {
        let used = self.loaded.get().used;
        if let [first, ..] = &mut lists.entries
            && used != 0
        {
            first.state = State::of_v3(read_sysreg!("S3_4_C12_C12_0")); // ICH_LR0_EL2
        }
        for (index, entry) in (0..used).zip(&mut lists.entries).skip(1) {
            entry.state = State::of_v3(read_lr(index));
        }
        if lists.not_present_maintenance {
            lists.eoi_count = (read_sysreg!("S3_4_C12_C11_0") >> EOI_COUNT_SHIFT) as u8 & 0x1f;
            self.loaded.set(Loaded { control: 0, ..self.loaded.get() });
        }
        if lists.used == self.list_registers {
            let vmcr = self.virtual_control(); // VENG0, VENG1
            lists.group_off = [vmcr & 1 == 0, vmcr & 2 == 0];
        }
    }

    /// Reads ICH_VMCR_EL2.
    pub(super) fn virtual_control(&self) -> u32 {
        read_sysreg!("S3_4_C12_C11_7") as u32
    }

    /// Takes a vCPU's part out of the CPU interface, which signals nothing any more.
    pub(super) fn leave(&self, lists: &mut ListRegisters, interface: &mut CpuInterface) {
        self.save(lists);
        interface.control = self.virtual_control();
        interface.sre_el1 = read_sysreg!("S3_0_C12_C12_5"); // ICC_SRE_EL1
        interface.active_group0[0] = read_sysreg!("S3_4_C12_C8_0") as u32; // ICH_AP0R0_EL2
        interface.active_group1[0] = read_sysreg!("S3_4_C12_C9_0") as u32; // ICH_AP1R0_EL2
        if self.priority_bits > 5 {
            self.save_further_priorities(interface);
        }
        write_sysreg!("S3_4_C12_C11_0", 0); // ICH_HCR_EL2: off
        self.loaded.set(Loaded { control: 0, ..self.loaded.get() });
    }

    /// Puts a vCPU's part into the CPU interface.
    pub(super) fn enter(&self, lists: &ListRegisters, interface: &CpuInterface) {
        // ICC_SRE_EL1 first: it decides about others. System registers mostly are all there is.
        if interface.sre_el1 != read_sysreg!("S3_0_C12_C12_5") {
            write_sysreg!("S3_0_C12_C12_5", interface.sre_el1);
            isb();
        }
        write_sysreg!("S3_4_C12_C11_7", u64::from(interface.control)); // ICH_VMCR_EL2
        write_sysreg!("S3_4_C12_C8_0", u64::from(interface.active_group0[0]));
        write_sysreg!("S3_4_C12_C9_0", u64::from(interface.active_group1[0]));
        if self.priority_bits > 5 {
            self.load_further_priorities(interface);
        }
        self.load(lists);
    }

    #[inline(never)]
    fn save_further_priorities(&self, interface: &mut CpuInterface) {
        let CpuInterface { active_group0, active_group1, .. } = interface;
        active_group0[1] = read_sysreg!("S3_4_C12_C8_1") as u32;
        active_group1[1] = read_sysreg!("S3_4_C12_C9_1") as u32;
        if self.priority_bits > 6 {
            active_group0[2] = read_sysreg!("S3_4_C12_C8_2") as u32;
            active_group0[3] = read_sysreg!("S3_4_C12_C8_3") as u32;
            active_group1[2] = read_sysreg!("S3_4_C12_C9_2") as u32;
            active_group1[3] = read_sysreg!("S3_4_C12_C9_3") as u32;
        }
    }

    #[inline(never)]
    fn load_further_priorities(&self, interface: &CpuInterface) {
        let [_, group0 @ ..] = interface.active_group0.map(u64::from);
        let [_, group1 @ ..] = interface.active_group1.map(u64::from);
        write_sysreg!("S3_4_C12_C8_1", group0[0]);
        write_sysreg!("S3_4_C12_C9_1", group1[0]);
        if self.priority_bits > 6 {
            write_sysreg!("S3_4_C12_C8_2", group0[1]);
            write_sysreg!("S3_4_C12_C8_3", group0[2]);
            write_sysreg!("S3_4_C12_C9_2", group1[1]);
            write_sysreg!("S3_4_C12_C9_3", group1[2]);
        }
    }

    /// Makes a private interrupt active that a guest is at.
    pub(super) fn activate(&self, intid: IntId) {
        self.redistributor.write32(GICR_SGI_BASE + ISACTIVER, 1 << (intid.0 % 32));
    }

    /// Empties the list registers.
    pub(super) fn clear(&self) {
        for index in 0..self.list_registers {
            write_lr(index, 0);
        }
        write_sysreg!("S3_4_C12_C11_0", 0); // ICH_HCR_EL2
        isb();
    }
}

/// Hands every ICH_LR<n>_EL2 to `$with`: the number is part of the instruction.
macro_rules! list_register_names {
    ($with:ident) => {
        $with! {
            0 "S3_4_C12_C12_0"
            1 "S3_4_C12_C12_1"
            2 "S3_4_C12_C12_2"
            3 "S3_4_C12_C12_3"
            4 "S3_4_C12_C12_4"
            5 "S3_4_C12_C12_5"
            6 "S3_4_C12_C12_6"
            7 "S3_4_C12_C12_7"
            8 "S3_4_C12_C13_0"
            9 "S3_4_C12_C13_1"
            10 "S3_4_C12_C13_2"
            11 "S3_4_C12_C13_3"
            12 "S3_4_C12_C13_4"
            13 "S3_4_C12_C13_5"
            14 "S3_4_C12_C13_6"
            15 "S3_4_C12_C13_7"
        }
    };
}

fn read_lr(index: u8) -> u64 {
    macro_rules! per_list_register {
        ($($number:literal $name:literal)*) => {
            match index { $($number => read_sysreg!($name),)* _ => 0 }
        };
    }
    list_register_names!(per_list_register)
}

fn write_lr(index: u8, value: u64) {
    macro_rules! per_list_register {
        ($($number:literal $name:literal)*) => {
            match index { $($number => write_sysreg!($name, value),)* _ => {} }
        };
    }
    list_register_names!(per_list_register);
}
