//! What EL1 must not be able to do: reach EL2 and EL3, memory and devices that are not there, somebody else's firmware.
//!
//! Follows Arm ARM DDI 0487K.a, D24 (accessibility of registers) and Arm DEN 0028E.

use crate::harness::{Outcome, Test, check, check_eq, device_tree, skip_if, tests};
use core::arch::asm;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;
use trapeze_kit::exception::{Exception, catch};
use trapeze_kit::gic::Gic;
use trapeze_kit::mmu::{self, Attributes, Granule};
use trapeze_kit::psci::{Conduit, call};
use trapeze_kit::{cache, mmio, mrs};

pub const TESTS: &[Test] = tests![
    el2_registers_are_undefined,
    el3_registers_are_undefined,
    virtualization_registers_of_the_gic_are_undefined,
    el2_instructions_are_undefined,
    implementation_defined_registers_do_no_harm,
    memory_behind_ram_is_not_there,
    memory_below_ram_is_not_there,
    code_behind_ram_is_not_there,
    devices_not_in_the_tree_are_not_there,
    gic_virtualization_is_not_there,
    accesses_of_odd_shape_behind_ram,
    hypercalls_of_others_are_not_supported,
    currentel_is_el1,
];

/// Builds the word of MRS (`is_read`) or MSR of X0 for an encoding.
const fn system(is_read: bool, op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    0xd500_0000 | (is_read as u32) << 21 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

#[repr(C, align(4096))]
struct Code([AtomicU32; 2]);

static CODE: Code = Code([AtomicU32::new(0), AtomicU32::new(0)]);

/// Executes one instruction with X0, and returns X0 behind it or the exception.
fn execute(word: u32, x0: u64) -> Result<u64, Exception> {
    CODE.0[0].store(word, SeqCst);
    CODE.0[1].store(0xd65f_03c0, SeqCst);
    let code = core::ptr::from_ref(&CODE).addr() as u64;
    cache::make_executable(code, 8);
    let mut value = x0;
    // SAFETY: the word and a RET are there; callers give system instructions that change X0 at most.
    catch(|| unsafe { asm!("blr {0}", in(reg) code, inout("x0") value, out("x30") _) }).map(|()| value)
}

/// Checks that reading and writing an encoding is UNDEFINED at EL1.
fn is_undefined(name: &str, encoding: [u32; 5]) -> Outcome {
    let [op0, op1, crn, crm, op2] = encoding;
    for is_read in [true, false] {
        let seen = execute(system(is_read, op0, op1, crn, crm, op2), 0);
        let is_undefined = seen.is_err_and(|exception| exception.is_undefined() && exception.esr == 1 << 25);
        check!(is_undefined, "{name}, read: {is_read}: {seen:x?}");
    }
    Ok(())
}

fn el2_registers_are_undefined() -> Outcome {
    // With op1 4 at EL1 everything is UNDEFINED, and that is all of EL2; these are the ones that would hurt.
    for (name, encoding) in [
        ("VPIDR_EL2", [3, 4, 0, 0, 0]),
        ("SCTLR_EL2", [3, 4, 1, 0, 0]),
        ("HCR_EL2", [3, 4, 1, 1, 0]),
        ("MDCR_EL2", [3, 4, 1, 1, 1]),
        ("CPTR_EL2", [3, 4, 1, 1, 2]),
        ("TTBR0_EL2", [3, 4, 2, 0, 0]),
        ("VTTBR_EL2", [3, 4, 2, 1, 0]),
        ("VTCR_EL2", [3, 4, 2, 1, 2]),
        ("SPSR_EL2", [3, 4, 4, 0, 0]),
        ("ELR_EL2", [3, 4, 4, 0, 1]),
        ("SP_EL1", [3, 4, 4, 1, 0]),
        ("ESR_EL2", [3, 4, 5, 2, 0]),
        ("HPFAR_EL2", [3, 4, 6, 0, 4]),
        ("VBAR_EL2", [3, 4, 12, 0, 0]),
        ("TPIDR_EL2", [3, 4, 13, 0, 2]),
        ("CNTVOFF_EL2", [3, 4, 14, 0, 3]),
        ("CNTHCTL_EL2", [3, 4, 14, 1, 0]),
        ("CNTHP_CTL_EL2", [3, 4, 14, 2, 1]),
        ("SCTLR_EL12", [3, 5, 1, 0, 0]),
        ("CNTV_CTL_EL02", [3, 5, 14, 3, 1]),
    ] {
        is_undefined(name, encoding)?;
    }
    Ok(())
}

fn el3_registers_are_undefined() -> Outcome {
    for (name, encoding) in [
        ("SCTLR_EL3", [3, 6, 1, 0, 0]),
        ("SCR_EL3", [3, 6, 1, 1, 0]),
        ("VBAR_EL3", [3, 6, 12, 0, 0]),
        ("ELR_EL3", [3, 6, 4, 0, 1]),
        ("MDCR_EL3", [3, 6, 1, 3, 1]),
        ("ICC_SRE_EL3", [3, 6, 12, 12, 5]),
    ] {
        is_undefined(name, encoding)?;
    }
    Ok(())
}

fn virtualization_registers_of_the_gic_are_undefined() -> Outcome {
    skip_if!(Gic::detect() == Gic::V2, "no GIC system registers");
    for (name, encoding) in [
        ("ICC_SRE_EL2", [3, 4, 12, 9, 5]),
        ("ICH_HCR_EL2", [3, 4, 12, 11, 0]),
        ("ICH_VMCR_EL2", [3, 4, 12, 11, 7]),
        ("ICH_AP1R0_EL2", [3, 4, 12, 9, 0]),
        ("ICH_LR0_EL2", [3, 4, 12, 12, 0]),
        ("ICH_LR3_EL2", [3, 4, 12, 12, 3]),
    ] {
        is_undefined(name, encoding)?;
    }
    Ok(())
}

fn el2_instructions_are_undefined() -> Outcome {
    for (name, [op1, crn, crm, op2]) in [
        ("TLBI ALLE1", [4, 8, 7, 4]),
        ("TLBI ALLE1IS", [4, 8, 3, 4]),
        ("TLBI ALLE2", [4, 8, 7, 0]),
        ("TLBI VMALLS12E1IS", [4, 8, 3, 6]),
        ("TLBI IPAS2E1IS", [4, 8, 0, 1]),
        ("TLBI ALLE3", [6, 8, 7, 0]),
        ("AT S1E2R", [4, 7, 8, 0]),
        ("AT S12E1R", [4, 7, 8, 4]),
        ("AT S12E0W", [4, 7, 8, 7]),
        ("AT S1E3R", [6, 7, 8, 0]),
    ] {
        let seen = execute(system(false, 1, op1, crn, crm, op2), 0);
        check!(seen.is_err_and(|exception| exception.is_undefined()), "{name}: {seen:x?}");
    }
    Ok(())
}

fn implementation_defined_registers_do_no_harm() -> Outcome {
    let mut present = 0;
    for crn in [11, 15] {
        for encoding in 0..8 * 16 * 8 {
            let (op1, crm, op2) = (encoding >> 7, encoding >> 3 & 0xf, encoding & 7);
            let seen = execute(system(true, 3, op1, crn, crm, op2), 0);
            match seen {
                Ok(value) => {
                    present += 1;
                    // What can be read is written back: nothing may come of it but an exception of EL1's own.
                    let written = execute(system(false, 3, op1, crn, crm, op2), value);
                    check!(
                        written.map_or_else(|e| e.vector == 4, |_| true),
                        "{op1} {crn} {crm} {op2}: {written:x?}"
                    );
                }
                Err(exception) => {
                    check!(exception.is_undefined(), "S3_{op1}_C{crn}_C{crm}_{op2}: {exception:x?}");
                }
            }
        }
    }
    trapeze_kit::println!("# {present} IMPLEMENTATION DEFINED registers can be read");
    Ok(())
}

/// Maps an address that the kit's map does not have, as a device, and returns where.
fn map(address: u64) -> u64 {
    let alias = 0x10_0000_0000;
    let page = address & !0xfff;
    mmu::enable(Granule::K4).add(alias, page, 0x1000, Attributes::DEVICE);
    alias + (address - page)
}

/// Says whether reading and writing the physical `address` ends in an external abort.
fn is_absent(address: u64) -> Result<(), [Option<Exception>; 2]> {
    let at = map(address);
    let read = catch(|| mmio::read32(at));
    let write = catch(|| mmio::write32(at, 0));
    let is_external = |exception: Exception| exception.class() == 0x25 && exception.iss() & 0x3f == 0x10;
    if read.is_err_and(is_external) && write.is_err_and(is_external) {
        Ok(())
    } else {
        Err([read.err(), write.err()])
    }
}

fn memory_behind_ram_is_not_there() -> Outcome {
    let Some((start, bytes)) = device_tree().and_then(|tree| tree.memory()) else {
        check!(false, "no /memory");
        return Ok(());
    };
    let end = start + bytes;
    for address in [end, end + 0x1000, end + 0x20_0000, end + 0x1000_0000, end + 0x4000_0000, 0x20_0000_0000]
    {
        let seen = is_absent(address);
        check!(seen.is_ok(), "{address:#x}: {seen:x?}");
    }
    let last = map(end - 4);
    check!(catch(|| mmio::read32(last)).is_ok(), "the last word of RAM");
    Ok(())
}

fn memory_below_ram_is_not_there() -> Outcome {
    for address in [0x0c80_0000, 0x0d00_0000, 0x0f00_0000, 0x0fff_fff0] {
        let seen = is_absent(address);
        check!(seen.is_ok(), "{address:#x}: {seen:x?}");
    }
    Ok(())
}

fn code_behind_ram_is_not_there() -> Outcome {
    let end = device_tree().and_then(|tree| tree.memory()).map_or(0, |(start, bytes)| start + bytes);
    let alias = 0x10_0000_0000;
    mmu::enable(Granule::K4).add(alias, end, 0x1000, Attributes::KERNEL);
    // SAFETY: the abort is caught and returns to X30.
    let seen = catch(|| unsafe { asm!("blr {0}", in(reg) alias, out("x30") _) }).err();
    check_eq!(seen.map(|exception| (exception.class(), exception.elr)), Some((0x21, alias)));
    check_eq!(seen.map(|exception| exception.iss() & 0x3f), Some(0x10), "external abort");
    Ok(())
}

/// Devices of the `virt` board: how the name of their node begins, and an address of theirs.
const DEVICES: &[(&str, u64)] = &[
    ("flash@", 0x0000_0000),
    ("flash@", 0x0400_0000),
    ("pl031@", 0x0901_0000),
    ("fw-cfg@", 0x0902_0000),
    ("pl061@", 0x0903_0000),
    ("pl011@9040000", 0x0904_0000),
    ("smmuv3@", 0x0905_0000),
    ("pcie@", 0x1000_0000),
    ("pcie@", 0x3eff_0000),
    ("platform-bus@", 0x0c00_0000),
    ("virtio_mmio@a000000", 0x0a00_0000),
    ("virtio_mmio@a003e00", 0x0a00_3e00),
    ("its@", 0x0808_0000),
    ("v2m@", 0x0802_0000),
];

fn devices_not_in_the_tree_are_not_there() -> Outcome {
    let tree = device_tree();
    check!(tree.is_some());
    let mut absent = 0;
    for (name, address) in DEVICES {
        // A device that is in the tree is this machine's.
        if tree.is_some_and(|tree| tree.has_node(name)) {
            continue;
        }
        let seen = is_absent(*address);
        check!(seen.is_ok(), "{name} at {address:#x}: {seen:x?}");
        absent += 1;
    }
    trapeze_kit::println!("# {absent} of {} devices of the board are not in the tree", DEVICES.len());
    Ok(())
}

fn gic_virtualization_is_not_there() -> Outcome {
    skip_if!(Gic::detect() == Gic::V3, "no GICH and GICV in memory");
    for address in [0x0803_0000, 0x0803_0004, 0x0804_0000, 0x0804_000c] {
        let seen = is_absent(address);
        check!(seen.is_ok(), "{address:#x}: {seen:x?}");
    }
    Ok(())
}

fn accesses_of_odd_shape_behind_ram() -> Outcome {
    let end = device_tree().and_then(|tree| tree.memory()).map_or(0, |(start, bytes)| start + bytes);
    let alias = 0x10_0000_0000_u64;
    mmu::enable(Granule::K4).add(alias, end, 0x1000, Attributes(Attributes::USER.0 | 1 << 54));
    let (mut x, mut y) = (0x55_u64, 0x66_u64);
    macro_rules! aborts {
        ($instruction:literal) => {{
            let mut base = alias + 0x100;
            // SAFETY: the abort is caught and the instruction skipped.
            let seen = catch(|| unsafe {
                asm!($instruction, inout("x1") x, inout("x2") y, inout("x3") base)
            });
            let is_external = seen.is_err_and(|e| e.class() == 0x25 && e.iss() & 0x3f == 0x10);
            check!(is_external, "{}: {seen:x?}", $instruction);
            check_eq!((x, y, base), (0x55, 0x66, alias + 0x100), "{} changed registers", $instruction);
        }};
    }
    aborts!("ldp x1, x2, [x3]");
    aborts!("stp x1, x2, [x3]");
    aborts!("ldr x1, [x3], #8");
    aborts!("str x1, [x3, #8]!");
    aborts!("ldxr x1, [x3]");
    aborts!("ldar x1, [x3]");
    aborts!("ldrsb x1, [x3, #1]");
    aborts!("ldtr x1, [x3]");
    Ok(())
}

fn hypercalls_of_others_are_not_supported() -> Outcome {
    // Trusted OS, OEM, SiP, standard secure services that nobody gives, vendor-specific hypervisor services.
    for function in
        [0xb200_0000, 0xbf00_ff01, 0x8300_0000, 0xc200_0010, 0xc400_0050, 0xc400_0060, 0x8600_ffff]
    {
        let seen = call(Conduit::Hvc, [function, 0x4000_0000, 0x1000, 0, 0, 0, 0, 0])[0];
        check_eq!(seen.cast_signed(), -1, "{function:#x}");
        // Where there is no firmware, SMC is UNDEFINED.
        match catch(|| call(Conduit::Smc, [function, 0x4000_0000, 0x1000, 0, 0, 0, 0, 0])[0]) {
            Ok(seen) => check_eq!(seen.cast_signed(), -1, "{function:#x} by SMC"),
            Err(exception) => check!(exception.is_undefined(), "{function:#x} by SMC: {exception:x?}"),
        }
    }
    Ok(())
}

fn currentel_is_el1() -> Outcome {
    check_eq!(mrs!("CurrentEL"), 4);
    Ok(())
}
