//! System registers by name. The name may be `S<op0>_<op1>_C<n>_C<m>_<op2>` where the assembler knows none.
//!
//! Safe macros, though a guest can break itself with them: that is what guests of this kit are for.

/// Reads a system register; ordered behind what came before by an ISB.
#[macro_export]
macro_rules! mrs {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reads a register of this CPU into a variable; a trap goes to the guest's vectors.
        unsafe {
            core::arch::asm!("isb", concat!("mrs {}, ", $register), out(reg) value, options(nostack))
        };
        value
    }};
}

/// Writes a system register, then ISB.
#[macro_export]
macro_rules! msr {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the guest owns its CPU, and whoever writes this names the register.
        unsafe { core::arch::asm!(concat!("msr ", $register, ", {}"), "isb", in(reg) value) };
    }};
}

/// Executes instructions without operands, such as `ins!("dsb sy", "isb")`.
#[macro_export]
macro_rules! ins {
    ($($instruction:literal),+ $(,)?) => {{
        // SAFETY: the guest owns its CPU, and whoever writes this names the instructions.
        unsafe { core::arch::asm!($($instruction),+) };
    }};
}
