//! The image: the boot order on one screen.
//!
//! Not here: how each step is done (`arch/`) and what guests get (the library).
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod arch;

/// The boot CPU comes here with its MMU off, relocated, on its own stack.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn boot_cpu_entry(device_tree: u64, exception_level: u64) -> ! {
    use arch::tenant::{self, Host};
    use arch::{boot, heap, loader, power, run, secondary};

    heap::open();
    let tree = boot::locate_device_tree(device_tree);
    if exception_level != 2 {
        boot::refuse_level(exception_level, tree);
    }
    let mut map = boot::enable_mmu(tree);
    let (board, tree) = boot::read_board(tree, &mut map);
    let off = power::remember(boot::ways_to_stop(&board, &mut map));
    let memory = boot::claim_memory(&board, &mut map);
    let monitor = boot::make_monitor(&board, &mut map, memory.frames, off);
    let cpu = boot::make_cpu(monitor, 0);
    secondary::start_all(&board, &map, monitor);
    let bundle = loader::offer(&board, monitor, memory.largest, memory.bundle);
    tenant::start_all(&Host { board: &board, tree: &tree }, monitor, cpu, bundle);
    run::enter(cpu)
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("This is an image for an AArch64 machine, not for this one. `make run` starts it in QEMU.");
}
