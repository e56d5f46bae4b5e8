//! PSCI: which of a VM's vCPUs are on, and who may change that.
//!
//! Not here: starting, stopping or waking anything. [`Power::call`] says what happens next, and the
//! dispatcher takes it to the allocator. One [`Power`] per VM: its lock is what orders two vCPUs that start
//! the same third.
//! Follows Arm DEN 0022F (Power State Coordination Interface), version 1.1.
//!
//! ```text
//!            CPU_ON by another               take_start on the target's own CPU
//!   Off  ----------------------->  OnPending  ---------------------------------->  On
//!    ^                                                                             |
//!    +--------------------------------- CPU_OFF by itself -------------------------+
//! ```

use alloc::vec::Vec;

use super::{Error, Request, Start};
use crate::addr::{Ipa, Region};
use crate::ids::{Affinity, MAX_VCPUS, VcpuId};

/// Bits of target_cpu and target_affinity that name an affinity: all others must be zero.
const AFFINITY_BITS: u64 = 0xff_00ff_ffff;

const AFFINITY_ON: i64 = 0;
const AFFINITY_OFF: i64 = 1;
const AFFINITY_ON_PENDING: i64 = 2;

/// Says what happens to the caller, or to whom it concerns, after a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum PsciNext {
    /// The caller goes on with this in x0.
    Return(i64),
    /// The target's CPU is to be woken so that it does [`Power::take_start`]; the caller goes on with 0 in
    /// x0.
    TurnOn {
        /// The vCPU that now has a start pending.
        target: VcpuId,
    },
    /// The caller runs no more until [`Power::take_start`] gives it a start.
    TurnOff,
    /// The caller waits for an interrupt, masked or not, as WFI does, and then goes on with 0 in x0.
    Suspend,
    /// The whole VM ends.
    SystemOff,
    /// The whole VM starts again.
    SystemReset,
}

/// Tells why a VM's power state cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerError {
    /// The boot vCPU is not one of the VM's.
    UnknownBootVcpu(VcpuId),
    /// Two vCPUs have the same affinity, so CPU_ON could not tell them apart.
    SharedAffinity(Affinity),
    /// There are more vCPUs than [`MAX_VCPUS`].
    TooManyVcpus(usize),
}

/// Where a vCPU stands between off and on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It does not run and nobody has asked for it.
    Off,
    /// It was asked for and has not begun.
    OnPending(Start),
    /// It runs, or waits for an interrupt.
    On,
}

#[derive(Clone, Copy, Debug)]
struct Vcpu {
    affinity: Affinity,
    state: State,
}

/// Holds the power state of every vCPU of one VM.
#[derive(Clone, Debug)]
pub struct Power {
    vcpus: Vec<Vcpu>,
    boot_vcpu: VcpuId,
    boot_start: Start,
}

impl Power {
    /// Makes the power state of a VM whose vCPU number i has the i-th of `affinities`: all off but
    /// `boot_vcpu`, which has `boot_start` pending and takes it like any other.
    ///
    /// # Errors
    /// Names the affinity, vCPU or count that makes no sense.
    pub fn new(
        affinities: impl IntoIterator<Item = Affinity>,
        boot_vcpu: VcpuId,
        boot_start: Start,
    ) -> Result<Self, PowerError> {
        let mut vcpus: Vec<Vcpu> = Vec::new();
        for affinity in affinities {
            if vcpus.iter().any(|vcpu| vcpu.affinity == affinity) {
                return Err(PowerError::SharedAffinity(affinity));
            }
            vcpus.push(Vcpu { affinity, state: State::Off });
            if vcpus.len() > MAX_VCPUS {
                return Err(PowerError::TooManyVcpus(vcpus.len()));
            }
        }
        if vcpus.get(boot_vcpu.index()).is_none() {
            return Err(PowerError::UnknownBootVcpu(boot_vcpu));
        }
        let mut power = Self { vcpus, boot_vcpu, boot_start };
        power.reset();
        Ok(power)
    }

    /// Puts every vCPU back to where [`Power::new`] left it, once none of them runs any more.
    pub fn reset(&mut self) {
        for vcpu in &mut self.vcpus {
            vcpu.state = State::Off;
        }
        if let Some(boot) = self.vcpus.get_mut(self.boot_vcpu.index()) {
            boot.state = State::OnPending(self.boot_start);
        }
    }

    /// Answers `request` of the vCPU `caller` in a VM whose RAM is `ram`, and changes the state accordingly.
    pub fn call(&mut self, caller: VcpuId, request: Request, ram: &[Region<Ipa>]) -> PsciNext {
        // Only a vCPU that is on can have called: another one was turned off or reset behind its own back.
        if self.state(caller) != Some(State::On) {
            return PsciNext::Return(Error::InternalFailure.code());
        }
        let result = match request {
            Request::CpuSuspend { power_down } => Self::cpu_suspend(power_down, ram),
            Request::CpuOff => Ok(self.cpu_off(caller)),
            Request::CpuOn { target, start } => self.cpu_on(target, start, ram),
            Request::AffinityInfo { target, lowest_level } => self.affinity_info(target, lowest_level),
            Request::SystemOff => Ok(PsciNext::SystemOff),
            Request::SystemReset => Ok(PsciNext::SystemReset),
        };
        result.unwrap_or_else(|error| PsciNext::Return(error.code()))
    }

    /// Takes the start that is pending for `vcpu`, which is on from then; `None` when it has none.
    pub fn take_start(&mut self, vcpu: VcpuId) -> Option<Start> {
        let state = &mut self.vcpus.get_mut(vcpu.index())?.state;
        let State::OnPending(start) = *state else { return None };
        *state = State::On;
        Some(start)
    }

    /// Takes back a [`PsciNext::TurnOn`] that could not be carried out; the caller's x0 becomes what is
    /// returned.
    #[must_use]
    pub fn withdraw_start(&mut self, target: VcpuId) -> i64 {
        if let Some(vcpu) = self.vcpus.get_mut(target.index())
            && matches!(vcpu.state, State::OnPending(_))
        {
            vcpu.state = State::Off;
        }
        Error::InternalFailure.code()
    }

    /// Returns the state of `vcpu`; `None` when the VM has no such vCPU.
    #[must_use]
    pub fn state(&self, vcpu: VcpuId) -> Option<State> {
        self.vcpus.get(vcpu.index()).map(|vcpu| vcpu.state)
    }

    /// Tells whether every vCPU is off. Nothing can turn one on again then: such a VM has ended.
    #[must_use]
    pub fn is_all_off(&self) -> bool {
        self.vcpus.iter().all(|vcpu| vcpu.state == State::Off)
    }

    /// A power-down state may turn out as standby: the call then returns SUCCESS and keeps all registers, as
    /// it does when an interrupt was pending (Arm DEN 0022F, CPU_SUSPEND). What the caller got wrong is still
    /// an error.
    fn cpu_suspend(power_down: Option<Ipa>, ram: &[Region<Ipa>]) -> Result<PsciNext, Error> {
        if let Some(entry) = power_down {
            check_entry(entry, ram)?;
        }
        Ok(PsciNext::Suspend)
    }

    /// The last one may go as well: DENIED is for a Trusted OS that cannot leave (Arm DEN 0022F, CPU_OFF).
    fn cpu_off(&mut self, caller: VcpuId) -> PsciNext {
        if let Some(vcpu) = self.vcpus.get_mut(caller.index()) {
            vcpu.state = State::Off;
        }
        PsciNext::TurnOff
    }

    fn cpu_on(&mut self, target: u64, start: Start, ram: &[Region<Ipa>]) -> Result<PsciNext, Error> {
        let affinity = checked_affinity(target)?;
        let (number, vcpu) = (0_u8..)
            .zip(&mut self.vcpus)
            .find(|(_, vcpu)| vcpu.affinity.to_mpidr() == affinity)
            .ok_or(Error::InvalidParameters)?;
        check_entry(start.entry, ram)?;
        match vcpu.state {
            State::On => Err(Error::AlreadyOn),
            State::OnPending(_) => Err(Error::OnPending),
            State::Off => {
                vcpu.state = State::OnPending(start);
                Ok(PsciNext::TurnOn { target: VcpuId(number) })
            }
        }
    }

    /// A node is on if a vCPU below it is, off if all are, and pending otherwise (Arm DEN 0022F,
    /// AFFINITY_INFO).
    fn affinity_info(&self, target: u64, lowest_level: u32) -> Result<PsciNext, Error> {
        let mask = match lowest_level {
            0 => AFFINITY_BITS,
            1 => 0xff_00ff_ff00,
            2 => 0xff_00ff_0000,
            3 => 0xff_0000_0000,
            _ => return Err(Error::InvalidParameters),
        };
        let node = checked_affinity(target)? & mask;
        self.vcpus
            .iter()
            .filter(|vcpu| vcpu.affinity.to_mpidr() & mask == node)
            .map(|vcpu| vcpu.state)
            .max_by_key(wakefulness)
            .map(|state| PsciNext::Return(affinity_state(state)))
            .ok_or(Error::InvalidParameters)
    }
}

/// Orders states so that the greatest below a node is the node's.
const fn wakefulness(state: &State) -> u8 {
    match state {
        State::Off => 0,
        State::OnPending(_) => 1,
        State::On => 2,
    }
}

const fn affinity_state(state: State) -> i64 {
    match state {
        State::On => AFFINITY_ON,
        State::Off => AFFINITY_OFF,
        State::OnPending(_) => AFFINITY_ON_PENDING,
    }
}

/// Refuses bits that no affinity has.
const fn checked_affinity(target: u64) -> Result<u64, Error> {
    if target & !AFFINITY_BITS == 0 { Ok(target) } else { Err(Error::InvalidParameters) }
}

/// Refuses an entry point at which the guest has no A64 instruction.
fn check_entry(entry: Ipa, ram: &[Region<Ipa>]) -> Result<(), Error> {
    if entry.is_aligned(4) && ram.iter().any(|region| region.contains(entry)) {
        Ok(())
    } else {
        Err(Error::InvalidAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAM_START: u64 = 0x4000_0000;
    const RAM_BYTES: u64 = 0x1000_0000;
    const BOOT: VcpuId = VcpuId(0);
    const ENTRY: Ipa = Ipa::new(RAM_START + 0x8_0000);
    const START: Start = Start { entry: ENTRY, context: 0x1234 };

    fn ram() -> [Region<Ipa>; 2] {
        [
            Region::<Ipa>::new(Ipa::new(RAM_START), RAM_BYTES).unwrap(),
            Region::<Ipa>::new(Ipa::new(0x80_0000_0000), 0x1000).unwrap(),
        ]
    }

    /// Two clusters of two vCPUs.
    fn affinities() -> Vec<Affinity> {
        [0x000, 0x001, 0x100, 0x101].map(Affinity::from_mpidr).to_vec()
    }

    /// A VM whose vCPU 0 runs.
    fn booted() -> Power {
        let mut power = Power::new(affinities(), BOOT, START).unwrap();
        assert_eq!(power.take_start(BOOT), Some(START));
        power
    }

    fn cpu_on(target: u64) -> Request {
        Request::CpuOn { target, start: START }
    }

    fn affinity_info(target: u64, lowest_level: u32) -> Request {
        Request::AffinityInfo { target, lowest_level }
    }

    fn refused(error: Error) -> PsciNext {
        PsciNext::Return(error.code())
    }

    #[test]
    fn a_new_vm_has_one_start_pending_and_nothing_on() {
        let mut power = Power::new(affinities(), VcpuId(2), START).unwrap();
        assert_eq!(power.state(VcpuId(2)), Some(State::OnPending(START)));
        for other in [0, 1, 3].map(VcpuId) {
            assert_eq!(power.state(other), Some(State::Off));
            assert_eq!(power.take_start(other), None);
        }
        assert_eq!(power.state(VcpuId(4)), None);
        assert!(!power.is_all_off());
    }

    #[test]
    fn a_vm_that_makes_no_sense_is_named() {
        let unknown = Power::new(affinities(), VcpuId(4), START).map(|_| ());
        assert_eq!(unknown, Err(PowerError::UnknownBootVcpu(VcpuId(4))));
        let shared = Power::new([Affinity::default(); 2], BOOT, START).map(|_| ());
        assert_eq!(shared, Err(PowerError::SharedAffinity(Affinity::default())));
        let many = (0..=64).map(Affinity::from_mpidr);
        assert_eq!(Power::new(many, BOOT, START).map(|_| ()), Err(PowerError::TooManyVcpus(65)));
        assert!(Power::new((0..64).map(Affinity::from_mpidr), BOOT, START).is_ok());
        assert_eq!(Power::new([], BOOT, START).map(|_| ()), Err(PowerError::UnknownBootVcpu(BOOT)));
    }

    #[test]
    fn cpu_on_hands_entry_and_context_to_the_target_once() {
        let mut power = booted();
        let start = Start { entry: Ipa::new(RAM_START), context: u64::MAX };
        let request = Request::CpuOn { target: 0x101, start };
        assert_eq!(power.call(BOOT, request, &ram()), PsciNext::TurnOn { target: VcpuId(3) });
        assert_eq!(power.state(VcpuId(3)), Some(State::OnPending(start)));
        assert_eq!(power.take_start(VcpuId(3)), Some(start));
        assert_eq!(power.state(VcpuId(3)), Some(State::On));
        assert_eq!(power.take_start(VcpuId(3)), None);
    }

    #[test]
    fn the_second_of_two_cpu_on_is_told_that_the_first_is_pending() {
        let mut power = booted();
        let _ = power.call(BOOT, cpu_on(1), &ram());
        let _ = power.take_start(VcpuId(1));
        assert_eq!(power.call(BOOT, cpu_on(0x100), &ram()), PsciNext::TurnOn { target: VcpuId(2) });
        let late = Request::CpuOn { target: 0x100, start: Start { context: 9, ..START } };
        assert_eq!(power.call(VcpuId(1), late, &ram()), refused(Error::OnPending));
        assert_eq!(power.take_start(VcpuId(2)), Some(START));
        assert_eq!(power.call(VcpuId(1), late, &ram()), refused(Error::AlreadyOn));
    }

    #[test]
    fn cpu_on_of_oneself_is_already_on() {
        assert_eq!(booted().call(BOOT, cpu_on(0), &ram()), refused(Error::AlreadyOn));
    }

    #[test]
    fn a_target_that_is_no_vcpu_is_an_invalid_parameter() {
        let reserved = (24..32).chain(40..64).map(|bit| 1 << bit | 1);
        for target in [2, 0x200, 0x1_0001, 0x1_0000_0001].into_iter().chain(reserved) {
            let mut power = booted();
            assert_eq!(
                power.call(BOOT, cpu_on(target), &ram()),
                refused(Error::InvalidParameters),
                "{target:#x}"
            );
            assert_eq!(
                power.call(BOOT, affinity_info(target, 0), &ram()),
                refused(Error::InvalidParameters),
                "{target:#x}"
            );
            assert_eq!(power.state(VcpuId(1)), Some(State::Off));
        }
    }

    #[test]
    fn an_entry_outside_ram_or_unaligned_is_an_invalid_address() {
        for entry in [0, RAM_START - 4, RAM_START + RAM_BYTES, RAM_START + 1, RAM_START + 2, u64::MAX] {
            let mut power = booted();
            let start = Start { entry: Ipa::new(entry), context: 0 };
            let on = power.call(BOOT, Request::CpuOn { target: 1, start }, &ram());
            assert_eq!(on, refused(Error::InvalidAddress), "{entry:#x}");
            assert_eq!(power.state(VcpuId(1)), Some(State::Off));
            let suspend = Request::CpuSuspend { power_down: Some(start.entry) };
            assert_eq!(power.call(BOOT, suspend, &ram()), refused(Error::InvalidAddress), "{entry:#x}");
        }
        let last = Start { entry: Ipa::new(0x80_0000_0ffc), context: 0 };
        let on = booted().call(BOOT, Request::CpuOn { target: 1, start: last }, &ram());
        assert_eq!(on, PsciNext::TurnOn { target: VcpuId(1) });
    }

    #[test]
    fn suspend_waits_and_leaves_the_caller_on() {
        let mut power = booted();
        for power_down in [None, Some(ENTRY)] {
            assert_eq!(power.call(BOOT, Request::CpuSuspend { power_down }, &ram()), PsciNext::Suspend);
            assert_eq!(power.state(BOOT), Some(State::On));
        }
    }

    #[test]
    fn a_vcpu_that_went_off_can_be_turned_on_again() {
        let mut power = booted();
        let _ = power.call(BOOT, cpu_on(1), &ram());
        let _ = power.take_start(VcpuId(1));
        assert_eq!(power.call(VcpuId(1), Request::CpuOff, &ram()), PsciNext::TurnOff);
        assert_eq!(power.call(BOOT, affinity_info(1, 0), &ram()), PsciNext::Return(1));
        assert_eq!(power.take_start(VcpuId(1)), None);
        assert_eq!(power.call(BOOT, cpu_on(1), &ram()), PsciNext::TurnOn { target: VcpuId(1) });
        assert_eq!(power.take_start(VcpuId(1)), Some(START));
    }

    #[test]
    fn the_last_vcpu_may_go_off_and_the_vm_has_ended() {
        let mut power = booted();
        assert_eq!(power.call(BOOT, Request::CpuOff, &ram()), PsciNext::TurnOff);
        assert!(power.is_all_off());
    }

    #[test]
    fn affinity_info_tells_on_off_and_pending() {
        let mut power = booted();
        assert_eq!(power.call(BOOT, affinity_info(0, 0), &ram()), PsciNext::Return(0));
        assert_eq!(power.call(BOOT, affinity_info(1, 0), &ram()), PsciNext::Return(1));
        let _ = power.call(BOOT, cpu_on(1), &ram());
        assert_eq!(power.call(BOOT, affinity_info(1, 0), &ram()), PsciNext::Return(2));
    }

    #[test]
    fn a_cluster_is_as_awake_as_its_most_awake_vcpu() {
        let mut power = booted();
        // The Aff0 of the target is ignored at level 1, and everything up to Aff2 at level 3.
        assert_eq!(power.call(BOOT, affinity_info(0x1ff, 1), &ram()), PsciNext::Return(1));
        let _ = power.call(BOOT, cpu_on(0x101), &ram());
        assert_eq!(power.call(BOOT, affinity_info(0x100, 1), &ram()), PsciNext::Return(2));
        let _ = power.take_start(VcpuId(3));
        let _ = power.call(BOOT, cpu_on(0x100), &ram());
        assert_eq!(power.call(BOOT, affinity_info(0x100, 1), &ram()), PsciNext::Return(0));
        assert_eq!(power.call(BOOT, affinity_info(0xffff, 2), &ram()), PsciNext::Return(0));
        assert_eq!(power.call(BOOT, affinity_info(0xff_ffff, 3), &ram()), PsciNext::Return(0));
        for (target, level) in [(0x200, 1), (0x1_0000, 2), (0x1_0000_0000, 3), (0, 4), (0, u32::MAX)] {
            let answer = power.call(BOOT, affinity_info(target, level), &ram());
            assert_eq!(answer, refused(Error::InvalidParameters), "{target:#x} level {level}");
        }
    }

    #[test]
    fn system_calls_end_or_restart_the_vm() {
        let mut power = booted();
        assert_eq!(power.call(BOOT, Request::SystemOff, &ram()), PsciNext::SystemOff);
        let _ = power.call(BOOT, cpu_on(1), &ram());
        let _ = power.take_start(VcpuId(1));
        assert_eq!(power.call(VcpuId(1), Request::SystemReset, &ram()), PsciNext::SystemReset);
        power.reset();
        assert_eq!(power.state(BOOT), Some(State::OnPending(START)));
        assert_eq!(power.state(VcpuId(1)), Some(State::Off));
    }

    #[test]
    fn a_start_that_failed_leaves_the_target_off() {
        let mut power = booted();
        let _ = power.call(BOOT, cpu_on(1), &ram());
        assert_eq!(power.withdraw_start(VcpuId(1)), -6);
        assert_eq!(power.state(VcpuId(1)), Some(State::Off));
        assert_eq!(power.withdraw_start(BOOT), -6);
        assert_eq!(power.state(BOOT), Some(State::On));
    }

    #[test]
    fn a_vcpu_that_is_not_on_changes_nothing() {
        let mut power = booted();
        for caller in [1, 4, u8::MAX].map(VcpuId) {
            for request in [cpu_on(1), Request::CpuOff, Request::SystemOff] {
                assert_eq!(power.call(caller, request, &ram()), refused(Error::InternalFailure));
            }
        }
        assert_eq!(power.state(VcpuId(1)), Some(State::Off));
    }

    #[test]
    fn error_codes_are_those_of_the_standard() {
        let codes = [
            Error::NotSupported,
            Error::InvalidParameters,
            Error::Denied,
            Error::AlreadyOn,
            Error::OnPending,
            Error::InternalFailure,
            Error::InvalidAddress,
        ]
        .map(Error::code);
        assert_eq!(codes, [-1, -2, -3, -4, -5, -6, -9]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Call(u8, Request),
        TakeStart(u8),
    }

    fn request() -> impl Strategy<Value = Request> {
        let target = prop_oneof![4 => prop::sample::select(vec![0_u64, 1, 0x100, 0x101]), 1 => any::<u64>()];
        let entry = prop_oneof![4 => Just(ENTRY), 1 => any::<u64>().prop_map(Ipa::new)];
        prop_oneof![
            4 => (target.clone(), entry.clone(), any::<u64>()).prop_map(|(target, entry, context)| {
                Request::CpuOn { target, start: Start { entry, context } }
            }),
            2 => Just(Request::CpuOff),
            1 => prop::option::of(entry).prop_map(|power_down| Request::CpuSuspend { power_down }),
            1 => (target, 0_u32..6)
                .prop_map(|(target, lowest_level)| Request::AffinityInfo { target, lowest_level }),
            1 => Just(Request::SystemOff),
            1 => Just(Request::SystemReset),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u8..5, request()).prop_map(|(caller, request)| Step::Call(caller, request)),
            2 => (0_u8..5).prop_map(Step::TakeStart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn each_start_is_taken_once_and_only_what_is_on_acts(steps in prop::collection::vec(step(), 0..48)) {
            let mut power = booted();
            // The model: who runs, and the start that each of the others waits with.
            let mut model = [State::On, State::Off, State::Off, State::Off];
            for step in steps {
                match step {
                    Step::TakeStart(number) => {
                        let start = power.take_start(VcpuId(number));
                        let known = model.get_mut(usize::from(number));
                        let expected = match known.as_deref() {
                            Some(State::OnPending(start)) => Some(*start),
                            _ => None,
                        };
                        prop_assert_eq!(start, expected);
                        if let (Some(_), Some(state)) = (start, known) {
                            *state = State::On;
                        }
                    }
                    Step::Call(number, request) => {
                        let next = power.call(VcpuId(number), request, &ram());
                        if model.get(usize::from(number)) != Some(&State::On) {
                            prop_assert_eq!(next, refused(Error::InternalFailure));
                            continue;
                        }
                        match (request, next) {
                            (Request::CpuOn { start, .. }, PsciNext::TurnOn { target }) => {
                                prop_assert_eq!(model[target.index()], State::Off);
                                model[target.index()] = State::OnPending(start);
                            }
                            (Request::CpuOff, next) => {
                                prop_assert_eq!(next, PsciNext::TurnOff);
                                model[usize::from(number)] = State::Off;
                            }
                            (_, PsciNext::Return(value)) => prop_assert!((-9..=2).contains(&value)),
                            (Request::CpuSuspend { .. }, PsciNext::Suspend)
                            | (Request::SystemOff, PsciNext::SystemOff)
                            | (Request::SystemReset, PsciNext::SystemReset) => {}
                            (request, next) => prop_assert!(false, "{:?} led to {:?}", request, next),
                        }
                    }
                }
                for (number, expected) in (0..4).map(VcpuId).zip(model) {
                    prop_assert_eq!(power.state(number), Some(expected));
                }
                prop_assert_eq!(power.is_all_off(), model.iter().all(|state| *state == State::Off));
            }
        }
    }
}
