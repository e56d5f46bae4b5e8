//! Devices of the host: whose registers are whose.
//!
//! Not here: which registers a device has (the board's tree says that), and mapping them ([`super::stage2`]).
//! A page is the least that stage 2 can map, so pages are what is owned.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::Owner;
use crate::addr::{Pa, Region};

/// Pages with registers, and who has them.
#[derive(Debug)]
struct Claim {
    pages: Region<Pa>,
    owner: Owner,
    name: String,
}

/// Keeps account of the pages with device registers that somebody has.
#[derive(Default, Debug)]
pub struct Devices {
    /// No two owners' overlap.
    claims: Vec<Claim>,
}

impl Devices {
    /// Makes an account in which nobody has anything.
    #[must_use]
    pub const fn new() -> Self {
        Self { claims: Vec::new() }
    }

    /// Gives the pages that `registers` touch to `owner`, who may have them already. `name` is what others are told.
    ///
    /// # Errors
    /// The owner, of some page of them, that is another one.
    pub fn claim(&mut self, registers: Region<Pa>, owner: Owner, name: &str) -> Result<(), Owner> {
        let pages = registers.pages();
        match self.claims.iter().find(|claim| claim.owner != owner && claim.pages.overlaps(&pages)) {
            Some(other) => Err(other.owner),
            None => {
                self.claims.push(Claim { pages, owner, name: name.to_owned() });
                Ok(())
            }
        }
    }

    /// Returns the name of an owner who has something, or nothing.
    #[must_use]
    pub fn name(&self, owner: Owner) -> &str {
        self.claims.iter().find(|claim| claim.owner == owner).map_or("", |claim| &claim.name)
    }

    /// Takes back everything that `owner` has.
    pub fn release_all(&mut self, owner: Owner) {
        self.claims.retain(|claim| claim.owner != owner);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::addr::PAGE_BYTES;
    use crate::ids::VmId;

    const PAGES: u64 = 12;
    const BASE: u64 = 0xfe20_0000;
    const NAMES: [&str; 3] = ["zero", "one", "two"];

    fn vm(number: u16) -> Owner {
        Owner::Vm(VmId(number))
    }

    fn region(start: u64, size_bytes: u64) -> Region<Pa> {
        Region::<Pa>::new(Pa::new(start), size_bytes).unwrap()
    }

    #[test]
    fn a_page_that_two_devices_share_is_one_owners() {
        let mut devices = Devices::new();
        // The auxiliary block of a BCM2711: enables, mini UART, two SPI masters.
        assert_eq!(devices.claim(region(0xfe21_5000, 8), vm(0), "zero"), Ok(()));
        assert_eq!(devices.claim(region(0xfe21_5040, 0x40), vm(1), "one"), Err(vm(0)));
        assert_eq!(devices.claim(region(0xfe21_5040, 0x40), vm(0), "zero"), Ok(()));
        assert_eq!(devices.name(vm(0)), "zero");
        devices.release_all(vm(0));
        assert_eq!(devices.name(vm(0)), "");
        assert_eq!(devices.claim(region(0xfe21_5040, 1), vm(1), "one"), Ok(()));
    }

    /// Somebody wants registers, or gives back all that he has.
    #[derive(Clone, Debug)]
    enum Step {
        Claim { vm: u16, offset: u64, bytes: u64 },
        Release(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let claim = (0..3_u16, 0..(PAGES - 2) * PAGE_BYTES, 1..2 * PAGE_BYTES);
        prop_oneof![
            4 => claim.prop_map(|(vm, offset, bytes)| Step::Claim { vm, offset, bytes }),
            1 => (0..3_u16).prop_map(Step::Release),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn no_page_has_two_owners_and_all_come_back(steps in prop::collection::vec(step(), 1..40)) {
            let mut devices = Devices::new();
            let mut owners: Vec<Option<u16>> = vec![None; usize::try_from(PAGES).unwrap()];
            for step in steps {
                match step {
                    Step::Claim { vm: number, offset, bytes } => {
                        let last = (offset + bytes - 1) / PAGE_BYTES;
                        let wanted = usize::try_from(offset / PAGE_BYTES).unwrap()..=usize::try_from(last).unwrap();
                        let free = owners[wanted.clone()].iter().all(|owner| owner.is_none_or(|owner| owner == number));
                        let name = NAMES[usize::from(number)];
                        let claimed = devices.claim(region(BASE + offset, bytes), vm(number), name);
                        prop_assert_eq!(claimed.is_ok(), free);
                        match claimed {
                            Ok(()) => owners[wanted].fill(Some(number)),
                            Err(owner) => prop_assert!(owners[wanted].iter().any(|page| page.map(vm) == Some(owner))),
                        }
                    }
                    Step::Release(number) => {
                        devices.release_all(vm(number));
                        owners.iter_mut().filter(|owner| **owner == Some(number)).for_each(|owner| *owner = None);
                    }
                }
                for number in 0..3 {
                    let name = if owners.contains(&Some(number)) { NAMES[usize::from(number)] } else { "" };
                    prop_assert_eq!(devices.name(vm(number)), name);
                }
            }
            (0..3).for_each(|number| devices.release_all(vm(number)));
            prop_assert_eq!(devices.claim(region(BASE, PAGES * PAGE_BYTES), Owner::Hypervisor, "the hypervisor"), Ok(()));
        }
    }
}
