//! VMIDs: the tags by which the TLB tells the VMs' translations apart.
//!
//! Not here: the invalidation itself, which is the machine's.
//!
//! There may be more VMs than VMIDs. A VM has one for a *generation*: when all are given out, the next generation begins
//! with empty TLBs, and every VM gets a new one when it is next entered. Those that run at that moment keep theirs. So
//! nothing is given back: the VMID of a VM that has ended, or was reset, is not given out again before the TLBs are empty.
//! Follows Arm ARM DDI 0487K.a, D8.16 (TLB maintenance) and D23.2 (VTCR_EL2.VS, VTTBR_EL2.VMID).

use alloc::vec;
use alloc::vec::Vec;

use crate::ids::{PcpuId, Vmid};

/// Number of bits of a VMID on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmidBits {
    /// 8 bits: 255 VMs of one generation.
    Eight,
    /// 16 bits, FEAT_VMID16: 65535.
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

/// A VMID with its generation; of a VM that has none yet, generation 0.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tag(u64);

impl Tag {
    /// No VMID.
    pub const NONE: Self = Self(0);
    const VMID_BITS: u32 = 16;

    const fn new(generation: u64, vmid: u16) -> Self {
        let [low, high] = vmid.to_le_bytes();
        Self(generation << Self::VMID_BITS | u64::from_le_bytes([low, high, 0, 0, 0, 0, 0, 0]))
    }

    /// Makes a tag of the word that [`Self::word`] returned.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Returns it as a word.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Returns the VMID.
    #[must_use]
    pub const fn vmid(self) -> Vmid {
        let [low, high, ..] = self.0.to_le_bytes();
        Vmid(u16::from_le_bytes([low, high]))
    }

    const fn generation(self) -> u64 {
        self.0 >> Self::VMID_BITS
    }
}

/// Says what is to be done before the first entry with a VMID.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Before {
    /// Nothing: no VM has had it since the TLBs were empty.
    Nothing,
    /// A generation begins: invalidate the TLBs of all CPUs, stage 1 and 2 of every VMID (TLBI ALLE1IS).
    InvalidateAll,
}

/// Keeps account of VMIDs. 0 is never given out: it is what VTTBR_EL2 holds where no VM runs.
#[derive(Debug)]
pub struct Vmids {
    last: u16,
    generation: u64,
    /// Highest VMID that was given out in this generation, but for those that were kept.
    given: u16,
    /// What each CPU runs.
    running: Vec<Tag>,
    /// What ran when this generation began: these VMs have their VMIDs in this one, too.
    kept: Vec<Tag>,
}

impl Vmids {
    /// Makes an account for a machine with that many CPUs, whose TLBs are empty.
    #[must_use]
    pub fn new(bits: VmidBits, cpus: usize) -> Self {
        Self {
            last: bits.last(),
            generation: 1,
            given: 0,
            running: vec![Tag::NONE; cpus],
            kept: Vec::with_capacity(cpus),
        }
    }

    /// Sees to it that a VM that a CPU is about to run has a VMID of this generation, in `tag`.
    #[inline]
    pub fn enter(&mut self, pcpu: PcpuId, tag: &mut Tag) -> Before {
        let mut before = Before::Nothing;
        if tag.generation() != self.generation {
            before = self.renew(pcpu, tag);
        }
        self.run(pcpu, *tag);
        before
    }

    fn run(&mut self, pcpu: PcpuId, tag: Tag) {
        if let Some(running) = self.running.get_mut(pcpu.index()) {
            *running = tag;
        }
    }

    #[cold]
    fn renew(&mut self, pcpu: PcpuId, tag: &mut Tag) -> Before {
        if *tag != Tag::NONE && self.kept.contains(tag) {
            *tag = Tag::new(self.generation, tag.vmid().0);
            return Before::Nothing;
        }
        if let Some(vmid) = self.next() {
            *tag = Tag::new(self.generation, vmid);
            return Before::Nothing;
        }
        self.run(pcpu, Tag::NONE); // what ran here last runs no more
        self.generation += 1;
        self.given = 0;
        self.kept.clear();
        self.kept.extend(self.running.iter().filter(|running| **running != Tag::NONE));
        // There are more VMIDs than CPUs.
        *tag = Tag::new(self.generation, self.next().unwrap_or(0));
        Before::InvalidateAll
    }

    fn next(&mut self) -> Option<u16> {
        loop {
            self.given = self.given.checked_add(1).filter(|vmid| *vmid <= self.last)?;
            if !self.kept.iter().any(|kept| kept.vmid().0 == self.given) {
                return Some(self.given);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CPU: PcpuId = PcpuId(0);

    #[test]
    fn zero_is_never_given_out_and_all_others_are_once() {
        let mut vmids = Vmids::new(VmidBits::Eight, 1);
        for expected in 1..=255 {
            let mut tag = Tag::NONE;
            assert_eq!(vmids.enter(CPU, &mut tag), Before::Nothing);
            assert_eq!(tag.vmid(), Vmid(expected));
        }
        let mut tag = Tag::NONE;
        assert_eq!(vmids.enter(CPU, &mut tag), Before::InvalidateAll);
        assert_eq!(tag.vmid(), Vmid(1));
    }

    #[test]
    fn the_last_of_sixteen_bits_is_given_out_and_does_not_wrap() {
        let mut vmids = Vmids { given: 65534, ..Vmids::new(VmidBits::from_id(0b0010), 1) };
        let (mut last, mut next) = (Tag::NONE, Tag::NONE);
        assert_eq!(vmids.enter(CPU, &mut last), Before::Nothing);
        assert_eq!(last.vmid(), Vmid(65535));
        assert_eq!(vmids.enter(CPU, &mut next), Before::InvalidateAll);
    }

    #[test]
    fn a_vm_keeps_its_vmid_from_entry_to_entry() {
        let mut vmids = Vmids::new(VmidBits::from_id(0), 1);
        let (mut one, mut two) = (Tag::NONE, Tag::NONE);
        for _ in 0..3 {
            let _ = vmids.enter(CPU, &mut one);
            let _ = vmids.enter(CPU, &mut two);
            assert_eq!((one.vmid(), two.vmid()), (Vmid(1), Vmid(2)));
        }
    }

    #[test]
    fn what_runs_when_a_generation_begins_keeps_its_vmid() {
        let mut vmids = Vmids::new(VmidBits::Eight, 2);
        let mut resident = Tag::NONE;
        let _ = vmids.enter(PcpuId(1), &mut resident);
        for _ in 0..254 {
            let _ = vmids.enter(CPU, &mut Tag::NONE.clone());
        }
        let mut next = Tag::NONE;
        assert_eq!(vmids.enter(CPU, &mut next), Before::InvalidateAll);
        assert_ne!(next.vmid(), resident.vmid());
        assert_eq!(vmids.enter(PcpuId(1), &mut resident), Before::Nothing);
        assert_eq!(resident.vmid(), Vmid(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        /// Each CPU's TLB is a set of (VMID, VM) pairs: two VMs never meet under one VMID.
        #[test]
        fn no_tlb_ever_has_two_vms_under_one_vmid(entries in prop::collection::vec((0..3_u8, 0..12_usize, 0..8_u8), 0..400)) {
            let mut vmids = Vmids { last: 6, ..Vmids::new(VmidBits::Eight, 3) };
            let mut tags = [Tag::NONE; 12];
            let mut tlbs: Vec<(u8, Vmid, usize, u32)> = vec![];
            let mut lives = [0_u32; 12];
            for (pcpu, vm, kind) in entries {
                match kind {
                    1 => {
                        // A reset, or another VM in its place: nobody runs it, and its translations are void.
                        if !vmids.running.contains(&tags[vm]) {
                            tags[vm] = Tag::NONE;
                            lives[vm] += 1;
                        }
                    }
                    _ => {
                        if vmids.enter(PcpuId(pcpu), &mut tags[vm]) == Before::InvalidateAll {
                            tlbs.clear();
                            // What runs elsewhere goes on filling its TLB.
                            for (other, running) in (0..).zip(&vmids.running) {
                                if other != pcpu && *running != Tag::NONE
                                    && let Some(at) = tags.iter().position(|tag| tag.vmid() == running.vmid() && tag.generation() >= running.generation())
                                {
                                    tlbs.push((other, running.vmid(), at, lives[at]));
                                }
                            }
                        }
                        prop_assert_ne!(tags[vm].vmid(), Vmid(0));
                        tlbs.push((pcpu, tags[vm].vmid(), vm, lives[vm]));
                    }
                }
                for (cpu, vmid, vm, life) in &tlbs {
                    let clash = tlbs.iter().any(|other| (other.0, other.1) == (*cpu, *vmid) && (other.2, other.3) != (*vm, *life));
                    prop_assert!(!clash, "{:?}", tlbs);
                }
            }
        }
    }
}
