//! Smoke
#![no_std]
#![no_main]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use trapeze_kit::exception::catch;
use trapeze_kit::*;
trapeze_kit::entry!(main);
static SEEN: AtomicU64 = AtomicU64::new(0);
static IRQ: AtomicU64 = AtomicU64::new(0);
fn second(argument: u64) {
    SEEN.fetch_add(argument, SeqCst);
}
fn irq(_: &mut exception::Frame) {
    let gic = gic::Gic::detect();
    let iar = gic.acknowledge();
    IRQ.store(iar as u64, SeqCst);
    timer::Timer::Virtual.set_control(0);
    gic.end(iar);
}
fn main(tree: u64) -> ! {
    println!("hello {:#x} {}", tree, cpu::slot());
    println!(
        "fdt {:?} {:?}",
        fdt::Fdt::at(tree).map(|f| f.bootargs()),
        fdt::Fdt::at(tree).and_then(|f| f.memory())
    );
    println!("undef {:x?}", catch(|| mrs!("HCR_EL2")));
    println!("ok {:x?}", catch(|| mrs!("MIDR_EL1")));
    println!("abort {:x?}", catch(|| mmio::read32(0x0fff_0000)));
    println!("smc {:x?}", catch(|| psci::call(psci::Conduit::Smc, [0x8400_0000, 0, 0, 0, 0, 0, 0, 0])));
    let gic = gic::Gic::detect();
    gic.init_distributor();
    gic.init_cpu();
    exception::set_interrupt(Some(irq));
    gic.enable(27);
    timer::Timer::Virtual.set_value(1000);
    timer::Timer::Virtual.set_control(1);
    ins!("msr daifclr, #2");
    timer::within_ms(100, || IRQ.load(SeqCst) != 0);
    ins!("msr daifset, #2");
    println!("irq {}", IRQ.load(SeqCst));
    println!("cpus {}", smp::present());
    for g in [mmu::Granule::K4, mmu::Granule::K16, mmu::Granule::K64] {
        if !g.is_implemented() {
            println!("no {g:?}");
            continue;
        }
        mmu::enable(g);
        SEEN.store(0, SeqCst);
        for c in 1..smp::present() {
            println!("start {}", smp::start(c, second, 7));
            println!("{}", smp::wait_off(c));
        }
        static CODE: [u32; 2] = [0xd53be040, 0xd4000541]; // mrs x0, cntvct; svc 42
        let (e, f) = el0::call(CODE.as_ptr().addr() as u64 + mmu::USER, 5, 0);
        println!("{g:?} {} {:x?} {:x}", SEEN.load(SeqCst), e, f.x[0]);
        println!("pxn {:x?}", catch(|| mmio::read32(0x40_0000_0000)));
        mmu::disable();
    }
    psci::power_off()
}
