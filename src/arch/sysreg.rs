//! System registers by name or encoding, for those that aarch64-cpu does not have.
//!
//! Not here: what the values mean. A name that the assembler may not know is written `S<op0>_<op1>_C<n>_C<m>_<op2>`.
//! Follows Arm ARM DDI 0487K.a, C5.3 and D24.

/// Reads the named system register.
macro_rules! read_sysreg {
    ($name:expr) => {{
        let value: u64;
        // SAFETY: an MRS changes no memory, no flags and no stack. The caller names a register that
        // exists on this CPU; if it does not, EL2 takes an Undefined exception and the machine stops.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// Writes the named system register. The barrier that makes it count is the caller's, beside the write.
macro_rules! write_sysreg {
    ($name:expr, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the registers written this way control guests, interrupts and timers; none of them
        // changes how EL2 translates or what its Rust code may assume about memory. No `nomem`: the
        // write stays in order with memory accesses around it.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags));
        }
    }};
}

pub(crate) use read_sysreg;
pub(crate) use write_sysreg;

/// Waits until all writes before are observable to the whole system, devices included.
pub fn dsb_sy() {
    aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
}

/// Makes every system-register write before count for every instruction after.
pub fn isb() {
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// Reads the ID space that HCR_EL2.TID3 traps: op0 3, op1 0, CRn 0, CRm 1 to 7, eight registers each.
///
/// All of it reads as 0 where nothing is allocated (Arm ARM DDI 0487K.a, D24.3.1).
pub fn id_space() -> [u64; 56] {
    macro_rules! row {
        ($($crm:literal)*) => {
            [$(
                read_sysreg!(concat!("S3_0_C0_C", $crm, "_0")), read_sysreg!(concat!("S3_0_C0_C", $crm, "_1")),
                read_sysreg!(concat!("S3_0_C0_C", $crm, "_2")), read_sysreg!(concat!("S3_0_C0_C", $crm, "_3")),
                read_sysreg!(concat!("S3_0_C0_C", $crm, "_4")), read_sysreg!(concat!("S3_0_C0_C", $crm, "_5")),
                read_sysreg!(concat!("S3_0_C0_C", $crm, "_6")), read_sysreg!(concat!("S3_0_C0_C", $crm, "_7")),
            )*]
        };
    }
    row!("1" "2" "3" "4" "5" "6" "7")
}
