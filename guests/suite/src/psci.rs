//! PSCI and the SMC Calling Convention: every function there is to ask for, what each refuses, and how CPUs start.
//!
//! Follows Arm DEN 0022F (PSCI), Arm DEN 0028E (SMCCC) and Arm DEN 0057A (paravirtualized time).

use crate::harness::{Outcome, Test, check, check_eq, skip_if, tests};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::cpu::{self, Cpu};
use trapeze_kit::exception::catch;
use trapeze_kit::gic::Gic;
use trapeze_kit::mmu::{self, Attributes, Granule};
use trapeze_kit::psci::{Conduit, call, function, psci, status};
use trapeze_kit::timer::{self, ENABLE, Timer};
use trapeze_kit::{ins, mrs, smp};

pub const TESTS: &[Test] = tests![
    version,
    features_names_what_is_there,
    features_denies_what_is_not,
    unknown_functions_are_not_supported,
    unused_registers_stay,
    smc_answers_as_hvc_or_is_undefined,
    hvc_number_is_no_function,
    migrate_info_type,
    affinity_info_of_this_cpu,
    affinity_info_of_the_others,
    affinity_info_refuses_what_is_not_there,
    affinity_info_of_higher_levels,
    cpu_on_of_itself_is_already_on,
    cpu_on_of_a_running_cpu_is_already_on,
    cpu_on_refuses_what_is_not_there,
    cpu_on_gives_the_reset_state,
    cpu_on_keeps_all_of_the_context,
    cpu_on_32,
    cpu_on_twice_at_once_starts_one,
    cpu_off_and_on_again,
    upper_halves_of_32_bit_calls,
    cpu_suspend_wakes_by_an_interrupt,
    cpu_suspend_with_one_pending_returns,
    smccc_version_if_there,
    paravirtualized_time_if_there,
    stolen_time_if_there,
];

fn version() -> Outcome {
    let version = psci(function::VERSION, 0, 0, 0);
    check!((0x2..0x2_0000).contains(&version), "PSCI_VERSION {version:#x}");
    let with_junk = psci(function::VERSION, u64::MAX, u64::MAX, u64::MAX);
    check_eq!(with_junk, version);
    Ok(())
}

fn features_names_what_is_there() -> Outcome {
    skip_if!(psci(function::VERSION, 0, 0, 0) < 0x1_0000, "PSCI below 1.0");
    for function in [
        function::VERSION,
        function::CPU_OFF,
        function::CPU_ON_32,
        function::CPU_ON_64,
        function::AFFINITY_INFO_32,
        function::AFFINITY_INFO_64,
        function::SYSTEM_OFF,
        function::SYSTEM_RESET,
        function::FEATURES,
    ] {
        check_eq!(psci(function::FEATURES, function, 0, 0), 0, "{function:#x}");
    }
    for function in [function::CPU_SUSPEND_32, function::CPU_SUSPEND_64] {
        let flags = psci(function::FEATURES, function, 0, 0);
        check!((0..4).contains(&flags), "{function:#x}: {flags:#x}");
    }
    Ok(())
}

fn features_denies_what_is_not() -> Outcome {
    skip_if!(psci(function::VERSION, 0, 0, 0) < 0x1_0000, "PSCI below 1.0");
    for function in
        [0, 0x8400_001f, 0xc400_001f, 0x8400_00ff, 0x8200_0000, 0xffff_ffff, 0xc400_0002, 0xc400_0008]
    {
        check_eq!(psci(function::FEATURES, function, 0, 0), status::NOT_SUPPORTED, "{function:#x}");
    }
    Ok(())
}

fn unknown_functions_are_not_supported() -> Outcome {
    for function in
        [0x8400_001f, 0xc400_001f, 0x8400_0100, 0x8200_0000, 0xc200_0001, 0x8600_ff01, 0xb200_0000]
    {
        check_eq!(psci(function, 1, 2, 3), status::NOT_SUPPORTED, "{function:#x}");
    }
    Ok(())
}

fn unused_registers_stay() -> Outcome {
    let given = [function::VERSION, 11, 12, 13, 14, 15, 16, 17];
    let seen = call(Conduit::Hvc, given);
    check_eq!(&seen[4..], &given[4..], "X4 to X7");
    Ok(())
}

fn smc_answers_as_hvc_or_is_undefined() -> Outcome {
    for function in [function::VERSION, 0x8400_001f] {
        let by_hvc = call(Conduit::Hvc, [function, 0, 0, 0, 0, 0, 0, 0])[0];
        match catch(|| call(Conduit::Smc, [function, 0, 0, 0, 0, 0, 0, 0])[0]) {
            Ok(by_smc) => check_eq!(by_smc, by_hvc, "{function:#x}"),
            Err(exception) => check!(exception.is_undefined(), "{exception:x?}"),
        }
    }
    Ok(())
}

fn hvc_number_is_no_function() -> Outcome {
    let mut x0: u64;
    // SAFETY: a call changes X0 to X17 at most.
    unsafe {
        x0 = function::VERSION;
        core::arch::asm!("hvc #0xffff", inout("x0") x0, in("x1") 0, in("x2") 0, in("x3") 0, clobber_abi("C"));
    }
    let version = psci(function::VERSION, 0, 0, 0).cast_unsigned();
    let refused = status::NOT_SUPPORTED.cast_unsigned();
    check!(x0 == version || x0 == refused, "HVC #0xffff: X0 {x0:#x}");
    Ok(())
}

fn migrate_info_type() -> Outcome {
    let kind = psci(function::MIGRATE_INFO_TYPE, 0, 0, 0);
    check!(kind == 2 || kind == status::NOT_SUPPORTED, "nothing here would have to be migrated: {kind}");
    Ok(())
}

fn affinity_info_of_this_cpu() -> Outcome {
    for function in [function::AFFINITY_INFO_32, function::AFFINITY_INFO_64] {
        check_eq!(psci(function, cpu::affinity(), 0, 0), 0, "ON");
    }
    Ok(())
}

static GO: AtomicU64 = AtomicU64::new(0);

/// Says that it runs, and stays until it may go.
fn stay(_: u64) {
    GO.store(1, SeqCst);
    timer::within_ms(5000, || GO.load(SeqCst) == 2);
}

/// Starts CPU 1 and waits until it runs; it stays until `GO` is 2.
fn start_one() -> Outcome {
    GO.store(0, SeqCst);
    check_eq!(smp::start(1, stay, 0), 0);
    check!(timer::within_ms(5000, || GO.load(SeqCst) == 1));
    Ok(())
}

fn affinity_info_of_the_others() -> Outcome {
    let cpus = smp::present();
    skip_if!(cpus == 1, "one CPU");
    for cpu in 1..cpus as u64 {
        check_eq!(psci(function::AFFINITY_INFO_64, cpu, 0, 0), 1, "OFF");
    }
    start_one()?;
    check_eq!(psci(function::AFFINITY_INFO_64, 1, 0, 0), 0, "ON");
    GO.store(2, SeqCst);
    check!(smp::wait_off(1));
    check_eq!(psci(function::AFFINITY_INFO_64, 1, 0, 0), 1, "OFF");
    Ok(())
}

fn affinity_info_refuses_what_is_not_there() -> Outcome {
    for target in [7777, 0xff, 0x100, 0x1_0000, 1 << 32, u64::MAX] {
        let seen = psci(function::AFFINITY_INFO_64, target, 0, 0);
        check!(matches!(seen, status::INVALID_PARAMETERS | status::NOT_PRESENT), "{target:#x}: {seen}");
    }
    Ok(())
}

fn affinity_info_of_higher_levels() -> Outcome {
    for level in [1, 2, 3] {
        let seen = psci(function::AFFINITY_INFO_64, 0, level, 0);
        check!(matches!(seen, 0 | status::INVALID_PARAMETERS), "level {level}: {seen}, but this CPU is on");
    }
    let seen = psci(function::AFFINITY_INFO_64, 0, 4, 0);
    check!(matches!(seen, 0 | status::INVALID_PARAMETERS), "level 4: {seen}");
    Ok(())
}

fn cpu_on_of_itself_is_already_on() -> Outcome {
    for function in [function::CPU_ON_32, function::CPU_ON_64] {
        check_eq!(psci(function, cpu::affinity(), smp::entry(), 0), status::ALREADY_ON);
    }
    Ok(())
}

fn cpu_on_of_a_running_cpu_is_already_on() -> Outcome {
    skip_if!(smp::present() == 1, "one CPU");
    start_one()?;
    check_eq!(psci(function::CPU_ON_64, 1, smp::entry(), 1), status::ALREADY_ON);
    GO.store(2, SeqCst);
    check!(smp::wait_off(1));
    Ok(())
}

fn cpu_on_refuses_what_is_not_there() -> Outcome {
    for target in [smp::present() as u64, 0xff, 0x100, 0x1_0000, 1 << 32, 1 << 24 | 1, u64::MAX] {
        let seen = psci(function::CPU_ON_64, target, smp::entry(), 0);
        check_eq!(seen, status::INVALID_PARAMETERS, "{target:#x}");
    }
    Ok(())
}

static STATE: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Notes what a CPU starts with that start.s does not set itself.
fn note_state(_: u64) {
    STATE[0].store(mrs!("CNTV_CTL_EL0") & 1, SeqCst);
    STATE[1].store(mrs!("CNTP_CTL_EL0") & 1, SeqCst);
    STATE[2].store(mrs!("CurrentEL"), SeqCst);
    STATE[3].store(mrs!("SPSel"), SeqCst);
}

fn cpu_on_gives_the_reset_state() -> Outcome {
    skip_if!(smp::present() == 1, "one CPU");
    for _ in 0..3 {
        check_eq!(smp::start(1, note_state, 0), 0);
        check!(smp::wait_off(1));
        let cpu = Cpu::of(1);
        check_eq!(cpu.entry_el.load(SeqCst), 4, "CurrentEL");
        check_eq!(cpu.entry_daif.load(SeqCst), 0x3c0, "DAIF");
        check_eq!(cpu.entry_sctlr.load(SeqCst) & 0x1005, 0, "MMU and caches are off");
        check_eq!(cpu.entry_sctlr.load(SeqCst) >> 25 & 1, 0, "little-endian");
        check!(cpu.started_as_reset(1));
        check_eq!(STATE[0].load(SeqCst), 0, "virtual timer");
        check_eq!(STATE[1].load(SeqCst), 0, "physical timer");
    }
    Ok(())
}

fn nothing(_: u64) {}

fn cpu_on_keeps_all_of_the_context() -> Outcome {
    skip_if!(smp::present() == 1, "one CPU");
    for context in [0xfedc_ba98_7654_3211, 0x8000_0000_0000_0001, 0xffff_ffff_ffff_fff9] {
        smp::prepare(1, nothing, 0);
        check_eq!(psci(function::CPU_ON_64, 1, smp::entry(), context), 0);
        check!(smp::wait_off(1));
        check_eq!(Cpu::of(1).entry_x0.load(SeqCst), context);
    }
    Ok(())
}

fn cpu_on_32() -> Outcome {
    skip_if!(smp::present() == 1, "one CPU");
    skip_if!(smp::entry() >> 32 != 0, "the image is above 4 GiB");
    smp::prepare(1, nothing, 0);
    check_eq!(psci(function::CPU_ON_32, 1, smp::entry(), 0x8765_4321), 0);
    check!(smp::wait_off(1));
    check_eq!(Cpu::of(1).entry_x0.load(SeqCst), 0x8765_4321);
    Ok(())
}

static ANSWERS: [AtomicU64; cpu::MAX_CPUS] = [const { AtomicU64::new(0) }; cpu::MAX_CPUS];
static STARTED: AtomicU64 = AtomicU64::new(0);

fn count_start(_: u64) {
    STARTED.fetch_add(1, SeqCst);
    timer::within_ms(5000, || GO.load(SeqCst) == 2);
}

/// Waits for the others and starts CPU 1.
fn start_first(slot: u64) {
    STARTED.fetch_add(0x100, SeqCst);
    timer::within_ms(5000, || STARTED.load(SeqCst) >> 8 == 2);
    let answer = psci(function::CPU_ON_64, 1, smp::entry(), 1);
    ANSWERS[slot as usize].store(answer.cast_unsigned(), SeqCst);
}

fn cpu_on_twice_at_once_starts_one() -> Outcome {
    skip_if!(smp::present() < 4, "fewer than four CPUs");
    for _ in 0..10 {
        STARTED.store(0, SeqCst);
        GO.store(0, SeqCst);
        smp::prepare(1, count_start, 0);
        check_eq!(smp::start(2, start_first, 2), 0);
        check_eq!(smp::start(3, start_first, 3), 0);
        check!(smp::wait_off(2) && smp::wait_off(3));
        check!(timer::within_ms(5000, || STARTED.load(SeqCst) & 0xff != 0));
        GO.store(2, SeqCst);
        check!(smp::wait_off(1));
        let answers = [2, 3].map(|slot: usize| ANSWERS[slot].load(SeqCst).cast_signed());
        let refused = |answer| matches!(answer, status::ALREADY_ON | status::ON_PENDING);
        check!(answers.contains(&0), "{answers:?}");
        check!(answers.iter().all(|answer| *answer == 0 || refused(*answer)), "{answers:?}");
        // QEMU may tell both that they have started it.
        check!(STARTED.load(SeqCst) & 0xff >= 1);
    }
    Ok(())
}

fn cpu_off_and_on_again() -> Outcome {
    skip_if!(smp::present() == 1, "one CPU");
    GO.store(2, SeqCst);
    STARTED.store(0, SeqCst);
    for _ in 0..100 {
        check_eq!(smp::start(1, count_start, 0), 0);
        check!(smp::wait_off(1));
    }
    check_eq!(STARTED.load(SeqCst), 100);
    Ok(())
}

fn upper_halves_of_32_bit_calls() -> Outcome {
    // Firmware is to ignore bits 63:32 there; some looks at them and refuses. To act on them is wrong in any case.
    let junk = 0xdead_beef_0000_0000;
    let seen = psci(function::AFFINITY_INFO_32, junk | cpu::affinity(), junk, 0);
    check!(matches!(seen, 0 | status::INVALID_PARAMETERS), "AFFINITY_INFO: {seen}");
    let seen = psci(function::CPU_ON_32, junk | cpu::affinity(), smp::entry(), 0);
    check!(matches!(seen, status::ALREADY_ON | status::INVALID_PARAMETERS), "CPU_ON: {seen}");
    // W0 names the function, too.
    let seen = call(Conduit::Hvc, [junk | function::VERSION, 0, 0, 0, 0, 0, 0, 0])[0].cast_signed();
    let version = psci(function::VERSION, 0, 0, 0);
    check!(seen == version || seen == status::NOT_SUPPORTED, "PSCI_VERSION: {seen:#x}");
    Ok(())
}

/// Suspends to standby until the virtual timer interrupts, whose interrupt is masked; returns the answer.
fn suspend(ticks: u64) -> (i64, u64) {
    Gic::detect().enable(timer::VIRTUAL_INTID);
    Timer::Virtual.set_value(ticks);
    Timer::Virtual.set_control(ENABLE);
    let answer = psci(function::CPU_SUSPEND_64, 0, 0, 0);
    let control = Timer::Virtual.control();
    Timer::Virtual.set_control(0);
    (answer, control)
}

fn cpu_suspend_wakes_by_an_interrupt() -> Outcome {
    let (answer, control) = suspend(timer::ms(5));
    check_eq!(answer, status::SUCCESS);
    check!(control & timer::ISTATUS != 0, "back before the interrupt");
    Ok(())
}

fn cpu_suspend_with_one_pending_returns() -> Outcome {
    let (answer, _) = suspend(0);
    check_eq!(answer, status::SUCCESS);
    ins!("isb");
    Ok(())
}

fn smccc_version_if_there() -> Outcome {
    let is_there = psci(function::FEATURES, function::SMCCC_VERSION, 0, 0);
    skip_if!(is_there == status::NOT_SUPPORTED, "PSCI_FEATURES: no SMCCC_VERSION");
    let version = psci(function::SMCCC_VERSION, 0, 0, 0);
    check!((0x1_0000..0x2_0000).contains(&version), "SMCCC_VERSION {version:#x}");
    check_eq!(psci(function::SMCCC_ARCH_FEATURES, function::SMCCC_VERSION, 0, 0), 0);
    check_eq!(psci(function::SMCCC_ARCH_FEATURES, 0x8000_7ff0, 0, 0), status::NOT_SUPPORTED);
    Ok(())
}

/// Says whether calls of paravirtualized time may be made, in the order in which they are to be looked for.
fn has_paravirtualized_time() -> bool {
    psci(function::FEATURES, function::SMCCC_VERSION, 0, 0) == status::SUCCESS
        && psci(function::SMCCC_ARCH_FEATURES, function::PV_TIME_FEATURES, 0, 0) == status::SUCCESS
}

fn paravirtualized_time_if_there() -> Outcome {
    skip_if!(!has_paravirtualized_time(), "SMCCC_ARCH_FEATURES: no PV_TIME_FEATURES");
    for function in [0, function::VERSION, function::PV_TIME_ST & !(1 << 30), function::PV_TIME_ST + 1] {
        check_eq!(psci(function::PV_TIME_FEATURES, function, 0, 0), status::NOT_SUPPORTED, "{function:#x}");
    }
    for function in [function::PV_TIME_FEATURES, function::PV_TIME_ST] {
        // There are no 32-bit forms.
        let narrow = function & !(1 << 30);
        check_eq!(psci(narrow, function::PV_TIME_ST, 0, 0), status::NOT_SUPPORTED, "{narrow:#x}");
    }
    let is_there = psci(function::PV_TIME_FEATURES, function::PV_TIME_ST, 0, 0);
    let structure = psci(function::PV_TIME_ST, 0, 0, 0);
    check_eq!(is_there == status::SUCCESS, structure != status::NOT_SUPPORTED, "PV_TIME_ST: {structure:#x}");
    Ok(())
}

static STRUCTURE: AtomicU64 = AtomicU64::new(0);

fn note_structure(_: u64) {
    STRUCTURE.store(psci(function::PV_TIME_ST, 0, 0, 0).cast_unsigned(), SeqCst);
}

/// Reads a double word of the structure, which is mapped.
fn double_word(structure: u64, index: u64) -> u64 {
    // SAFETY: the caller has mapped all of the structure.
    unsafe { ((structure + 8 * index) as *const u64).read_volatile() }
}

fn stolen_time_if_there() -> Outcome {
    skip_if!(!has_paravirtualized_time(), "SMCCC_ARCH_FEATURES: no PV_TIME_FEATURES");
    let is_there = psci(function::PV_TIME_FEATURES, function::PV_TIME_ST, 0, 0) == status::SUCCESS;
    skip_if!(!is_there, "PV_TIME_FEATURES: no PV_TIME_ST");
    skip_if!(!Granule::K4.is_implemented(), "ID_AA64MMFR0_EL1: no 4 KiB pages");
    let structure = psci(function::PV_TIME_ST, 0, 0, 0).cast_unsigned();
    check_eq!(structure % 64, 0, "{structure:#x}");
    let page = structure & !0xfff;
    mmu::enable(Granule::K4).add(page, page, 0x1000, Attributes::READ_ONLY);
    check_eq!(double_word(structure, 0), 0, "revision and attributes");
    check!((2..8).all(|index| double_word(structure, index) == 0), "padding");
    let (began, before) = (timer::now(), double_word(structure, 1));
    timer::spin_ms(20);
    let (after, ended) = (double_word(structure, 1), timer::now());
    check!(after >= before, "{before} ns, then {after} ns");
    // What is read first may be older than the first look at the clock.
    let most = (ended - began) * 1_000_000_000 / timer::frequency() + 1_000_000;
    check!(after - before <= most, "{} ns were stolen, in {most} ns", after - before);
    check_eq!(psci(function::PV_TIME_ST, 0, 0, 0).cast_unsigned(), structure, "it stays where it is");
    if smp::present() > 1 {
        check_eq!(smp::start(1, note_structure, 0), 0);
        check!(smp::wait_off(1));
        check!(STRUCTURE.load(SeqCst).abs_diff(structure) >= 64, "CPU 1 has the same");
    }
    Ok(())
}
