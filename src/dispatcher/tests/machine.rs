//! A scripted physical CPU: notes what the monitor asks of it, and plays the guest's CPU interface on its list
//! registers.
//!
//! Not here: the guest (`bench`).
//! Follows Arm IHI 0069H, 12.4 and Arm IHI 0048B.b, 5.3 (list registers).

use std::collections::{BTreeMap, VecDeque};

use super::bench::{KERNEL_VA, RAM};
use crate::addr::{GuestVa, Ipa, Pa};
use crate::dispatcher::traps::Grants;
use crate::ids::{IntId, PcpuId, Ticks, VcpuId, VmId};
use crate::interpreter::device::Width;
use crate::interpreter::device::vgic::{
    GicVersion, ListRegister, ListRegisters, State, decode_v2, decode_v3, encode_v2, encode_v3,
};
use crate::interpreter::inject::{El1, Entry, Features};
use crate::interpreter::translation::{Attempt, Stages};
use crate::interpreter::walk::Stage1;
use crate::interpreter::watchpoint::{MAX_WATCHPOINTS, Watchpoints};
use crate::machine::Machine;
use crate::vcpu::Vcpu;
use crate::vm::{Place, Post};
use instructions::Vectors;

/// What the monitor asked of the CPU, but for its list registers and questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Wrote the EL1 registers of an exception.
    EnterEl1(Entry),
    /// Made an SError pending.
    VirtualSError,
    /// Let a physical interrupt through, or not.
    LetThrough(IntId, bool),
    /// Made a physical interrupt inactive.
    Deactivate(IntId),
    /// Interrupted another CPU.
    Kick(PcpuId),
    /// Let a vCPU begin.
    TurnOn(VcpuId),
    /// Loaded SIMD&FP registers.
    FloatingPoint,
    /// Set EL2's timer.
    Deadline(Option<Ticks>),
    /// Sent a character.
    Transmit(u8),
    /// Let the console interrupt, or not.
    Listen(bool),
    /// Cleaned and invalidated a set and way.
    SetWay(u64),
    /// Dropped the guest's TLB entries.
    InvalidateTlb,
    /// Gave registers away.
    Grant {
        /// All that the vCPU has.
        all: Grants,
        /// What it got now.
        new: Grants,
    },
    /// Stopped the virtual timer and the performance monitors.
    PowerDown,
}

/// A CPU with registers for the script to set.
pub struct Scripted {
    /// What the monitor did, in order.
    pub calls: Vec<Call>,
    /// The system counter.
    pub now: u64,
    /// CPACR_EL1.
    pub cpacr_el1: u64,
    /// SCTLR_EL1.
    pub sctlr_el1: u64,
    /// TCR_EL1.
    pub tcr_el1: u64,
    /// TTBR0_EL1 and TTBR1_EL1.
    pub ttbr_el1: [u64; 2],
    /// VBAR_EL1.
    pub vbar_el1: u64,
    /// The guest's EOImode.
    pub splits: bool,
    /// The state of physical interrupts; those that are not named are idle.
    pub physical: Vec<(IntId, State)>,
    /// MDSCR_EL1.
    pub mdscr_el1: u64,
    /// DBGWVR0_EL1 and DBGWCR0_EL1.
    pub watchpoint: (u64, u64),
    /// What waits in the console.
    pub input: VecDeque<u8>,
    /// Physical interrupts that the guest's deactivations made inactive.
    pub ended: Vec<IntId>,
    /// What the list registers hold.
    pub lists: Vec<ListRegister>,
    /// The bytes of the guest's RAM that are not 0, where its stage 2 has them: at their IPA.
    pub ram: BTreeMap<u64, u8>,
    /// Virtual pages that stage 1 does not map as [`Scripted::translate`] says, with their PAR_EL1.
    pub pages: BTreeMap<u64, u64>,
    /// SP_EL0 and SP_EL1.
    pub stack_pointers: [u64; 2],
    /// V0 to V31.
    pub vectors: Vectors,
    /// How addresses were translated.
    pub attempts: Vec<Attempt>,
    features: Features,
    version: GicVersion,
    count: u8,
    controls: Controls,
    eoi_count: u8,
}

/// The maintenance interrupts that are asked for (ICH_HCR_EL2).
#[derive(Clone, Copy, Default)]
struct Controls {
    no_pending: bool,
    not_present: bool,
}

impl Scripted {
    pub fn new(version: GicVersion, count: u8) -> Self {
        Self {
            calls: vec![],
            now: 1000,
            cpacr_el1: 3 << 20,
            sctlr_el1: 0,
            tcr_el1: 0,
            ttbr_el1: [0; 2],
            vbar_el1: 0x4008_0800,
            splits: false,
            physical: vec![],
            mdscr_el1: 0,
            watchpoint: (0, 0),
            input: VecDeque::new(),
            ended: vec![],
            lists: vec![],
            ram: BTreeMap::new(),
            pages: BTreeMap::new(),
            stack_pointers: [0; 2],
            vectors: Vectors([0; 512]),
            attempts: vec![],
            features: Features::default(),
            version,
            count,
            controls: Controls::default(),
            eoi_count: 0,
        }
    }

    /// Takes the calls so far.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// Lists the INTIDs that are pending in list registers.
    pub fn pending(&self) -> Vec<u32> {
        self.lists.iter().filter(|entry| entry.state.is_pending()).map(|entry| entry.virtual_id.0).collect()
    }

    /// Acknowledges the best pending interrupt, as a read of ICC_IAR1_EL1 does.
    pub fn acknowledge(&mut self) -> Option<IntId> {
        let pending = self.lists.iter_mut().filter(|entry| entry.state == State::Pending);
        let entry = pending.min_by_key(|entry| (entry.priority, entry.virtual_id))?;
        entry.state = State::Active;
        Some(entry.virtual_id)
    }

    /// Ends an interrupt: a write of ICC_EOIR1_EL1. With EOImode 1 that deactivates nothing, but one without a list register
    /// is counted all the same, as QEMU does it.
    pub fn end(&mut self, intid: IntId) {
        let entry = self.lists.iter_mut().find(|entry| entry.virtual_id == intid && entry.state.is_active());
        let Some(entry) = entry else {
            self.eoi_count += 1;
            return;
        };
        if self.splits {
            return;
        }
        entry.state = State::new(entry.state.is_pending(), false);
        self.ended.extend(entry.physical);
    }

    /// Tells whether the list registers raise a maintenance interrupt, as far as tests need it.
    pub fn wants_maintenance(&self) -> bool {
        let pending = self.lists.iter().any(|entry| entry.state == State::Pending);
        self.controls.no_pending && !pending || self.controls.not_present && self.eoi_count != 0
    }

    /// Empties the list registers behind the monitor's back, as a CPU does that starts.
    pub fn reset_virtual(&mut self) {
        self.lists.clear();
        self.eoi_count = 0;
        self.controls = Controls::default();
    }

    /// Takes an entry to the hardware's format and back.
    fn through_hardware(&self, entry: &ListRegister) -> ListRegister {
        match self.version {
            GicVersion::V2 => decode_v2(encode_v2(entry)),
            GicVersion::V3 => decode_v3(encode_v3(entry)),
        }
    }

    /// Says what the architecture leaves UNPREDICTABLE (Arm IHI 0069H, 12.4.6).
    fn check(&self) {
        for (index, entry) in self.lists.iter().enumerate() {
            let twins =
                self.lists.iter().skip(index + 1).filter(|other| other.virtual_id == entry.virtual_id);
            assert_eq!(twins.count(), 0, "two list registers hold {:?}", entry.virtual_id);
            let both = entry.physical.is_some() && entry.state == State::PendingActive;
            assert!(!both, "a physical interrupt is pending and active: {:?}", entry.virtual_id);
        }
    }
}

impl Machine for Scripted {
    fn now(&self) -> Ticks {
        Ticks(self.now)
    }

    fn el1(&self, pc: u64, pstate: u64) -> El1 {
        El1 { pc, pstate, sctlr_el1: self.sctlr_el1, vbar_el1: self.vbar_el1, exlocken: false }
    }

    fn cpacr_el1(&self) -> u64 {
        self.cpacr_el1
    }

    fn sctlr_el1(&self) -> u64 {
        self.sctlr_el1
    }

    fn features(&self) -> &Features {
        &self.features
    }

    fn enter_el1(&mut self, entry: &Entry) {
        self.calls.push(Call::EnterEl1(*entry));
    }

    fn raise_virtual_serror(&mut self) {
        self.calls.push(Call::VirtualSError);
    }

    fn save_lists(&mut self, lists: &mut ListRegisters) {
        for (entry, slot) in self.lists.iter().zip(&mut lists.entries) {
            *slot = *entry;
        }
        if lists.not_present_maintenance {
            lists.eoi_count = std::mem::take(&mut self.eoi_count);
        }
    }

    fn save_first(&self, lists: &mut ListRegisters) {
        lists.entries[0] = self.lists[0];
    }

    fn load_first(&mut self, lists: &ListRegisters) {
        assert!(!self.lists[0].state.is_pending());
        self.lists[0] = self.through_hardware(&lists.entries[0]);
        self.check();
    }

    fn load_lists(&mut self, lists: &ListRegisters) {
        assert!(lists.used <= self.count);
        self.lists = lists.in_use().map(|entry| self.through_hardware(entry)).collect();
        self.controls =
            Controls { no_pending: lists.no_pending_maintenance, not_present: lists.not_present_maintenance };
        self.check();
    }

    fn let_through(&mut self, physical: IntId, on: bool) {
        self.calls.push(Call::LetThrough(physical, on));
    }

    fn mdscr_el1(&self) -> u64 {
        self.mdscr_el1
    }

    fn watchpoints(&self) -> Watchpoints {
        let mut pairs = [(0, 0); MAX_WATCHPOINTS];
        pairs[0] = self.watchpoint;
        Watchpoints { is_locked: false, pairs }
    }

    fn physical_state(&self, physical: IntId) -> State {
        self.physical.iter().find(|(intid, _)| *intid == physical).map_or(State::Invalid, |(_, state)| *state)
    }

    fn splits_deactivation(&self) -> bool {
        self.splits
    }

    fn deactivate(&mut self, intid: IntId) {
        self.calls.push(Call::Deactivate(intid));
    }

    fn summon(&mut self, post: &Post) {
        if let Place::At(pcpu, _) = post.place() {
            self.calls.push(Call::Kick(pcpu));
        }
    }

    fn turn_on(&mut self, _: VmId, vcpu: VcpuId) {
        self.calls.push(Call::TurnOn(vcpu));
    }

    fn give_floating_point(&mut self, vcpu: &mut Vcpu) {
        vcpu.has_floating_point = true;
        self.calls.push(Call::FloatingPoint);
    }

    fn set_deadline(&mut self, deadline: Option<Ticks>) {
        self.calls.push(Call::Deadline(deadline));
    }

    fn transmit(&mut self, _: VmId, byte: u8) {
        self.calls.push(Call::Transmit(byte));
    }

    fn receive(&mut self, _: VmId) -> Option<u8> {
        self.input.pop_front()
    }

    fn listen(&mut self, on: bool) {
        self.calls.push(Call::Listen(on));
    }

    fn clean_invalidate_set_way(&mut self, operand: u64) {
        self.calls.push(Call::SetWay(operand));
    }

    fn invalidate_guest_tlb(&mut self) {
        self.calls.push(Call::InvalidateTlb);
    }

    fn grant(&mut self, all: Grants, new: Grants) {
        self.calls.push(Call::Grant { all, new });
    }

    fn power_down(&mut self) {
        self.calls.push(Call::PowerDown);
    }

    /// Stage 1 takes the bits of [`KERNEL_VA`] off, and says that what is not RAM is Device memory; stage 2 has RAM where it is.
    fn translate(&mut self, address: GuestVa, stages: Stages, attempt: Attempt) -> u64 {
        const DEVICE: u64 = 0x04 << 56;
        const NORMAL: u64 = 0xff << 56;
        const TRANSLATION_FAULT: u64 = 0xa01 | 0x07 << 1;
        if stages == Stages::First {
            self.attempts.push(attempt);
        }
        let page = address.get() & !0xfff;
        let ipa = page & !KERNEL_VA;
        let own = if is_ram(ipa) { ipa | NORMAL } else { ipa | DEVICE };
        let first = self.pages.get(&page).copied().unwrap_or(own);
        let is_mapped = first & 1 != 0 || is_ram(first & 0xffff_ffff_f000);
        if stages == Stages::First || is_mapped { first } else { TRANSLATION_FAULT }
    }

    fn stage1(&self) -> Stage1 {
        Stage1 { tcr_el1: self.tcr_el1, ttbr_el1: self.ttbr_el1, sctlr_el1: self.sctlr_el1 }
    }

    fn stage2(&self, ipa: Ipa) -> Option<Pa> {
        is_ram(ipa.get()).then(|| Pa::new(ipa.get()))
    }

    fn access_ram(&mut self, owner: VmId, at: Pa, width: Width, write: Option<u64>) -> Option<u64> {
        assert_eq!(owner, VmId(7));
        assert!(at.is_aligned(width.bytes()));
        if !is_ram(at.get()) {
            return None;
        }
        let addresses = at.get()..at.get() + width.bytes();
        if let Some(value) = write {
            self.ram.extend(addresses.clone().zip(value.to_le_bytes()));
        }
        let byte = |address| u64::from(self.ram.get(&address).copied().unwrap_or(0));
        Some(addresses.rev().fold(0, |value, address| value << 8 | byte(address)))
    }

    fn stack_pointer(&self, el1: bool) -> u64 {
        self.stack_pointers[usize::from(el1)]
    }

    fn set_stack_pointer(&mut self, el1: bool, value: u64) {
        self.stack_pointers[usize::from(el1)] = value;
    }

    fn vectors(&self) -> Vectors {
        self.vectors.clone()
    }

    fn set_vectors(&mut self, vectors: &Vectors) {
        self.vectors = vectors.clone();
    }

    fn zero_block_bytes(&self) -> u64 {
        64
    }
}

fn is_ram(address: u64) -> bool {
    (RAM..RAM + 0x1000_0000).contains(&address)
}
