//! What the CPUs know of each other: who is up, who is idle, and the run queue of each.
//!
//! Not here: what one CPU has for itself (`percpu`), who in a queue is next (the allocator's scheduler), and what a CPU does
//! about it (`run`).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::registers::{CNTFRQ_EL0, Readable};
use spin::{Mutex, MutexGuard};
use trapeze::allocator::scheduler::{Account, Reaction, RunQueue, Slot};
use trapeze::ids::{PcpuId, Ticks};
use trapeze::share::PcpuSet;
use trapeze::vm::{Place, Post};

use super::gic::Gic;
use super::percpu::Guest;
use super::timer;

/// What the other CPUs know of a physical CPU.
struct Cpu {
    /// By what name to kick it.
    address: AtomicU64,
    /// It is to look at its run queue.
    is_called: AtomicBool,
    /// It is to publish the exits of the vCPU that it runs, when it does so.
    is_asked: AtomicBool,
    /// The vCPUs that it runs, one after the other.
    queue: Mutex<RunQueue<Guest>>,
    /// When it was last asked how busy it was, and for how long it had been so.
    sample: Mutex<(u64, u64)>,
}

/// All CPUs of the machine.
pub struct Cpus {
    all: Vec<Cpu>,
    /// Those that run in EL2, one bit each.
    up: AtomicU64,
    /// Those that run nobody, one bit each.
    idle: AtomicU64,
    /// vCPUs in all run queues.
    in_play: AtomicUsize,
}

/// A vCPU in a run queue, which stays there for as long as the queue is held.
pub struct Found<'a> {
    /// The CPU.
    pub pcpu: PcpuId,
    /// Its name in the queue.
    pub slot: Slot,
    /// The queue.
    pub queue: MutexGuard<'a, RunQueue<Guest>>,
}

impl Cpus {
    /// Describes `count` CPUs, none of which is up.
    pub fn new(count: usize) -> Self {
        let cpu = |_| Cpu {
            address: AtomicU64::new(0),
            is_called: AtomicBool::new(false),
            is_asked: AtomicBool::new(false),
            queue: Mutex::new(RunQueue::new(CNTFRQ_EL0.get())),
            sample: Mutex::new((timer::now().0, 0)),
        };
        Self {
            all: (0..count).map(cpu).collect(),
            up: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            in_play: AtomicUsize::new(0),
        }
    }

    fn cpu(&self, pcpu: PcpuId) -> &Cpu {
        &self.all[pcpu.index()]
    }

    /// Returns how many CPUs are used, if all of them start.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Marks a CPU as running in EL2, reachable by its interrupt controller's name for it.
    pub fn came_up(&self, pcpu: PcpuId, gic: &Gic) {
        self.cpu(pcpu).address.store(gic.address(), Ordering::Relaxed);
        self.up.fetch_or(PcpuSet::only(pcpu).bits(), Ordering::Release);
    }

    /// Returns the CPUs that run in EL2.
    #[inline]
    pub fn up(&self) -> PcpuSet {
        PcpuSet::from_bits(self.up.load(Ordering::Acquire))
    }

    /// Returns the interrupt controller's name for a CPU.
    pub fn address(&self, pcpu: PcpuId) -> u64 {
        self.cpu(pcpu).address.load(Ordering::Relaxed)
    }

    /// Interrupts another CPU, or this one.
    pub fn kick(&self, gic: &Gic, pcpu: PcpuId) {
        gic.kick(self.address(pcpu));
    }

    /// Returns the run queue of a CPU.
    pub fn queue(&self, pcpu: PcpuId) -> MutexGuard<'_, RunQueue<Guest>> {
        self.cpu(pcpu).queue.lock()
    }

    /// Makes a CPU look at its run queue when it next goes on; from elsewhere it is kicked as well.
    pub fn call(&self, pcpu: PcpuId) {
        self.cpu(pcpu).is_called.store(true, Ordering::Release);
    }

    /// Tells whether a CPU is to look at its run queue.
    #[inline]
    pub fn is_called(&self, pcpu: PcpuId) -> bool {
        self.cpu(pcpu).is_called.load(Ordering::Acquire)
    }

    /// Notes that a CPU is about to look at its run queue.
    pub fn answers(&self, pcpu: PcpuId) {
        self.cpu(pcpu).is_called.store(false, Ordering::Release);
    }

    /// Makes a CPU look at its run queue now.
    fn call_now(&self, gic: &Gic, pcpu: PcpuId) {
        self.call(pcpu);
        self.kick(gic, pcpu);
    }

    /// Says that a CPU runs nobody, or somebody.
    pub fn set_idle(&self, pcpu: PcpuId, idle: bool) {
        let bit = PcpuSet::only(pcpu).bits();
        // Sequentially consistent: who queues a vCPU sees the bit, or the CPU that sets it sees the vCPU.
        if idle {
            self.idle.fetch_or(bit, Ordering::SeqCst);
        } else {
            self.idle.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Finds a vCPU by its post; `None` if it rests.
    pub fn find(&self, post: &Post) -> Option<Found<'_>> {
        loop {
            let (pcpu, slot) = match post.place() {
                Place::Resting => return None,
                Place::Moving => {
                    core::hint::spin_loop();
                    continue;
                }
                Place::At(pcpu, slot) => (pcpu, slot),
            };
            let queue = self.queue(pcpu);
            if post.place() == Place::At(pcpu, slot) {
                return Some(Found { pcpu, slot: Slot::new(slot), queue });
            }
        }
    }

    /// Makes a vCPU look at its post, wherever it is.
    pub fn summon(&self, gic: &Gic, post: &Post) {
        if let Some(found) = self.find(post) {
            self.wake(gic, found);
        }
    }

    /// Wakes a vCPU in the run queue of a CPU.
    fn wake(&self, gic: &Gic, found: Found<'_>) {
        let Found { pcpu, slot, mut queue } = found;
        let reaction = queue.wake(slot, timer::now());
        if reaction == Reaction::Attend {
            self.call(pcpu);
        }
        if reaction != Reaction::Nothing {
            self.kick(gic, pcpu);
        }
        let idle = PcpuSet::from_bits(self.idle.load(Ordering::SeqCst));
        if reaction != Reaction::Runs && !idle.is_empty() && !idle.contains(pcpu) {
            let may = queue.get(slot).map_or(PcpuSet::EMPTY, |guest| guest.tenant.cpus);
            if let Some(other) = idle.and(may).iter().next() {
                self.call_now(gic, other); // it will find that there is somebody to take
            }
        }
    }

    /// Puts a vCPU into the run queue of the CPU that has the least to do of those that may run it.
    pub fn enqueue(&self, gic: &Gic, guest: Guest, account: Account) {
        let load = |pcpu: &PcpuId| self.queue(*pcpu).members();
        let Some(pcpu) = self.up().and(guest.tenant.cpus).iter().min_by_key(load) else {
            unreachable!("a VM that no CPU may run");
        };
        self.in_play.fetch_add(1, Ordering::SeqCst);
        self.put(gic, pcpu, guest, account);
        self.tell_all_if(gic, self.up().count() + 1);
    }

    fn put(&self, gic: &Gic, pcpu: PcpuId, guest: Guest, account: Account) {
        let mut queue = self.queue(pcpu);
        let share = guest.tenant.share;
        let slot = queue.join(guest, share, account);
        if let Some(guest) = queue.get(slot) {
            guest.post().set_place(Place::At(pcpu, slot.index()));
        }
        self.wake(gic, Found { pcpu, slot, queue });
    }

    /// Notes that a vCPU left its run queue.
    pub fn left(&self, gic: &Gic) {
        self.in_play.fetch_sub(1, Ordering::SeqCst);
        self.tell_all_if(gic, self.up().count());
    }

    /// Makes all CPUs see whether waiting traps, if there are just so many vCPUs that this has changed.
    fn tell_all_if(&self, gic: &Gic, vcpus: usize) {
        if self.in_play.load(Ordering::SeqCst) == vcpus {
            self.up().iter().for_each(|pcpu| self.call_now(gic, pcpu));
        }
    }

    /// Tells whether vCPUs share CPUs: then one that waits is to let others have its CPU.
    pub fn are_shared(&self) -> bool {
        self.in_play.load(Ordering::Relaxed) > self.up().count()
    }

    /// Takes a vCPU that waits for another CPU over to this one, which has nothing to do.
    pub fn steal(&self, gic: &Gic, me: PcpuId) -> bool {
        let (up, count) = (self.up(), self.count() as u8);
        let others = (1..count).map(|further| PcpuId((me.0 + further) % count));
        for other in others.filter(|other| up.contains(*other)) {
            let mut queue = self.queue(other);
            let stolen = queue.steal(timer::now(), |guest| guest.tenant.cpus.contains(me));
            if let Some((_, guest, _, account)) = stolen {
                guest.post().set_place(Place::Moving);
                drop(queue);
                self.put(gic, me, guest, account);
                return true;
            }
        }
        false
    }

    /// Tells whether a CPU is to publish the exits of the vCPU that it runs.
    pub fn is_asked(&self, pcpu: PcpuId) -> bool {
        self.cpu(pcpu).is_asked.load(Ordering::Acquire)
    }

    /// Notes that a CPU has published them.
    pub fn has_published(&self, pcpu: PcpuId) {
        self.cpu(pcpu).is_asked.store(false, Ordering::Release);
    }

    /// Makes the CPUs other than `me` publish the exits of the vCPUs that they run, and waits for that a millisecond at
    /// most.
    pub fn ask_for_exits(&self, gic: &Gic, me: PcpuId) {
        let others = || self.up().iter().filter(|pcpu| *pcpu != me);
        for pcpu in others() {
            self.cpu(pcpu).is_asked.store(true, Ordering::Release);
            self.call_now(gic, pcpu);
        }
        let deadline = timer::now().0 + CNTFRQ_EL0.get() / 1000;
        while others().any(|pcpu| self.is_asked(pcpu)) && timer::now().0 < deadline {}
    }

    /// Returns what a CPU was busy since this was asked last, when it had been so for `busy` ticks in all.
    pub fn busy_permille(&self, pcpu: PcpuId, now: Ticks, busy: u64) -> u32 {
        let mut sample = self.cpu(pcpu).sample.lock();
        let (at, before) = core::mem::replace(&mut *sample, (now.0, busy));
        let span = now.0.saturating_sub(at).max(1);
        (busy.saturating_sub(before).saturating_mul(1000) / span).min(1000) as u32
    }
}
