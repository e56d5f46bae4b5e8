//! Power of the real machine: starting CPUs, off, off with a failure, and reset.
//!
//! Not here: PSCI as guests see it (the interpreter's).
//! Follows Arm DEN 0022F (PSCI), for the spin table Linux Documentation/arch/arm64/booting.rst, and for the watchdog of
//! the BCM2835 family, whose manual leaves it out, the register names of Linux' bcm2835_wdt driver.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use trapeze::addr::{Pa, Region};
use trapeze::platform::board::Conduit;

use super::lock::Lock;
use super::mmio::Mmio;
use super::{console, memory};

const CPU_ON_64: u64 = 0xc400_0003;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
/// PCI vendor (low half) and device (high half) of QEMU's pvpanic-pci.
const PVPANIC_ID: u32 = 0x0011_1b36;
const PM_RSTC: u64 = 0x1c;
const PM_RSTS: u64 = 0x20;
const PM_WDOG: u64 = 0x24;
/// The upper byte of whatever is written to the power management block.
const PM_PASSWORD: u32 = 0x5a00_0000;
/// PM_RSTC.WRCFG, and its value for a reset of everything.
const PM_RSTC_WRCFG: u32 = 0x30;
const PM_RSTC_FULL_RESET: u32 = 0x20;
/// The even bits from 0 to 10 of PM_RSTS: the partition to boot from. 63 is none, and the firmware halts.
const PM_RSTS_PARTITION: u32 = 0x555;
/// Ticks of the watchdog, of 1/65,536 s.
const PM_SOON: u32 = 10;

/// Calls the firmware. Nothing of a guest's ever gets here.
fn firmware(conduit: Conduit, function: u64, arguments: [u64; 3]) -> i64 {
    let [mut x0, x1, x2, x3] = [function, arguments[0], arguments[1], arguments[2]];
    match conduit {
        // SAFETY: a PSCI call as SMCCC defines it: it may change X0-X17 and memory of nobody.
        Conduit::Smc => unsafe {
            asm!("smc #0", inout("x0") x0, in("x1") x1, in("x2") x2, in("x3") x3, clobber_abi("C"), options(nostack));
        },
        // SAFETY: as above.
        Conduit::Hvc => unsafe {
            asm!("hvc #0", inout("x0") x0, in("x1") x1, in("x2") x2, in("x3") x3, clobber_abi("C"), options(nostack));
        },
    }
    x0.cast_signed()
}

/// Asks the firmware to start the CPU with this affinity at `entry`; PSCI's error code if it will not.
pub fn start_by_psci(conduit: Conduit, affinity: u64, entry: u64) -> Result<(), i64> {
    match firmware(conduit, CPU_ON_64, [affinity, entry, 0]) {
        0 => Ok(()),
        code => Err(code),
    }
}

/// Releases a CPU that waits in a spin table.
///
/// # Safety
/// `release` is the address that the board's tree names as the CPU's `cpu-release-addr`, mapped as Normal memory.
pub unsafe fn start_by_spin_table(release: Pa, entry: u64) {
    // SAFETY: the caller's promise; the word belongs to the boot protocol.
    unsafe { memory::write_descriptor(release, entry) };
    if let Some(word) = Region::<Pa>::new(release, 8) {
        memory::clean_invalidate(word); // the CPU polls it with its caches off
    }
    aarch64_cpu::asm::sev();
}

/// How this machine can be stopped.
#[derive(Clone, Copy, Default)]
pub struct Off {
    /// The firmware's PSCI.
    pub psci: Option<Conduit>,
    /// A device that tells the machine's owner of a failure.
    pub panic_notifier: Option<Mmio>,
    /// Power management of the BCM2835 family.
    pub watchdog: Option<Mmio>,
}

impl Off {
    /// Stops the machine for good, or for a new start. `is_failure` reaches whoever started it, by the panic notifier or by a line on the
    /// console.
    pub fn stop(self, is_failure: bool) -> ! {
        match self.panic_notifier {
            Some(notifier) if is_failure => notifier.write8(0, 1), // pvpanic: PVPANIC_PANICKED
            None if is_failure => console::last_words(format_args!("the machine stops after a failure")),
            _ => {}
        }
        console::drain(); // with the power goes what the UART has not sent
        let (function, partition) = if COMES_BACK.load(Ordering::Relaxed) {
            (SYSTEM_RESET, 0)
        } else {
            (SYSTEM_OFF, PM_RSTS_PARTITION)
        };
        if let Some(conduit) = self.psci {
            firmware(conduit, function, [0; 3]);
        }
        if let Some(registers) = self.watchdog {
            reset_into(registers, partition);
        }
        loop {
            aarch64_cpu::asm::wfi();
        }
    }
}

/// Resets the board, into the boot partition that these bits of PM_RSTS name.
fn reset_into(registers: Mmio, partition: u32) {
    let status = registers.read32(PM_RSTS) & !(0xff << 24 | PM_RSTS_PARTITION);
    registers.write32(PM_RSTS, PM_PASSWORD | status | partition);
    registers.write32(PM_WDOG, PM_PASSWORD | PM_SOON);
    let control = registers.read32(PM_RSTC) & !(0xff << 24 | PM_RSTC_WRCFG);
    registers.write32(PM_RSTC, PM_PASSWORD | control | PM_RSTC_FULL_RESET);
}

static COMES_BACK: AtomicBool = AtomicBool::new(false);

/// From here on the machine starts anew where it would stop.
pub fn come_back() {
    COMES_BACK.store(true, Ordering::Relaxed);
}

static WAY: Lock<Option<Off>> = Lock::new(None);

/// Keeps the way to stop for those who cannot be told: panics and fatal exceptions.
pub fn remember(off: Off) -> Off {
    WAY.with(|way| *way = Some(off));
    off
}

/// Stops the machine with a failure, from any state.
pub fn fail() -> ! {
    // SAFETY: the machine stops; the value is only read, and was written once at the start.
    let way = unsafe { WAY.seize(|way| *way) };
    way.unwrap_or_default().stop(true)
}

/// Looks for a panic notifier on bus 0 of the PCI host bridge and opens it at `window`, a free 32-bit address there.
///
/// `configuration` is the bridge's ECAM, `window` one page of its memory window, which the bus knows as `base`.
pub fn find_panic_notifier(configuration: Mmio, window: Region<Pa>, base: u32) -> Option<Mmio> {
    let function = (0..32_u64).map(|slot| slot << 15).find(|at| configuration.read32(*at) == PVPANIC_ID)?;
    configuration.write32(function + 0x10, base); // BAR 0
    configuration.write32(function + 0x04, 0b10); // command: memory space
    // SAFETY: the bridge's window is device memory of nobody else, and the caller has it mapped.
    Some(unsafe { Mmio::new(window) })
}
