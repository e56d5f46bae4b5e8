//! Facts about loads and stores that the syndrome does not describe: the vCPU's instruction is read and done.

use super::super::Next;
use super::bench::{Bench, EL1H, ENTRY, GICD, KERNEL_VA, RAM, UART, esr, hpfar};
use super::machine::Call;
use crate::interpreter::device::Width;
use crate::interpreter::device::vgic::GicVersion;
use crate::interpreter::inject::Entry;
use crate::interpreter::translation::Attempt;

const PRIORITIES: u64 = GICD + 0x400 + 64;
const WNR: u64 = 1 << 6;
/// ESR_EL1 of a data abort at EL1, without its fault status.
const DATA_ABORT: u64 = 0x25 << 26 | 1 << 25;
const EXTERNAL: u64 = DATA_ABORT | 0x10;
/// ESR_EL2 of a translation fault at level 3 without a valid syndrome.
const NOT_DESCRIBED: u64 = esr(0x24, 0x07);
/// PAR_EL1 of Normal memory, and of a fault of stage 1: a permission fault at level 3.
const NORMAL: u64 = 0xff << 56;
const PERMISSION_FAULT: u64 = 0x801 | 0x0f << 1;

/// SCTLR_EL1.M.
const SCTLR_M: u64 = 1;

const LDP_W1_W2_X0: u32 = 0x2940_0801;
const STP_W1_W2_X0_PRE_8: u32 = 0x2981_0801;
const LDR_W1_X0_POST_4: u32 = 0xb840_4401;
const LDR_W1_X0: u32 = 0xb940_0001;
const LDTR_W1_X0: u32 = 0xb840_0801;
const LDR_S1_SP_POST_4: u32 = 0xbc40_47e1;
const LDADD_W2_W1_X0: u32 = 0xb822_0001;
const LDXR_W1_X0: u32 = 0x885f_7c01;
const STXR_W3_W2_X0: u32 = 0x8803_7c02;
const DC_ZVA_X0: u32 = 0xd50b_7420;
const PRFM_X0: u32 = 0xf980_0000;
const CPYFP_X0_X1_X2: u32 = 0x1901_0440;
const CPYFM_X0_X1_X2: u32 = 0x1941_0440;
const SETP_X0_X2_X1: u32 = 0x19c1_0440;
const NOP: u32 = 0xd503_201f;

/// A VM whose instruction at PC is `word`, with X0 the virtual address of `ipa`, and four priorities.
fn about_to(word: u32, ipa: u64) -> Bench {
    let mut bench = Bench::new(GicVersion::V3, 1);
    bench.write_word(0, PRIORITIES, 0xf8e8_d8c8);
    bench.write_word(0, PRIORITIES + 4, 0x3828_1808);
    put(&mut bench, ENTRY, word);
    let frame = &mut bench.vcpus[0].frame;
    (frame.pc, frame.x[0]) = (ENTRY, KERNEL_VA | ipa);
    bench
}

/// Puts a word into RAM.
fn put(bench: &mut Bench, at: u64, word: u32) {
    bench.cpus[0].ram.extend((at..).zip(word.to_le_bytes()));
}

/// Takes the data abort of an access to `ipa`, after which the guest goes on.
fn goes_on(bench: &mut Bench, ipa: u64) {
    let pc = bench.pc(0);
    assert_eq!(bench.exit(0, NOT_DESCRIBED, KERNEL_VA | ipa, hpfar(ipa)), Next::Resume);
    assert_eq!(bench.pc(0), pc + 4);
}

/// Takes it, after which the guest takes an exception.
fn aborts(bench: &mut Bench, ipa: u64) -> Entry {
    bench.injects(0, NOT_DESCRIBED, KERNEL_VA | ipa, hpfar(ipa))
}

#[test]
fn a_pair_is_loaded_from_a_device() {
    let mut bench = about_to(LDP_W1_W2_X0, PRIORITIES);
    goes_on(&mut bench, PRIORITIES);
    assert_eq!(bench.vcpus[0].frame.x[..3], [KERNEL_VA | PRIORITIES, 0xf8e8_d8c8, 0x3828_1808]);
}

#[test]
fn a_base_register_is_written_back_before_and_after() {
    let mut bench = about_to(LDR_W1_X0_POST_4, PRIORITIES);
    goes_on(&mut bench, PRIORITIES);
    assert_eq!(bench.vcpus[0].frame.x[..2], [KERNEL_VA | (PRIORITIES + 4), 0xf8e8_d8c8]);
    let mut bench = about_to(STP_W1_W2_X0_PRE_8, PRIORITIES);
    bench.vcpus[0].frame.x[1..3].copy_from_slice(&[0x1020_3040, 0x5060_7080]);
    goes_on(&mut bench, PRIORITIES + 8);
    assert_eq!(bench.vcpus[0].frame.x[0], KERNEL_VA | (PRIORITIES + 8));
    assert_eq!([8, 12].map(|at| bench.read_word(0, PRIORITIES + at)), [0x1020_3040, 0x5060_7080]);
}

#[test]
fn the_stack_pointer_is_that_of_the_level() {
    for (pstate, el1) in [(EL1H, 1), (EL1H & !1, 0), (0, 0)] {
        let mut bench = about_to(LDR_S1_SP_POST_4, 0);
        bench.vcpus[0].frame.pstate = pstate;
        bench.cpus[0].stack_pointers[el1] = KERNEL_VA | PRIORITIES;
        bench.cpus[0].vectors.0[16..32].fill(0xff);
        goes_on(&mut bench, PRIORITIES);
        assert_eq!(bench.cpus[0].stack_pointers[el1], KERNEL_VA | (PRIORITIES + 4));
        let mut expected = [0; 16];
        expected[..4].copy_from_slice(&[0xc8, 0xd8, 0xe8, 0xf8]);
        assert_eq!(bench.cpus[0].vectors.0[16..32], expected, "the rest of the register is cleared");
    }
}

#[test]
fn each_level_has_its_own_permissions() {
    const PAN: u64 = 1 << 22;
    const UAO: u64 = 1 << 23;
    let attempt = |el0, pan| Attempt { write: false, el0, pan };
    for (word, pstate, expected) in [
        (LDP_W1_W2_X0, EL1H, attempt(false, false)),
        (LDP_W1_W2_X0, EL1H | PAN, attempt(false, true)),
        (LDP_W1_W2_X0, PAN, attempt(true, false)),
        (LDTR_W1_X0, EL1H | PAN, attempt(true, false)),
        (LDTR_W1_X0, EL1H | UAO, attempt(false, false)),
    ] {
        let mut bench = about_to(word, PRIORITIES);
        bench.vcpus[0].frame.pstate = pstate;
        goes_on(&mut bench, PRIORITIES);
        assert_eq!(bench.cpus[0].attempts.last(), Some(&expected), "{word:#x} {pstate:#x}");
    }
}

#[test]
fn an_atomic_reads_and_writes_the_device() {
    let mut bench = about_to(LDADD_W2_W1_X0, PRIORITIES);
    bench.vcpus[0].frame.x[2] = 0x0808_0808;
    goes_on(&mut bench, PRIORITIES);
    assert_eq!(bench.vcpus[0].frame.x[1], 0xf8e8_d8c8);
    assert_eq!(bench.read_word(0, PRIORITIES), 0x00f0_e0d0);
}

#[test]
fn an_exclusive_store_needs_the_load_before_it() {
    let mut bench = about_to(STXR_W3_W2_X0, PRIORITIES);
    bench.vcpus[0].frame.x[2] = 0x1010_1010;
    goes_on(&mut bench, PRIORITIES);
    assert_eq!((bench.vcpus[0].frame.x[3], bench.read_word(0, PRIORITIES)), (1, 0xf8e8_d8c8));
    let mut bench = about_to(LDXR_W1_X0, PRIORITIES);
    put(&mut bench, ENTRY + 4, STXR_W3_W2_X0);
    bench.vcpus[0].frame.x[2] = 0x1010_1010;
    goes_on(&mut bench, PRIORITIES);
    goes_on(&mut bench, PRIORITIES);
    let stored = bench.read_word(0, PRIORITIES);
    assert_eq!((bench.vcpus[0].frame.x[3], stored), (0, 0x1010_1010));
}

#[test]
fn a_block_is_zeroed_and_a_prefetch_does_nothing() {
    let mut bench = about_to(DC_ZVA_X0, PRIORITIES + 5);
    goes_on(&mut bench, PRIORITIES);
    assert_eq!([0, 4].map(|at| bench.read_word(0, PRIORITIES + at)), [0, 0]);
    let mut bench = about_to(PRFM_X0, PRIORITIES);
    let before = bench.vcpus[0].frame.x;
    goes_on(&mut bench, PRIORITIES);
    assert_eq!(bench.vcpus[0].frame.x, before);
}

#[test]
fn an_access_from_ram_into_a_device_has_both_parts() {
    // Four bytes, two of them in the page before, which stage 1 maps to RAM.
    const BOUNDARY: u64 = KERNEL_VA | (UART + 0x1000);
    for (word, described) in [(LDR_W1_X0_POST_4, NOT_DESCRIBED), (LDR_W1_X0, esr(0x24, 0x0181_0007))] {
        let mut bench = about_to(word, 0);
        bench.vcpus[0].frame.x[0] = BOUNDARY - 2;
        put(&mut bench, RAM + 0x5ffc, 0x1122_3344);
        bench.cpus[0].pages.insert(BOUNDARY - 0x1000, NORMAL | (RAM + 0x5000));
        bench.cpus[0].pages.insert(BOUNDARY, NORMAL | GICD);
        bench.write_word(0, GICD, 3);
        bench.cpus[0].sctlr_el1 = SCTLR_M;
        bench.vcpus[0].frame.pc = ENTRY;
        assert_eq!(bench.exit(0, described, BOUNDARY, hpfar(GICD)), Next::Resume);
        assert_eq!(bench.pc(0), ENTRY + 4);
        assert_eq!(bench.vcpus[0].frame.x[1] & 0xffff, 0x1122, "{word:#x}");
    }
}

#[test]
fn a_store_that_fails_in_its_second_page_has_stored_nothing() {
    const BOUNDARY: u64 = KERNEL_VA | (GICD + 0x1000);
    let mut bench = about_to(STP_W1_W2_X0_PRE_8, 0);
    bench.vcpus[0].frame.x[0] = BOUNDARY - 12;
    bench.cpus[0].pages.insert(BOUNDARY - 0x1000, NORMAL | (RAM + 0x5000));
    bench.cpus[0].pages.insert(BOUNDARY, PERMISSION_FAULT);
    let entry = bench.injects(0, NOT_DESCRIBED | WNR, BOUNDARY - 4, hpfar(UART));
    assert_eq!((entry.esr_el1, entry.far_el1), (DATA_ABORT | WNR | 0x0f, Some(BOUNDARY)));
    assert!(bench.cpus[0].ram.keys().all(|at| *at < RAM + 0x5000 || *at >= ENTRY));
}

#[test]
fn a_walk_through_nothing_in_the_second_page_names_its_level() {
    const BOUNDARY: u64 = KERNEL_VA | (GICD + 0x1000);
    /// PAR_EL1 of a stage 2 fault of a stage 1 walk (S, PTW).
    const WALK: u64 = 0xb01 | 0x07 << 1;
    // TCR_EL1: T1SZ 16, TG1 4 KiB; with no granule there is no walk to follow.
    for (tcr_el1, status) in [(16 << 16 | 2 << 30, 0x14), (16 << 16, 0x10)] {
        let mut bench = about_to(STP_W1_W2_X0_PRE_8, 0);
        bench.vcpus[0].frame.x[0] = BOUNDARY - 12;
        let machine = &mut bench.cpus[0];
        (machine.tcr_el1, machine.ttbr_el1) = (tcr_el1, [0, 0x1000]);
        machine.pages.insert(BOUNDARY, WALK);
        let entry = bench.injects(0, NOT_DESCRIBED | WNR, BOUNDARY - 4, hpfar(GICD));
        assert_eq!((entry.esr_el1, entry.far_el1), (DATA_ABORT | WNR | status, Some(BOUNDARY)));
    }
}

#[test]
fn where_nothing_is_the_abort_names_the_piece() {
    // The device ends between the two words.
    let end = UART + 0x1000;
    let mut bench = about_to(LDP_W1_W2_X0, end - 4);
    let entry = aborts(&mut bench, end - 4);
    assert_eq!((entry.esr_el1, entry.far_el1), (EXTERNAL, Some(KERNEL_VA | end)));
    let mut bench = about_to(LDADD_W2_W1_X0, 0x1000);
    assert_eq!(aborts(&mut bench, 0x1000).esr_el1, EXTERNAL, "it fails as a read");
}

#[test]
fn an_instruction_that_is_gone_is_tried_again() {
    let mut bench = about_to(LDP_W1_W2_X0, PRIORITIES);
    for page in [PERMISSION_FAULT, NORMAL | UART, NORMAL | 0x1000] {
        bench.cpus[0].pages.insert(ENTRY, page);
        let before = bench.vcpus[0].frame.clone();
        assert_eq!(bench.exit(0, NOT_DESCRIBED, KERNEL_VA | PRIORITIES, hpfar(PRIORITIES)), Next::Resume);
        assert_eq!((&bench.vcpus[0].frame, bench.cpus[0].take_calls()), (&before, vec![]));
    }
}

#[test]
fn a_memory_copy_from_a_device_is_left_for_the_cpu_to_end() {
    const C: u64 = 1 << 29;
    let source = KERNEL_VA | PRIORITIES;
    let left = [RAM + 0x1008, source + 8, 0];
    let offsets = [RAM + 0x1008, source + 8, 8_u64.wrapping_neg()];
    for (word, pstate, before, after) in [
        (CPYFP_X0_X1_X2, EL1H | C, [RAM + 0x1000, source, 8], left),
        (CPYFM_X0_X1_X2, EL1H | C, [RAM + 0x1000, source, 8], left),
        (CPYFM_X0_X1_X2, EL1H, offsets, [offsets[0], offsets[1], 0]),
    ] {
        let mut bench = about_to(word, PRIORITIES);
        bench.vcpus[0].frame.pstate = pstate;
        bench.vcpus[0].frame.x[..3].copy_from_slice(&before);
        assert_eq!(bench.exit(0, NOT_DESCRIBED, source, hpfar(PRIORITIES)), Next::Resume);
        let frame = &bench.vcpus[0].frame;
        assert_eq!((frame.pc, frame.pstate, &frame.x[..3]), (ENTRY, pstate, &after[..]), "{word:#x}");
        let copied: Vec<u8> = (RAM + 0x1000..RAM + 0x1008).map(|at| bench.cpus[0].ram[&at]).collect();
        assert_eq!(copied, [0xc8, 0xd8, 0xe8, 0xf8, 0x08, 0x18, 0x28, 0x38]);
    }
}

#[test]
fn a_huge_memory_set_is_done_in_parts() {
    let mut bench = about_to(SETP_X0_X2_X1, UART);
    bench.vcpus[0].frame.x[1..3].copy_from_slice(&[0xff61, u64::MAX]);
    for _ in 0..2 {
        let at = bench.vcpus[0].frame.x[0];
        assert_eq!(bench.exit(0, NOT_DESCRIBED, at, hpfar(UART)), Next::Resume);
        assert_eq!(bench.vcpus[0].frame.x[..2], [at + 64, 0xff61]);
    }
    assert_eq!((bench.pc(0), bench.vcpus[0].frame.x[2]), (ENTRY, (u64::MAX >> 1) - 128));
    assert_eq!(bench.cpus[0].take_calls()[0], Call::Transmit(b'a'));
}

#[test]
fn a_memory_copy_that_fails_says_how_far_it_came() {
    let mut bench = about_to(CPYFP_X0_X1_X2, PRIORITIES);
    let (to, from) = (RAM + 0x2ffe, KERNEL_VA | PRIORITIES);
    bench.vcpus[0].frame.x[..3].copy_from_slice(&[to, from, 8]);
    bench.cpus[0].pages.insert(RAM + 0x3000, PERMISSION_FAULT);
    bench.cpus[0].take_calls();
    assert_eq!(bench.exit(0, NOT_DESCRIBED, from, hpfar(PRIORITIES)), Next::Resume);
    let calls = bench.cpus[0].take_calls();
    let [Call::EnterEl1(entry)] = calls[..] else { panic!("{calls:?}") };
    assert_eq!((entry.esr_el1, entry.far_el1), (DATA_ABORT | WNR | 0x0f, Some(RAM + 0x3000)));
    assert_eq!((entry.elr_el1, &bench.vcpus[0].frame.x[..3]), (ENTRY, &[to + 2, from + 2, 6][..]));
}

#[test]
fn what_is_no_load_or_store_is_an_external_abort() {
    for (word, pstate) in [(NOP, EL1H), (0, EL1H), (LDP_W1_W2_X0, 0x10)] {
        let mut bench = about_to(word, PRIORITIES);
        bench.vcpus[0].frame.pstate = pstate;
        assert_eq!(aborts(&mut bench, PRIORITIES).esr_el1 & 0x3f, 0x10, "{word:#x} {pstate:#x}");
    }
}

#[test]
fn a_big_endian_pair_has_its_elements_turned() {
    const EE: u64 = 1 << 25;
    let mut bench = about_to(LDP_W1_W2_X0, PRIORITIES);
    bench.cpus[0].sctlr_el1 = EE;
    goes_on(&mut bench, PRIORITIES);
    assert_eq!(bench.vcpus[0].frame.x[1..3], [0xc8d8_e8f8, 0x0818_2838]);
}

#[test]
fn a_character_is_read_once() {
    // LDRB with write-back, which no syndrome describes.
    let mut bench = about_to(0x3840_1401, UART);
    bench.receive(0, b"ab");
    goes_on(&mut bench, UART);
    assert_eq!(bench.vcpus[0].frame.x[..2], [KERNEL_VA | (UART + 1), u64::from(b'a')]);
    assert_eq!(bench.read(0, UART, Width::Byte), u64::from(b'b'));
    let mut bench = about_to(0x3800_1401, UART); // STRB
    bench.vcpus[0].frame.x[1] = u64::from(b'x');
    goes_on(&mut bench, UART);
    assert_eq!(bench.cpus[0].take_calls(), [Call::Transmit(b'x')]);
}
