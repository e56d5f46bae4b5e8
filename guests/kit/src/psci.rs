//! SMC Calling Convention and PSCI.
//!
//! Follows Arm DEN 0028E (SMCCC 1.4), Arm DEN 0022F (PSCI 1.3) and Arm DEN 0057A (paravirtualized time).

use core::arch::asm;

/// Function numbers; those with a 64-bit form have it as well.
pub mod function {
    #![expect(missing_docs, reason = "the names are the standard's")]
    pub const VERSION: u64 = 0x8400_0000;
    pub const CPU_SUSPEND_32: u64 = 0x8400_0001;
    pub const CPU_SUSPEND_64: u64 = 0xc400_0001;
    pub const CPU_OFF: u64 = 0x8400_0002;
    pub const CPU_ON_32: u64 = 0x8400_0003;
    pub const CPU_ON_64: u64 = 0xc400_0003;
    pub const AFFINITY_INFO_32: u64 = 0x8400_0004;
    pub const AFFINITY_INFO_64: u64 = 0xc400_0004;
    pub const MIGRATE_INFO_TYPE: u64 = 0x8400_0006;
    pub const SYSTEM_OFF: u64 = 0x8400_0008;
    pub const SYSTEM_RESET: u64 = 0x8400_0009;
    pub const FEATURES: u64 = 0x8400_000a;
    pub const SYSTEM_RESET2_64: u64 = 0xc400_0012;
    pub const SMCCC_VERSION: u64 = 0x8000_0000;
    pub const SMCCC_ARCH_FEATURES: u64 = 0x8000_0001;
    pub const PV_TIME_FEATURES: u64 = 0xc500_0020;
    pub const PV_TIME_ST: u64 = 0xc500_0021;
}

/// Return values, as X0 has them from a 64-bit call.
pub mod status {
    #![expect(missing_docs, reason = "the names are the standard's")]
    pub const SUCCESS: i64 = 0;
    pub const NOT_SUPPORTED: i64 = -1;
    pub const INVALID_PARAMETERS: i64 = -2;
    pub const DENIED: i64 = -3;
    pub const ALREADY_ON: i64 = -4;
    pub const ON_PENDING: i64 = -5;
    pub const INTERNAL_FAILURE: i64 = -6;
    pub const NOT_PRESENT: i64 = -7;
    pub const DISABLED: i64 = -8;
    pub const INVALID_ADDRESS: i64 = -9;
}

/// The instruction that makes the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// HVC, what `virt` has without EL2 and EL3 of its own.
    Hvc,
    /// SMC.
    Smc,
}

/// X0 to X7 of a call.
pub type Registers = [u64; 8];

/// Makes a call with X0 to X7 and returns them.
pub fn call(conduit: Conduit, registers: Registers) -> Registers {
    let [mut x0, mut x1, mut x2, mut x3, mut x4, mut x5, mut x6, mut x7] = registers;
    macro_rules! with {
        ($instruction:literal) => {
            // SAFETY: a call may change X0 to X17; what it does to the machine is what the guest asks for.
            unsafe {
                asm!($instruction, inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3, inout("x4") x4,
                     inout("x5") x5, inout("x6") x6, inout("x7") x7, out("x8") _, out("x9") _, out("x10") _,
                     out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _,
                     out("x17") _);
            }
        };
    }
    match conduit {
        Conduit::Hvc => with!("hvc #0"),
        Conduit::Smc => with!("smc #0"),
    }
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

/// Calls PSCI by HVC and returns X0.
pub fn psci(function: u64, first: u64, second: u64, third: u64) -> i64 {
    call(Conduit::Hvc, [function, first, second, third, 0, 0, 0, 0])[0].cast_signed()
}

/// Says whether the CPU with these affinity fields is there and off.
pub fn is_off(affinity: u64) -> bool {
    psci(function::AFFINITY_INFO_64, affinity, 0, 0) == 1
}

/// Powers the machine off: by HVC, and if that returns by SMC.
pub fn power_off() -> ! {
    crate::console::flush();
    psci(function::SYSTEM_OFF, 0, 0, 0);
    call(Conduit::Smc, [function::SYSTEM_OFF, 0, 0, 0, 0, 0, 0, 0]);
    sleep_forever()
}

/// Powers this CPU off.
pub fn cpu_off() -> ! {
    psci(function::CPU_OFF, 0, 0, 0);
    sleep_forever()
}

/// Stops here.
pub fn sleep_forever() -> ! {
    loop {
        crate::ins!("wfi");
    }
}
