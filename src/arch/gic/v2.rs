//! GICv2: distributor, CPU interface and hypervisor interface, all in memory.
//!
//! Not here: the virtual CPU interface GICV, which stage 2 maps straight into the guest; and groups: with security
//! extensions they are not ours to choose, and without them Group 0, as reset leaves it, serves (bit 0 of both CTLRs).
//! Follows Arm IHI 0048B.b, chapters 4 (GICD, GICC) and 5 (GICH).

use core::cell::Cell;

use trapeze::ids::IntId;
use trapeze::interpreter::device::vgic::{self, ListRegister, ListRegisters, State};
use trapeze::vcpu::CpuInterface;

use super::{
    Acknowledged, EOI_COUNT_SHIFT, HCR_TDIR, ICACTIVER, ISACTIVER, ITARGETSR, KICK, Loaded, SPECIAL, control,
};
use crate::arch::memory;
use crate::arch::mmio::Mmio;
use crate::arch::sysreg::dsb_sy;

const GICD_CTLR: u64 = 0x000;
const GICD_TYPER: u64 = 0x004;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const IPRIORITYR: u64 = 0x400;
const SGIR: u64 = 0xf00;
const GICC_CTLR: u64 = 0x000;
const GICC_PMR: u64 = 0x004;
const GICC_IAR: u64 = 0x00c;
const GICC_EOIR: u64 = 0x010;
const GICC_APR: u64 = 0x0d0;
const GICC_DIR: u64 = 0x1000;
/// GICC_CTLR: Enable, and EOImode (EOIR drops the priority, DIR deactivates).
const ENABLE_SPLIT: u32 = 1 | 1 << 9;
const GICH_HCR: u64 = 0x000;
const GICH_VTR: u64 = 0x004;
const GICH_VMCR: u64 = 0x008;
const GICH_APR: u64 = 0x0f0;
const GICH_LR: u64 = 0x100;
const PRIORITY: u32 = 0xa0a0_a0a0;

/// The register blocks of a GICv2.
#[derive(Clone, Copy)]
pub struct Blocks {
    /// Distributor.
    pub distributor: Mmio,
    /// CPU interface.
    pub cpu: Mmio,
    /// Virtual interface control.
    pub hypervisor: Mmio,
}

impl Blocks {
    /// Returns the number of INTIDs, a multiple of 32.
    pub fn intids(&self) -> u32 {
        ((self.distributor.read32(GICD_TYPER) & 0x1f) + 1) * 32
    }

    /// Takes the distributor over: every SPI off and routed to the CPU that runs this.
    pub fn initialise(&self) {
        let distributor = self.distributor;
        distributor.write32(GICD_CTLR, 0);
        let words = self.intids() / 32;
        let home = own_interface(distributor) * 0x0101_0101;
        for word in 1..words {
            distributor.write32(ICENABLER + 4 * u64::from(word), u32::MAX);
            distributor.write32(ICACTIVER + 4 * u64::from(word), u32::MAX);
        }
        for word in 8..words * 8 {
            distributor.write32(IPRIORITYR + 4 * u64::from(word), PRIORITY);
            distributor.write32(ITARGETSR + 4 * u64::from(word), home);
        }
        distributor.write32(GICD_CTLR, 1);
    }
}

/// Reads which bit of ITARGETSR is the CPU that runs this: its banked registers say so, or 0 on a machine with one,
/// which is the first then: SGIs still want a target.
fn own_interface(distributor: Mmio) -> u32 {
    (0..8).map(|word| distributor.read32(ITARGETSR + 4 * word)).find(|value| *value != 0).unwrap_or(1) & 0xff
}

/// One CPU's interfaces.
pub struct V2 {
    blocks: Blocks,
    interface: u32,
    list_registers: u8,
    loaded: Cell<Loaded>,
}

impl V2 {
    /// Opens the CPU interface of the CPU that runs this.
    pub fn open(blocks: Blocks) -> Self {
        let distributor = blocks.distributor;
        distributor.write32(ICENABLER, 0xffff_0000); // SGIs may be always on; PPIs go off
        distributor.write32(ICACTIVER, u32::MAX);
        for word in 0..8 {
            distributor.write32(IPRIORITYR + 4 * word, PRIORITY);
        }
        for word in 0..4 {
            blocks.cpu.write32(GICC_APR + 4 * word, 0); // a priority that firmware left active masks everything
        }
        blocks.cpu.write32(GICC_PMR, 0xff);
        blocks.cpu.write32(GICC_CTLR, ENABLE_SPLIT);
        let this = Self {
            blocks,
            interface: own_interface(distributor),
            list_registers: (blocks.hypervisor.read32(GICH_VTR) & 0x3f) as u8 + 1,
            loaded: Cell::default(),
        };
        this.clear();
        this.set_enabled(KICK, true);
        this
    }

    pub(super) fn acknowledge(&self) -> Option<Acknowledged> {
        let iar = self.blocks.cpu.read32(GICC_IAR);
        dsb_sy(); // what is read next is not older than the acknowledge, nor is a device touched before it
        (iar & 0x3ff < SPECIAL).then_some(Acknowledged(iar))
    }

    pub(super) fn drop_priority(&self, interrupt: Acknowledged) {
        self.blocks.cpu.write32(GICC_EOIR, interrupt.0);
    }

    pub(super) fn deactivate(&self, interrupt: Acknowledged) {
        self.blocks.cpu.write32(GICC_DIR, interrupt.0);
    }

    pub(super) fn set_enabled(&self, intid: IntId, enabled: bool) {
        let register = if enabled { ISENABLER } else { ICENABLER };
        self.blocks.distributor.write32(register + 4 * u64::from(intid.0 / 32), 1 << (intid.0 % 32));
    }

    pub(super) fn distributor(&self) -> Mmio {
        self.blocks.distributor
    }

    pub(super) fn read_private(&self, register: u64) -> u32 {
        self.blocks.distributor.read32(register)
    }

    pub(super) fn kick(&self, address: u64) {
        memory::publish(); // what the kick is about is visible before the kick
        self.blocks.distributor.write32(SGIR, (address as u32 & 0xff) << 16 | KICK.0);
    }

    pub(super) fn address(&self) -> u64 {
        u64::from(self.interface)
    }

    pub(super) fn list_registers(&self) -> u8 {
        self.list_registers
    }

    pub(super) fn load(&self, lists: &ListRegisters) {
        let loaded = self.loaded.get();
        let hypervisor = self.blocks.hypervisor;
        for (index, entry) in (0..u64::from(lists.used)).zip(&lists.entries) {
            hypervisor.write32(GICH_LR + 4 * index, vgic::encode_v2(entry));
        }
        for index in lists.used..loaded.used {
            hypervisor.write32(GICH_LR + 4 * u64::from(index), 0);
        }
        let hcr = control(lists) & !HCR_TDIR; // GICV_DIR is kept from the guest by stage 2
        if hcr != loaded.control {
            hypervisor.write32(GICH_HCR, hcr); // EOIcount begins at 0 again
        }
        self.loaded.set(Loaded { used: lists.used, control: hcr });
    }

    pub(super) fn first_state(&self) -> State {
        State::of_v2(self.blocks.hypervisor.read32(GICH_LR))
    }

    pub(super) fn load_first(&self, first: &ListRegister) {
        self.blocks.hypervisor.write32(GICH_LR, vgic::encode_v2(first));
    }

    pub(super) fn save(&self, lists: &mut ListRegisters) {
        let hypervisor = self.blocks.hypervisor;
        for (index, entry) in (0..u64::from(self.loaded.get().used)).zip(&mut lists.entries) {
            entry.state = State::of_v2(hypervisor.read32(GICH_LR + 4 * index));
        }
        if lists.not_present_maintenance {
            lists.eoi_count = (hypervisor.read32(GICH_HCR) >> EOI_COUNT_SHIFT) as u8;
            self.loaded.set(Loaded { control: 0, ..self.loaded.get() });
        }
        if lists.used == self.list_registers {
            let vmcr = self.virtual_control(); // VMGrp0En, VMGrp1En
            lists.group_off = [vmcr & 1 == 0, vmcr & 2 == 0];
        }
    }

    /// Reads GICH_VMCR.
    pub(super) fn virtual_control(&self) -> u32 {
        self.blocks.hypervisor.read32(GICH_VMCR)
    }

    /// Takes a vCPU's part out of the CPU interface, which signals nothing any more.
    pub(super) fn leave(&self, lists: &mut ListRegisters, interface: &mut CpuInterface) {
        self.save(lists);
        interface.control = self.virtual_control();
        interface.active_group0[0] = self.blocks.hypervisor.read32(GICH_APR);
        self.blocks.hypervisor.write32(GICH_HCR, 0);
        self.loaded.set(Loaded { control: 0, ..self.loaded.get() });
    }

    /// Puts a vCPU's part into the CPU interface.
    pub(super) fn enter(&self, lists: &ListRegisters, interface: &CpuInterface) {
        self.blocks.hypervisor.write32(GICH_VMCR, interface.control);
        self.blocks.hypervisor.write32(GICH_APR, interface.active_group0[0]);
        self.load(lists);
    }

    /// Makes a private interrupt active that a guest is at.
    pub(super) fn activate(&self, intid: IntId) {
        self.blocks.distributor.write32(ISACTIVER, 1 << (intid.0 % 32));
    }

    /// Empties the list registers.
    pub(super) fn clear(&self) {
        for index in 0..u64::from(self.list_registers) {
            self.blocks.hypervisor.write32(GICH_LR + 4 * index, 0);
        }
        self.blocks.hypervisor.write32(GICH_HCR, 0);
    }
}
