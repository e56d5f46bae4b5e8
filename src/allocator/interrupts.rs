//! Physical interrupts: which of them the hypervisor keeps, and which belong to a VM.
//!
//! Not here: the virtual interrupts a VM sees (the vGIC's), and enabling anything in the real GIC (the
//! machine's). A private interrupt (SGI or PPI) has one owner on all CPUs.
//! Follows Arm IHI 0069H, 2.2 (INTIDs).

use alloc::boxed::Box;
use alloc::vec;

use super::Owner;
use crate::ids::IntId;

/// Number of INTIDs from SGI 0 to the last SPI (Arm IHI 0069H, 2.2); 1020 to 1023 are special.
const MAX_INTIDS: usize = 1020;

/// Says why an interrupt did not change hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptError {
    /// The machine has no such interrupt.
    NoSuchInterrupt(IntId),
    /// Somebody else has it.
    OwnedBy(IntId, Owner),
    /// Nobody has it.
    NotOwned(IntId),
}

/// Keeps account of who owns each SGI, PPI and SPI of the machine.
#[derive(Debug)]
pub struct Interrupts {
    owners: Box<[Option<Owner>]>,
}

impl Interrupts {
    /// Makes an account of INTIDs below `intids`, as many as GICD_TYPER.ITLinesNumber tells, that nobody
    /// owns yet.
    #[must_use]
    pub fn new(intids: u32) -> Self {
        let count = usize::try_from(intids).unwrap_or(MAX_INTIDS).min(MAX_INTIDS);
        Self { owners: vec![None; count].into_boxed_slice() }
    }

    /// Returns who owns `intid`; `None` if nobody does or there is no such interrupt. Takes constant time.
    #[must_use]
    pub fn owner(&self, intid: IntId) -> Option<Owner> {
        self.owners.get(usize::try_from(intid.0).ok()?).copied().flatten()
    }

    /// Gives `intid` to `owner`.
    ///
    /// # Errors
    /// [`InterruptError::OwnedBy`] names the present owner, which may be the same one;
    /// [`InterruptError::NoSuchInterrupt`].
    pub fn claim(&mut self, intid: IntId, owner: Owner) -> Result<(), InterruptError> {
        match self.slot(intid)? {
            Some(present) => Err(InterruptError::OwnedBy(intid, *present)),
            free => {
                *free = Some(owner);
                Ok(())
            }
        }
    }

    /// Takes `intid` back from `owner`.
    ///
    /// # Errors
    /// [`InterruptError::OwnedBy`] names the present owner if it is another one;
    /// [`InterruptError::NotOwned`], [`InterruptError::NoSuchInterrupt`].
    pub fn release(&mut self, intid: IntId, owner: Owner) -> Result<(), InterruptError> {
        let slot = self.slot(intid)?;
        match *slot {
            Some(present) if present == owner => {
                *slot = None;
                Ok(())
            }
            Some(present) => Err(InterruptError::OwnedBy(intid, present)),
            None => Err(InterruptError::NotOwned(intid)),
        }
    }

    /// Lists what `owner` has, lowest first.
    pub fn owned_by(&self, owner: Owner) -> impl Iterator<Item = IntId> {
        (0..).zip(self.owners.iter()).filter(move |(_, slot)| **slot == Some(owner)).map(|(n, _)| IntId(n))
    }

    /// Takes back everything that `owner` has.
    pub fn release_all(&mut self, owner: Owner) {
        self.owners.iter_mut().filter(|slot| **slot == Some(owner)).for_each(|slot| *slot = None);
    }

    fn slot(&mut self, intid: IntId) -> Result<&mut Option<Owner>, InterruptError> {
        let index = usize::try_from(intid.0).ok();
        let slot = index.and_then(|index| self.owners.get_mut(index));
        slot.ok_or(InterruptError::NoSuchInterrupt(intid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VmId;

    const TIMER: IntId = IntId(27);
    const UART: IntId = IntId(33);
    const FIRST: Owner = Owner::Vm(VmId(0));
    const SECOND: Owner = Owner::Vm(VmId(1));

    #[test]
    fn a_refused_claim_names_the_present_owner() {
        let mut interrupts = Interrupts::new(288);
        assert_eq!(interrupts.claim(TIMER, Owner::Hypervisor), Ok(()));
        assert_eq!(interrupts.claim(TIMER, FIRST), Err(InterruptError::OwnedBy(TIMER, Owner::Hypervisor)));
        assert_eq!(interrupts.claim(UART, FIRST), Ok(()));
        assert_eq!(interrupts.claim(UART, FIRST), Err(InterruptError::OwnedBy(UART, FIRST)));
        assert_eq!(interrupts.owner(UART), Some(FIRST));
    }

    #[test]
    fn only_the_owner_can_release() {
        let mut interrupts = Interrupts::new(288);
        interrupts.claim(UART, FIRST).unwrap();
        assert_eq!(interrupts.release(UART, SECOND), Err(InterruptError::OwnedBy(UART, FIRST)));
        assert_eq!(interrupts.release(UART, FIRST), Ok(()));
        assert_eq!(interrupts.release(UART, FIRST), Err(InterruptError::NotOwned(UART)));
        assert_eq!(interrupts.claim(UART, SECOND), Ok(()));
    }

    #[test]
    fn release_all_leaves_the_others_theirs() {
        let mut interrupts = Interrupts::new(288);
        for (number, owner) in [(32, FIRST), (34, SECOND), (36, FIRST)] {
            interrupts.claim(IntId(number), owner).unwrap();
        }
        assert!(interrupts.owned_by(FIRST).eq([IntId(32), IntId(36)]));
        interrupts.release_all(FIRST);
        assert_eq!(interrupts.owned_by(FIRST).count(), 0);
        assert_eq!(interrupts.owner(IntId(34)), Some(SECOND));
    }

    #[test]
    fn what_the_machine_has_not_has_no_owner() {
        let mut interrupts = Interrupts::new(u32::MAX);
        for number in [1020, 1023, 8192, u32::MAX] {
            let none = IntId(number);
            assert_eq!(interrupts.claim(none, FIRST), Err(InterruptError::NoSuchInterrupt(none)));
            assert_eq!(interrupts.owner(none), None);
        }
        assert_eq!(interrupts.claim(IntId(1019), FIRST), Ok(()));
    }
}
