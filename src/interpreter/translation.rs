//! What AT instructions say of an address of the guest: RAM, something that stage 2 does not map, or a fault of the
//! guest's own tables.
//!
//! Not here: the walk. The CPU makes it, with the guest's granule, permissions and all else that its registers say; so
//! what the guest writes into its tables is bounded, and read, as on the bare machine.
//! Follows Arm ARM DDI 0487K.a, PAR_EL1 and MAIR_EL1.

use tock_registers::register_bitfields;

use instructions::{Place, Reason};

use crate::addr::{Ipa, PAGE_BYTES, Pa};

register_bitfields! [u64,
    /// PAR_EL1 in its 64-bit form.
    PAR [
        /// Memory attributes as MAIR_EL1 encodes them.
        ATTR OFFSET(56) NUMBITS(8) [],
        /// Bits 51:12 of the address.
        PA OFFSET(12) NUMBITS(40) [],
        /// The fault was of stage 2.
        S OFFSET(9) NUMBITS(1) [],
        FST OFFSET(1) NUMBITS(6) [],
        F OFFSET(0) NUMBITS(1) []
    ]
];

/// How an address is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// A store.
    pub write: bool,
    /// With the permissions of EL0.
    pub el0: bool,
    /// At EL1 while PSTATE.PAN is set.
    pub pan: bool,
}

/// Which stages translate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stages {
    /// The guest's own: AT S1E1R and its like.
    First,
    /// Both: AT S12E1R and its like.
    Both,
}

/// Reads what AT left in PAR_EL1, of stage 1 alone and of both, as the page that an access finds.
///
/// # Errors
/// What the guest's own translation faults with.
pub fn page(first: u64, both: u64) -> Result<Place, Reason> {
    if PAR::F.is_set(first) {
        let [status, ..] = PAR::FST.read(first).to_le_bytes();
        // A table where stage 2 has nothing: no memory answers the walk.
        return Err(if PAR::S.is_set(first) { Reason::External } else { Reason::Stage1(status) });
    }
    Ok(if PAR::F.is_set(both) {
        Place::Elsewhere(Ipa::new(PAR::PA.read(first) * PAGE_BYTES))
    } else {
        Place::Ram(Pa::new(PAR::PA.read(both) * PAGE_BYTES))
    })
}

/// Tells whether a PAR_EL1 of stage 1 names Device memory.
#[must_use]
pub fn is_device(first: u64) -> bool {
    !PAR::F.is_set(first) && PAR::ATTR.read(first) & 0xf0 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_ram_if_both_stages_have_it() {
        let found = page(0xff00_0000_4000_0b80, 0xff00_0000_9000_0b80);
        assert_eq!(found, Ok(Place::Ram(Pa::new(0x9000_0000))));
    }

    #[test]
    fn a_page_that_stage_2_refuses_is_known_by_its_ipa() {
        let found = page(0x0400_0000_0900_0b80, 0x0000_0000_0000_0a0f);
        assert_eq!(found, Ok(Place::Elsewhere(Ipa::new(0x0900_0000))));
    }

    #[test]
    fn a_fault_of_the_guests_tables_is_the_guests() {
        assert_eq!(page(0x0800 | 0x0f << 1 | 1, 0x801), Err(Reason::Stage1(0x0f)));
        assert_eq!(page(0x0800 | 0x07 << 1 | 0x301, 0x801), Err(Reason::External));
    }

    #[test]
    fn only_the_top_nibble_of_the_attributes_tells_device_memory() {
        for (attributes, expected) in
            [(0x00, true), (0x0c, true), (0x44, false), (0xff, false), (0xf0, false)]
        {
            assert_eq!(is_device(attributes << 56), expected, "{attributes:#x}");
        }
        assert!(!is_device(1));
    }
}
