//! A bank: 32 interrupts, one bit each in every word, as the registers have them.
//!
//! Not here: to whom an interrupt goes, and anything that differs between the versions of the GIC.
//! Follows Arm IHI 0069H, 4.1 (interrupt states) and Arm IHI 0048B.b, 3.2.4, which agree.

use super::list_registers::{ListRegister, State};
use super::registers::{Access, Register, from_odd_bits, to_odd_bits};
use crate::ids::{IntId, VcpuId};

/// Which groups GICD_CTLR lets through, as words for masking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Groups {
    zero: u32,
    one: u32,
}

impl Groups {
    /// Takes GICD_CTLR.EnableGrp0 and EnableGrp1 (bits 0 and 1 in both versions).
    pub fn from_control(control: u64) -> Self {
        let word = |bit: u64| if control & bit != 0 { u32::MAX } else { 0 };
        Self { zero: word(1), one: word(2) }
    }

    /// Returns bits 0 and 1 of GICD_CTLR.
    pub fn to_control(self) -> u64 {
        u64::from(self.zero & 1 | self.one & 2)
    }
}

/// Writes that reached interrupts while these were in list registers; they take effect when the
/// list registers come back, on top of what the CPU interface did.
#[derive(Clone, Copy, Default, Debug)]
struct Posted {
    clear_pending: u32,
    clear_active: u32,
    set_active: u32,
}

/// The state of 32 interrupts.
#[derive(Clone, Debug, Default)]
pub(super) struct Bank {
    /// ISENABLER.
    pub enabled: u32,
    /// Pending by an edge, an SGI or ISPENDR.
    pub latch: u32,
    /// Level of the input line.
    pub line: u32,
    /// ISACTIVER; as last seen for what is in list registers.
    pub active: u32,
    /// IGROUPR.
    pub group: u32,
    /// Edge-triggered: the odd bits of ICFGR.
    pub edge: u32,
    /// Each stands for a physical interrupt.
    pub backed: u32,
    /// Of those: whose line was up when the hardware was last asked. Only for the guest to read.
    sampled: u32,
    /// Of the backed SPIs: those that the physical GIC lets through, as far as the machine was told.
    pub heard: u32,
    /// Physical interrupts that the machine is to deactivate, as their virtual one is given up.
    pub released: u32,
    /// In the list registers of some vCPU.
    pub resident: u32,
    /// Of the resident ones: those whose latch went along.
    lent: u32,
    posted: Posted,
    /// IPRIORITYR.
    pub priority: [u8; 32],
}

impl Bank {
    /// Returns ISPENDR: latch or line, wherever the interrupt is.
    pub fn pending(&self) -> u32 {
        self.waiting() | self.lent & !self.posted.clear_pending
    }

    /// Returns ISACTIVER, as far as is known of interrupts in list registers.
    pub fn active(&self) -> u32 {
        self.active & !self.posted.clear_active | self.posted.set_active
    }

    /// Returns what is pending here, not in a list register.
    fn waiting(&self) -> u32 {
        self.latch | self.line & !self.edge
    }

    /// Returns what is enabled, in a group that is enabled.
    pub fn forwarded(&self, groups: Groups) -> u32 {
        self.enabled & (groups.one & self.group | groups.zero & !self.group)
    }

    /// Returns what is pending, forwarded and not active: what a CPU interface is shown.
    pub fn signalled(&self, groups: Groups) -> u32 {
        self.waiting() & self.forwarded(groups) & !self.active & !self.resident
    }

    /// Returns what could be acknowledged if it is not in the list registers of another vCPU.
    pub fn wakes(&self, groups: Groups) -> u32 {
        self.pending() & self.forwarded(groups) & !self.active()
    }

    /// Tells whether no interrupt wants a list register that it does not have.
    pub fn is_idle(&self, groups: Groups) -> bool {
        (self.waiting() & self.forwarded(groups) | self.active) & !self.resident == 0
    }

    /// Returns the interrupts for which a change of any setting can change a plan.
    fn concerned(&self) -> u32 {
        self.latch | self.line | self.active | self.resident | self.backed
    }

    /// Reads a register array.
    pub fn read(&self, access: Access) -> u32 {
        match access.register {
            Register::Group => self.group,
            Register::SetEnable | Register::ClearEnable => self.enabled,
            Register::SetPending | Register::ClearPending => self.pending() | self.sampled & self.backed,
            Register::SetActive | Register::ClearActive => self.active(),
            Register::Priority => {
                let bytes =
                    self.priority.get(access.lane()..access.lane() + access.bytes()).unwrap_or_default();
                bytes.iter().rev().fold(0, |word, priority| word << 8 | u32::from(*priority))
            }
            Register::Configuration => to_odd_bits(self.edge >> (access.lane() & 16)),
            _ => 0,
        }
    }

    /// Writes a register array; returns the interrupts that list registers may now have to treat otherwise.
    pub fn write(&mut self, access: Access, value: u32) -> u32 {
        let concerned = self.concerned();
        let changed = match access.register {
            Register::Group => replace(&mut self.group, value),
            Register::SetEnable => {
                let enabled = self.enabled | value;
                replace(&mut self.enabled, enabled)
            }
            Register::ClearEnable => {
                let enabled = self.enabled & !value;
                replace(&mut self.enabled, enabled)
            }
            Register::SetPending => {
                let latch = self.latch | value;
                replace(&mut self.latch, latch)
            }
            Register::ClearPending => self.clear_pending(value),
            Register::SetActive => self.activate(value),
            Register::ClearActive => self.deactivate(value),
            Register::Priority => self.write_priorities(access, value),
            Register::Configuration if access.bank() == 0 && access.lane() == 0 => 0, // SGIs are what they are
            Register::Configuration => {
                let half = 0xffff << (access.lane() & 16);
                let edge = self.edge & !half | from_odd_bits(value) << (access.lane() & 16);
                replace(&mut self.edge, edge)
            }
            _ => 0,
        };
        changed & (concerned | self.concerned())
    }

    fn write_priorities(&mut self, access: Access, value: u32) -> u32 {
        let Some(priorities) = self.priority.get_mut(access.lane()..access.lane() + access.bytes()) else {
            return 0;
        };
        let mut changed = 0;
        let mut bit = 1_u32 << (access.lane() & 31);
        for (priority, byte) in priorities.iter_mut().zip(value.to_le_bytes()) {
            changed |= if *priority == byte { 0 } else { bit };
            *priority = byte;
            bit <<= 1;
        }
        changed
    }

    /// Drops the latches of `bits`, here and in list registers; returns those that had one.
    pub fn clear_pending(&mut self, bits: u32) -> u32 {
        let lent = bits & self.lent;
        let latched = bits & self.latch;
        self.latch &= !latched;
        self.posted.clear_pending |= lent;
        // The physical interrupt stays active until the guest ends it, which it now never will.
        self.released |= latched & self.backed & !self.active & !self.resident;
        lent | latched
    }

    /// Makes `bits` active (ISACTIVER).
    fn activate(&mut self, bits: u32) -> u32 {
        let before = self.active();
        self.active |= bits & !self.resident;
        self.posted.set_active |= bits & self.resident;
        self.posted.clear_active &= !bits;
        self.active() ^ before
    }

    /// Makes `bits` inactive (ICACTIVER, a trapped DIR); returns those that may have been active.
    pub fn deactivate(&mut self, bits: u32) -> u32 {
        let here = bits & self.active & !self.resident;
        let away = bits & self.resident;
        self.active &= !here;
        self.released |= here & self.backed;
        self.posted.clear_active |= away;
        self.posted.set_active &= !away;
        here | away
    }

    /// Sets the level of the line of one interrupt; returns it if a plan may now differ.
    pub fn set_line(&mut self, bit: u32, level: bool) -> u32 {
        if self.backed & bit != 0 {
            // The hardware samples the line: all that arrives here is that it has fired, or that it no longer wants to.
            return if level { replace_bits(&mut self.latch, bit) } else { self.clear_pending(bit) };
        }
        if (self.line & bit != 0) == level {
            return 0;
        }
        self.line ^= bit;
        match (self.edge & bit != 0, level) {
            (true, true) => replace_bits(&mut self.latch, bit),
            (true, false) => 0,
            (false, _) => bit,
        }
    }

    /// Takes in the state of the physical interrupt behind `bit`; returns it if a plan may now differ.
    pub fn sample(&mut self, bit: u32, physical: State) -> u32 {
        self.sampled = self.sampled & !bit | if physical.is_pending() { bit } else { 0 };
        // Pending here, active there, and no longer wanted: it fired and went. What software made pending is not
        // active there, and stays.
        let gone = physical == State::Active && self.backed & !self.active() & bit != 0;
        if gone { self.clear_pending(bit) } else { 0 }
    }

    /// Returns the physical interrupts that wait although the guest does not listen to them.
    pub fn unheard(&self, groups: Groups) -> u32 {
        self.latch & self.backed & !self.forwarded(groups)
    }

    /// Gives those up: they come again when it does.
    pub fn release_unheard(&mut self, groups: Groups) {
        self.clear_pending(self.unheard(groups));
    }

    /// Gives those SPIs up whose level comes again; an edge does not. Says whether there is something for the machine.
    pub fn release_unheard_levels(&mut self, groups: Groups) -> bool {
        self.clear_pending(self.unheard(groups) & !self.edge);
        self.released | self.unlike(groups) != 0
    }

    /// Returns the physical interrupts that are let through and not to be, or the other way round.
    fn unlike(&self, groups: Groups) -> u32 {
        self.heard ^ self.forwarded(groups) & self.backed
    }

    /// Takes one of them: its number, and whether it is to be let through.
    pub fn take_unlike(&mut self, groups: Groups) -> Option<(u32, bool)> {
        let lane = bits_of(self.unlike(groups)).next()?;
        self.heard ^= 1 << lane;
        Some((lane, self.heard >> lane & 1 != 0))
    }

    /// Gives up every physical interrupt and forgets the rest (reset); the wiring stays, and what is let through until
    /// the machine is told otherwise.
    pub fn reset(&mut self, enabled: u32, edge: u32) {
        let held = self.backed & (self.latch | self.lent | self.active | self.resident);
        let released = self.released | held;
        *self = Self { enabled, edge, backed: self.backed, heard: self.heard, released, ..Self::default() };
    }

    /// Hands interrupt `lane` to a list register, its pending state only if it is in `deliverable`.
    #[inline]
    pub fn lend(&mut self, lane: u32, groups: Groups, deliverable: u32) -> ListRegister {
        let bit = 1_u32 << (lane & 31);
        let active = self.active & bit != 0;
        let backed = self.backed & bit != 0;
        // Of a physical interrupt the GIC itself keeps what is pending while it is active (IHI 0069H, 4.6.5).
        let pending = self.waiting() & self.forwarded(groups) & deliverable & bit != 0 && !(active && backed);
        if pending {
            self.lent |= self.latch & bit;
            self.latch &= !bit;
        }
        self.resident |= bit;
        ListRegister {
            virtual_id: IntId(lane),
            physical: None,
            state: State::new(pending, active),
            priority: self.priority_of(lane),
            group1: self.group & bit != 0,
            // What is still waiting, a line that is high for one, is looked at again after this one ends.
            eoi_maintenance: !backed && self.waiting() & self.enabled & bit != 0,
            source: VcpuId(0),
        }
    }

    /// Takes interrupt `bit` back from a list register that was left in `state`, after [`Bank::settle`]; returns
    /// whether the latch that went along comes back.
    #[inline]
    pub fn take_back(&mut self, bit: u32, state: State) -> bool {
        let returned = if state.is_pending() { self.lent & bit } else { 0 };
        self.latch |= returned;
        self.active = self.active & !bit | if state.is_active() { bit } else { 0 };
        self.lent &= !bit;
        self.resident &= !bit;
        returned != 0
    }

    /// Makes the backed interrupt `bit` pending once more in the list register that it was ended in; `false` if it has none,
    /// is not all that the bank wants to show, or is not shown any more. Nothing has changed then.
    #[inline]
    pub fn renew(&mut self, bit: u32, groups: Groups) -> bool {
        let forwarded = self.forwarded(groups);
        let others = (self.waiting() & forwarded | self.active | self.released | self.unheard(groups)) & !bit;
        let is_plain = self.latch & bit == 0 && !self.has_posted(bit); // nothing was written of it meanwhile
        if self.resident != bit || forwarded & self.backed & bit == 0 || others != 0 || !is_plain {
            return false;
        }
        self.active &= !bit;
        self.lent |= bit;
        true
    }

    /// Tells whether writes to `bit` wait for it to come back.
    #[inline]
    pub fn has_posted(&self, bit: u32) -> bool {
        let posted = &self.posted;
        (posted.clear_pending | posted.clear_active | posted.set_active) & bit != 0
    }

    /// Applies writes that interrupt `bit` missed to the state in which its list register was left.
    pub fn settle(&mut self, bit: u32, state: State) -> State {
        if self.resident & bit == 0 || !self.has_posted(bit) {
            return state;
        }
        let Posted { clear_pending, clear_active, set_active } = self.posted;
        self.posted.clear_pending &= !bit;
        self.posted.clear_active &= !bit;
        self.posted.set_active &= !bit;
        let dropped = state.is_pending() && self.lent & clear_pending & bit != 0;
        let active = (state.is_active() && clear_active & bit == 0) || set_active & bit != 0;
        if dropped || state.is_active() && !active {
            self.released |= bit & self.backed;
        }
        State::new(state.is_pending() && !dropped, active)
    }

    /// Tells whether the latch of `bit` is in a list register, and is to come back from there.
    pub fn is_lent(&self, bit: u32) -> bool {
        self.lent & !self.posted.clear_pending & bit != 0
    }

    /// Returns the state in which `bit` was lent.
    pub fn lent_state(&self, bit: u32) -> State {
        State::new(self.lent & bit != 0, self.active & bit != 0)
    }

    /// Returns the priority of interrupt `lane`.
    pub fn priority_of(&self, lane: u32) -> u8 {
        usize::try_from(lane & 31).ok().and_then(|lane| self.priority.get(lane)).copied().unwrap_or(0)
    }
}

/// Stores `value`; returns the bits that changed.
fn replace(word: &mut u32, value: u32) -> u32 {
    let changed = *word ^ value;
    *word = value;
    changed
}

/// Sets `bits`; returns those that were not set.
fn replace_bits(word: &mut u32, bits: u32) -> u32 {
    let changed = bits & !*word;
    *word |= bits;
    changed
}

/// Lists the numbers of the bits set in a word, lowest first.
pub(super) fn bits_of(word: u32) -> impl Iterator<Item = u32> {
    core::iter::successors((word != 0).then_some(word), |word| {
        let rest = word & word.wrapping_sub(1);
        (rest != 0).then_some(rest)
    })
    .map(u32::trailing_zeros)
}
