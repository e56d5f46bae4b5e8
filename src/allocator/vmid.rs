//! VMIDs: the tags by which the TLB tells the VMs' translations apart.
//!
//! Not here: the invalidation itself (the machine's), and sharing of VMIDs among more VMs than there are
//! VMIDs: then the next VM does not start.
//! Follows Arm ARM DDI 0487K.a, D8.16 (TLB maintenance) and D23.2 (VTCR_EL2.VS, VTTBR_EL2.VMID).

use alloc::vec::Vec;

use crate::ids::Vmid;

/// Number of bits of a VMID on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmidBits {
    /// 8 bits: 255 VMs.
    Eight,
    /// 16 bits, FEAT_VMID16: 65535 VMs.
    Sixteen,
}

impl VmidBits {
    /// Decodes ID_AA64MMFR1_EL1.VMIDBits (Arm ARM DDI 0487K.a, D23.2): 0b0010 means 16.
    #[must_use]
    pub const fn from_id(vmid_bits: u8) -> Self {
        match vmid_bits {
            0b0010 => Self::Sixteen,
            _ => Self::Eight,
        }
    }

    const fn last(self) -> u16 {
        match self {
            Self::Eight => 0xff,
            Self::Sixteen => 0xffff,
        }
    }
}

/// Hands over a VMID and says what to do before the first entry with it.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    /// No VM has had it since the TLBs were invalidated at boot.
    Fresh(Vmid),
    /// An earlier VM had it: invalidate stage 1 and 2 for this VMID on all CPUs first (TLBI VMALLS12E1IS).
    Reused(Vmid),
}

impl Grant {
    /// Returns the VMID, for a caller that invalidates in either case.
    #[must_use]
    pub const fn vmid(self) -> Vmid {
        match self {
            Self::Fresh(vmid) | Self::Reused(vmid) => vmid,
        }
    }
}

/// Refuses to take back a VMID that no VM has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotGranted(pub Vmid);

/// Keeps account of VMIDs. 0 is never granted: it is what VTTBR_EL2 holds where no VM runs.
#[derive(Debug)]
pub struct Vmids {
    last: u16,
    /// Highest VMID that was ever granted.
    granted: u16,
    /// Those of them that came back. Never more than there were VMs at one time.
    returned: Vec<u16>,
}

impl Vmids {
    /// Makes an account in which all VMIDs are free.
    #[must_use]
    pub const fn new(bits: VmidBits) -> Self {
        Self { last: bits.last(), granted: 0, returned: Vec::new() }
    }

    /// Grants a VMID, a returned one if there is one; `None` when each is in use.
    #[must_use]
    pub fn allocate(&mut self) -> Option<Grant> {
        if let Some(vmid) = self.returned.pop() {
            return Some(Grant::Reused(Vmid(vmid)));
        }
        let vmid = self.granted.checked_add(1).filter(|vmid| *vmid <= self.last)?;
        self.granted = vmid;
        Some(Grant::Fresh(Vmid(vmid)))
    }

    /// Takes a VMID back from a VM that has ended.
    ///
    /// # Errors
    /// [`NotGranted`] when nobody has it.
    pub fn free(&mut self, vmid: Vmid) -> Result<(), NotGranted> {
        let was_granted = (1..=self.granted).contains(&vmid.0);
        if !was_granted || self.returned.contains(&vmid.0) {
            return Err(NotGranted(vmid));
        }
        self.returned.push(vmid.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn zero_is_never_granted_and_all_others_are_once() {
        let mut vmids = Vmids::new(VmidBits::Eight);
        let granted: BTreeSet<u16> = core::iter::from_fn(|| vmids.allocate())
            .map(|grant| match grant {
                Grant::Fresh(vmid) => vmid.0,
                Grant::Reused(vmid) => panic!("{vmid:?} was never returned"),
            })
            .collect();
        assert!(granted.into_iter().eq(1..=255));
        assert_eq!(vmids.allocate(), None);
    }

    #[test]
    fn the_last_of_sixteen_bits_is_granted_and_does_not_wrap() {
        let mut vmids = Vmids { granted: 65534, ..Vmids::new(VmidBits::from_id(0b0010)) };
        assert_eq!(vmids.allocate(), Some(Grant::Fresh(Vmid(65535))));
        assert_eq!(vmids.allocate(), None);
    }

    #[test]
    fn a_returned_vmid_is_granted_again_as_reused() {
        let mut vmids = Vmids::new(VmidBits::from_id(0));
        assert_eq!(vmids.allocate(), Some(Grant::Fresh(Vmid(1))));
        assert_eq!(vmids.allocate(), Some(Grant::Fresh(Vmid(2))));
        assert_eq!(vmids.free(Vmid(1)), Ok(()));
        assert_eq!(vmids.allocate(), Some(Grant::Reused(Vmid(1))));
        assert_eq!(vmids.allocate(), Some(Grant::Fresh(Vmid(3))));
    }

    #[test]
    fn what_nobody_has_is_not_taken_back() {
        let mut vmids = Vmids::new(VmidBits::Eight);
        let _ = vmids.allocate();
        assert_eq!(vmids.free(Vmid(0)), Err(NotGranted(Vmid(0))));
        assert_eq!(vmids.free(Vmid(2)), Err(NotGranted(Vmid(2))));
        assert_eq!(vmids.free(Vmid(1)), Ok(()));
        assert_eq!(vmids.free(Vmid(1)), Err(NotGranted(Vmid(1))));
    }
}
