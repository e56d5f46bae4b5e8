//! List registers: how the hypervisor hands virtual interrupts to the CPU interface, and gets them back.
//!
//! Not here: which interrupt goes in (`plan` and `fold`), and the system registers or the GICH frame themselves.
//! Follows Arm IHI 0069H, 12.4.6 (`ICH_LR<n>_EL2`) and Arm IHI 0048B.b, 5.3.12 (GICH_LRn).

use crate::ids::{IntId, VcpuId};
use tock_registers::register_bitfields;

/// Most list registers that a CPU can have (Arm IHI 0069H, ICH_VTR_EL2.ListRegs; 64 in GICv2 on paper).
pub const MAX_LIST_REGISTERS: usize = 16;

register_bitfields! [u64,
    ICH_LR [
        VINTID OFFSET(0) NUMBITS(32) [],
        PINTID OFFSET(32) NUMBITS(13) [],
        EOI OFFSET(41) NUMBITS(1) [],
        PRIORITY OFFSET(48) NUMBITS(8) [],
        GROUP OFFSET(60) NUMBITS(1) [],
        HW OFFSET(61) NUMBITS(1) [],
        STATE OFFSET(62) NUMBITS(2) [],
    ],
];

register_bitfields! [u32,
    GICH_LR [
        VIRTUAL_ID OFFSET(0) NUMBITS(10) [],
        PHYSICAL_ID OFFSET(10) NUMBITS(10) [],
        CPUID OFFSET(10) NUMBITS(3) [],
        EOI OFFSET(19) NUMBITS(1) [],
        PRIORITY OFFSET(23) NUMBITS(5) [],
        STATE OFFSET(28) NUMBITS(2) [],
        GRP1 OFFSET(30) NUMBITS(1) [],
        HW OFFSET(31) NUMBITS(1) [],
    ],
];

/// Names where a virtual interrupt is in its life (the State field; the values are the same in both versions).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// 0b00: the list register is empty.
    #[default]
    Invalid,
    /// 0b01: waits to be acknowledged.
    Pending,
    /// 0b10: acknowledged, not yet deactivated.
    Active,
    /// 0b11: acknowledged, and pending once more.
    PendingActive,
}

impl State {
    /// Builds the state from its two bits.
    #[must_use]
    pub const fn new(pending: bool, active: bool) -> Self {
        match (pending, active) {
            (false, false) => Self::Invalid,
            (true, false) => Self::Pending,
            (false, true) => Self::Active,
            (true, true) => Self::PendingActive,
        }
    }

    /// Reads the state from the upper two bits of an `ICH_LR<n>_EL2` value.
    #[inline]
    #[must_use]
    pub const fn of_v3(value: u64) -> Self {
        Self::of_bits(value >> 62)
    }

    /// Reads the state from a GICH_LRn value.
    #[inline]
    #[must_use]
    pub fn of_v2(value: u32) -> Self {
        Self::of_bits(u64::from(value >> 28))
    }

    #[inline]
    const fn of_bits(bits: u64) -> Self {
        match bits & 0b11 {
            0 => Self::Invalid,
            1 => Self::Pending,
            2 => Self::Active,
            _ => Self::PendingActive,
        }
    }

    /// Tells whether the pending bit is set.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Pending | Self::PendingActive)
    }

    /// Tells whether the active bit is set.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Active | Self::PendingActive)
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Invalid => 0,
            Self::Pending => 1,
            Self::Active => 2,
            Self::PendingActive => 3,
        }
    }
}

/// Describes one virtual interrupt in a list register.
// Aligned so that it moves in three stores; with 4 bytes a copy would be a call of memcpy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(8))]
pub struct ListRegister {
    /// INTID that the guest acknowledges.
    pub virtual_id: IntId,
    /// Physical interrupt that the guest's deactivation deactivates as well (the HW bit).
    pub physical: Option<IntId>,
    /// Where it is in its life.
    pub state: State,
    /// Priority, 0 is highest; GICv2 hardware takes the upper 5 bits.
    pub priority: u8,
    /// Whether it belongs to Group 1.
    pub group1: bool,
    /// Whether the end of the interrupt raises a maintenance interrupt; only without `physical`.
    pub eoi_maintenance: bool,
    /// vCPU that sent it: an SGI of a GICv2 guest; 0 otherwise.
    pub source: VcpuId,
}

impl ListRegister {
    /// A list register with nothing in it.
    pub const EMPTY: Self = Self {
        virtual_id: IntId(0),
        physical: None,
        state: State::Invalid,
        priority: 0,
        group1: false,
        eoi_maintenance: false,
        source: VcpuId(0),
    };
}

/// Holds what a vCPU's list registers are to contain (`plan`), or contained when it left (`fold`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListRegisters {
    /// The list registers; the first `used` mean something.
    pub entries: [ListRegister; MAX_LIST_REGISTERS],
    /// How many the CPU implements (ICH_VTR_EL2.ListRegs + 1). Set by the machine.
    pub count: u8,
    /// How many are in use, from the first. Set by `plan`; the others are to be made invalid.
    pub used: u8,
    /// Read back for `fold`: ICH_HCR_EL2.EOIcount, deactivations that met no list register. It needs to be read
    /// only where `not_present_maintenance` was asked for; `plan` sets it to 0, and so must the hardware's be.
    pub eoi_count: u8,
    /// Read back for `plan`: which group (0, 1) the guest has off in its CPU interface, the inverse of
    /// ICH_VMCR_EL2.VENG0 and VENG1. Only looked at when the list registers run out; `false` is a safe answer.
    pub group_off: [bool; 2],
    /// Asks for a maintenance interrupt when no list register is pending any more: there are further
    /// pending interrupts (ICH_HCR_EL2.NPIE).
    pub no_pending_maintenance: bool,
    /// Asks for a maintenance interrupt when EOIcount is not 0: an active interrupt found no list register
    /// (ICH_HCR_EL2.LRENPIE).
    pub not_present_maintenance: bool,
    /// Asks for a maintenance interrupt when the guest enables a group that `group_off` had off
    /// (ICH_HCR_EL2.VGrp0EIE, VGrp1EIE).
    pub group_enable_maintenance: bool,
    /// Asks to trap deactivation on its own, which may concern an interrupt that is not in these list registers:
    /// ICH_HCR_EL2.TDIR, and in GICv2 the second page of the GICV frame (GICV_DIR) unmapped.
    pub trap_deactivation: bool,
    /// Says that `Vgic::take_errand` has physical interrupts for the machine to see to.
    pub withdrawn: bool,
    /// PPIs backed by hardware that the guest listens to, one bit per INTID: the others are to be
    /// disabled in the physical GIC of this CPU.
    pub hardware_enabled: u32,
}

impl ListRegisters {
    /// Describes empty list registers of a CPU that implements `count` of them.
    #[must_use]
    pub const fn new(count: u8) -> Self {
        Self {
            entries: [ListRegister::EMPTY; MAX_LIST_REGISTERS],
            count,
            used: 0,
            eoi_count: 0,
            group_off: [false; 2],
            no_pending_maintenance: false,
            not_present_maintenance: false,
            group_enable_maintenance: false,
            trap_deactivation: false,
            withdrawn: false,
            hardware_enabled: 0,
        }
    }

    /// Empties them. Which physical interrupts are let through stays as it is.
    pub fn empty(&mut self) {
        *self = Self { hardware_enabled: self.hardware_enabled, ..Self::new(self.count) };
    }

    /// Returns the entries in use.
    pub fn in_use(&self) -> impl Iterator<Item = &ListRegister> {
        self.entries.iter().take(usize::from(self.used))
    }

    /// Tells whether a maintenance interrupt is asked for.
    #[must_use]
    pub fn wants_maintenance(&self) -> bool {
        self.no_pending_maintenance | self.not_present_maintenance | self.group_enable_maintenance
    }

    /// Returns how many entries can be used.
    pub(super) fn capacity(&self) -> usize {
        usize::from(self.count).min(MAX_LIST_REGISTERS)
    }

    /// Starts a plan: nothing in use, nothing asked for.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.eoi_count = 0; // folded; the machine reads it back only where `not_present_maintenance` is asked for
        self.no_pending_maintenance = false;
        self.not_present_maintenance = false;
        self.group_enable_maintenance = false;
    }

    /// Appends an entry; the caller has checked the capacity.
    #[inline]
    pub(super) fn push(&mut self, entry: ListRegister) {
        if let Some(slot) = self.entries.get_mut(usize::from(self.used)) {
            *slot = entry;
            self.used += 1;
        }
    }
}

/// Encodes an `ICH_LR<n>_EL2` value (Arm IHI 0069H, 12.4.6).
#[must_use]
pub fn encode_v3(entry: &ListRegister) -> u64 {
    let origin = match entry.physical {
        Some(physical) => ICH_LR::HW::SET + ICH_LR::PINTID.val(u64::from(physical.0)),
        None => ICH_LR::EOI.val(u64::from(entry.eoi_maintenance)),
    };
    let fields = ICH_LR::VINTID.val(u64::from(entry.virtual_id.0))
        + ICH_LR::PRIORITY.val(u64::from(entry.priority))
        + ICH_LR::GROUP.val(u64::from(entry.group1))
        + ICH_LR::STATE.val(u64::from(entry.state.bits()));
    (fields + origin).value
}

/// Decodes an `ICH_LR<n>_EL2` value; every value has a meaning.
#[cfg(test)]
#[must_use]
pub(crate) fn decode_v3(value: u64) -> ListRegister {
    let hardware = ICH_LR::HW.is_set(value);
    let narrow = |field: u64| u32::try_from(field).unwrap_or(0);
    ListRegister {
        virtual_id: IntId(narrow(ICH_LR::VINTID.read(value))),
        physical: hardware.then(|| IntId(narrow(ICH_LR::PINTID.read(value)))),
        state: State::new(value & (1 << 62) != 0, value & (1 << 63) != 0),
        priority: u8::try_from(ICH_LR::PRIORITY.read(value)).unwrap_or(0),
        group1: ICH_LR::GROUP.is_set(value),
        eoi_maintenance: !hardware && ICH_LR::EOI.is_set(value),
        source: VcpuId(0),
    }
}

/// Encodes a GICH_LRn value (Arm IHI 0048B.b, 5.3.12); the priority loses its lower 3 bits.
#[must_use]
pub fn encode_v2(entry: &ListRegister) -> u32 {
    let origin = match entry.physical {
        Some(physical) => GICH_LR::HW::SET + GICH_LR::PHYSICAL_ID.val(physical.0),
        None => {
            GICH_LR::EOI.val(u32::from(entry.eoi_maintenance)) + GICH_LR::CPUID.val(u32::from(entry.source.0))
        }
    };
    let fields = GICH_LR::VIRTUAL_ID.val(entry.virtual_id.0)
        + GICH_LR::PRIORITY.val(u32::from(entry.priority >> 3))
        + GICH_LR::GRP1.val(u32::from(entry.group1))
        + GICH_LR::STATE.val(u32::from(entry.state.bits()));
    (fields + origin).value
}

/// Decodes a GICH_LRn value; every value has a meaning.
#[cfg(test)]
#[must_use]
pub(crate) fn decode_v2(value: u32) -> ListRegister {
    let hardware = GICH_LR::HW.is_set(value);
    let narrow = |field: u32| u8::try_from(field).unwrap_or(0);
    ListRegister {
        virtual_id: IntId(GICH_LR::VIRTUAL_ID.read(value)),
        physical: hardware.then(|| IntId(GICH_LR::PHYSICAL_ID.read(value))),
        state: State::new(value & (1 << 28) != 0, value & (1 << 29) != 0),
        priority: narrow(GICH_LR::PRIORITY.read(value)) << 3,
        group1: GICH_LR::GRP1.is_set(value),
        eoi_maintenance: !hardware && GICH_LR::EOI.is_set(value),
        source: VcpuId(if hardware { 0 } else { narrow(GICH_LR::CPUID.read(value)) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_entry(widest_id: u32, widest_physical: u32) -> impl Strategy<Value = ListRegister> {
        let states =
            prop::sample::select(vec![State::Invalid, State::Pending, State::Active, State::PendingActive]);
        let physical = prop::option::of((0..=widest_physical).prop_map(IntId));
        (0..=widest_id, physical, states, any::<u8>(), any::<bool>(), any::<bool>(), 0..8_u8).prop_map(
            |(id, physical, state, priority, group1, eoi, source)| ListRegister {
                virtual_id: IntId(id),
                physical,
                state,
                priority,
                group1,
                eoi_maintenance: eoi && physical.is_none(),
                source: VcpuId(if physical.is_none() { source } else { 0 }),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn a_v3_list_register_survives_its_encoding(entry in any_entry(u32::MAX, 0x1fff)) {
            let entry = ListRegister { source: VcpuId(0), ..entry };
            prop_assert_eq!(decode_v3(encode_v3(&entry)), entry);
        }

        #[test]
        fn a_v2_list_register_survives_its_encoding(entry in any_entry(0x3ff, 0x3ff)) {
            let entry = ListRegister { priority: entry.priority & 0xf8, ..entry };
            prop_assert_eq!(decode_v2(encode_v2(&entry)), entry);
        }
    }

    #[test]
    fn the_fields_lie_where_the_manuals_have_them() {
        let timer = ListRegister {
            virtual_id: IntId(27),
            physical: Some(IntId(27)),
            state: State::Pending,
            priority: 0xa0,
            group1: true,
            ..ListRegister::EMPTY
        };
        assert_eq!(encode_v3(&timer), 0x70a0_001b_0000_001b);
        assert_eq!(encode_v2(&timer), 0xda00_6c1b);
        let sgi = ListRegister {
            virtual_id: IntId(3),
            state: State::Active,
            eoi_maintenance: true,
            source: VcpuId(5),
            ..ListRegister::EMPTY
        };
        assert_eq!(encode_v3(&sgi), 0x8000_0200_0000_0003);
        assert_eq!(encode_v2(&sgi), 0x2008_1403);
    }
}
