//! The GIC against a reference that has no list registers: each interrupt a record, no bitmaps, no residence.
//!
//! Every vCPU that a call names is folded and planned at once, so at every moment each CPU interface must be
//! shown what the reference says: a kick that is missing, a lost or doubled interrupt, a wrong order and
//! a physical interrupt that stays active for nobody all show up as a difference.

use super::cpu::VirtualCpu;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Steps of a case; Miri takes seconds for ten.
const MOST_STEPS: usize = if cfg!(miri) { 12 } else { 250 };
const VCPUS: u8 = 3;
const SHARED: u8 = 0xff;
const INTIDS: [u32; 12] = [1, 2, 20, 21, 27, 33, 34, 63, 64, 65, 66, 287];
/// An SPI that a device of the host's stands behind, and its physical one.
const DEVICE: IntId = IntId(34);
const PHYSICAL_DEVICE: IntId = IntId(300);

#[derive(Clone, Default)]
struct Interrupt {
    enabled: bool,
    group1: bool,
    latch: bool,
    line: bool,
    edge: bool,
    active: bool,
    priority: u8,
    sources: u8,
    target: u8,
}

impl Interrupt {
    fn is_pending(&self) -> bool {
        self.latch || self.sources != 0 || self.line && !self.edge
    }
}

/// What the guest, a device or the timer does.
#[derive(Clone, Debug)]
enum Op {
    Enable(u8, usize, bool),
    Pend(u8, usize, bool),
    Level(u8, usize, bool),
    Edge(u8, usize, bool),
    Priority(u8, usize, u8),
    Group(u8, usize, bool),
    Control(u64),
    Target(usize, u8),
    Sgi(u8, u8, usize, bool),
    Fire(u8),
    FireDevice(u8),
    Acknowledge(u8),
    End(u8),
    Deactivate(u8, usize),
    Exit(u8),
}

fn any_op() -> impl Strategy<Value = Op> {
    // Mostly the first vCPU: it is to have more than its list registers hold.
    let cpu = prop_oneof![3 => Just(0), 1 => 0..VCPUS];
    let id = 0..INTIDS.len();
    let set = any::<bool>();
    prop_oneof![
        4 => (cpu.clone(), id.clone(), 0..4).prop_map(|(c, i, s)| Op::Enable(c, i, s != 0)),
        3 => (cpu.clone(), id.clone(), set).prop_map(|(c, i, s)| Op::Pend(c, i, s)),
        4 => (cpu.clone(), id.clone(), set).prop_map(|(c, i, s)| Op::Level(c, i, s)),
        1 => (cpu.clone(), id.clone(), set).prop_map(|(c, i, s)| Op::Edge(c, i, s)),
        2 => (cpu.clone(), id.clone(), 0..6_u8).prop_map(|(c, i, p)| Op::Priority(c, i, p * 8)),
        1 => (cpu.clone(), id.clone(), set).prop_map(|(c, i, s)| Op::Group(c, i, s)),
        1 => prop_oneof![3 => Just(3), 1 => 0..4_u64].prop_map(Op::Control),
        2 => (id.clone(), cpu.clone()).prop_map(|(i, c)| Op::Target(i, c)),
        4 => (cpu.clone(), cpu.clone(), 0..2_usize, set).prop_map(|(f, t, i, s)| Op::Sgi(f, t, i, s)),
        2 => cpu.clone().prop_map(Op::Fire),
        2 => cpu.clone().prop_map(Op::FireDevice),
        8 => cpu.clone().prop_map(Op::Acknowledge),
        6 => cpu.clone().prop_map(Op::End),
        4 => (cpu.clone(), any::<usize>()).prop_map(|(c, n)| Op::Deactivate(c, n)),
        1 => cpu.prop_map(Op::Exit),
    ]
}

/// The GIC with its CPUs, and the reference.
struct Bench {
    vgic: Vgic,
    cpus: Vec<VirtualCpu>,
    split: bool,
    groups: u64,
    records: BTreeMap<(u8, u32), Interrupt>,
    physical_active: [bool; 3],
    device_active: bool,
    device_heard: bool,
}

impl Bench {
    fn new(version: GicVersion, split: bool, count: u8) -> Self {
        let mut vgic = running(version, VCPUS, &[]);
        vgic.back_by_hardware(TIMER, TIMER);
        vgic.back_by_hardware(DEVICE, PHYSICAL_DEVICE);
        let mut records = BTreeMap::new();
        for intid in INTIDS {
            let holders: Vec<u8> = if intid < 32 { (0..VCPUS).collect() } else { vec![SHARED] };
            for holder in holders {
                let enabled = version == GicVersion::V2 && intid < 16;
                let target = if version == GicVersion::V2 { SHARED } else { 0 };
                let edge = intid < 16;
                records.insert((holder, intid), Interrupt { enabled, edge, target, ..Interrupt::default() });
            }
        }
        let cpus = (0..VCPUS).map(|id| VirtualCpu::new(VcpuId(id), count)).collect();
        let (device_active, device_heard) = (false, false);
        let physical_active = [false; 3];
        let mut bench =
            Self { vgic, cpus, split, groups: 3, records, physical_active, device_active, device_heard };
        let vcpus = if cfg!(miri) { 1 } else { VCPUS };
        for (index, cpu) in (0..INTIDS.len()).flat_map(|index| (0..vcpus).map(move |cpu| (index, cpu))) {
            let priority = u8::try_from(INTIDS.len() - index).unwrap() / 2 * 8;
            for op in [Op::Enable(cpu, index, true), Op::Priority(cpu, index, priority), Op::Target(index, 0)]
            {
                bench.step(&op);
            }
        }
        bench
    }

    fn key(cpu: u8, intid: u32) -> (u8, u32) {
        (if intid < 32 { cpu } else { SHARED }, intid)
    }

    fn record(&mut self, cpu: u8, intid: u32) -> &mut Interrupt {
        self.records.get_mut(&Self::key(cpu, intid)).unwrap()
    }

    fn is_forwarded(&self, record: &Interrupt) -> bool {
        record.enabled && self.groups & (1 << u8::from(record.group1)) != 0
    }

    /// What the reference shows to a CPU, given what it runs.
    fn expected(&self, cpu: u8) -> Option<IntId> {
        let running = self.cpus[usize::from(cpu)].running.last();
        let running = running.map_or(0x100, |(_, priority)| u16::from(*priority));
        let mine = self
            .records
            .iter()
            .filter(|((holder, _), record)| *holder == cpu || *holder == SHARED && record.target == cpu);
        let shown = mine
            .filter(|(_, record)| record.is_pending() && self.is_forwarded(record) && !record.active)
            .min_by_key(|((_, intid), record)| (record.priority, *intid))?;
        (u16::from(shown.1.priority) < running).then_some(IntId(shown.0.1))
    }

    fn enter(&mut self, cpu: usize) {
        self.cpus[cpu].enter(&mut self.vgic);
        if self.cpus[cpu].loaded.withdrawn {
            while let Some(errand) = self.vgic.take_errand(VcpuId(u8::try_from(cpu).unwrap())) {
                match errand {
                    Errand::Deactivate(physical) => self.deactivated(cpu, physical),
                    Errand::LetThrough(physical, on) => {
                        assert_eq!((physical, !on), (PHYSICAL_DEVICE, self.device_heard));
                        self.device_heard = on;
                    }
                }
            }
        }
    }

    /// Takes a vCPU out and puts it back, then those that this concerns, and so on.
    fn kick(&mut self, vcpus: VcpuSet) {
        let mut left = vcpus;
        for _ in 0..20 {
            let Some(next) = left.iter().next() else { return };
            let cpu = next.index();
            left = left.without(next);
            left.add(self.cpus[cpu].leave(&mut self.vgic));
            self.collect(cpu);
            self.enter(cpu);
        }
        panic!("vCPUs kick each other without end");
    }

    /// Notes the physical interrupts that the hardware deactivated.
    fn collect(&mut self, cpu: usize) {
        for physical in std::mem::take(&mut self.cpus[cpu].deactivated) {
            self.deactivated(cpu, physical);
        }
    }

    fn deactivated(&mut self, cpu: usize, physical: IntId) {
        match physical {
            TIMER => self.physical_active[cpu] = false,
            PHYSICAL_DEVICE => self.device_active = false,
            _ => panic!("nothing stands for {physical:?}"),
        }
    }

    /// Serves maintenance interrupts.
    fn maintain(&mut self, cpu: u8) {
        self.collect(usize::from(cpu));
        for _ in 0..4 {
            if !self.cpus[usize::from(cpu)].wants_maintenance() {
                return;
            }
            self.kick(VcpuSet::only(VcpuId(cpu)));
        }
        panic!("a maintenance interrupt that does not go away");
    }

    fn check(&mut self) {
        for cpu in 0..VCPUS {
            self.maintain(cpu);
            let at = usize::from(cpu);
            assert_eq!(self.cpus[at].signalled(), self.expected(cpu), "vCPU {cpu}");
            let record = &self.records[&(cpu, TIMER.0)];
            let held = record.latch || record.active;
            assert_eq!(self.physical_active[at], held, "physical timer of vCPU {cpu}");
            assert_eq!(
                self.cpus[at].loaded.hardware_enabled != 0,
                self.is_forwarded(&self.records[&(cpu, TIMER.0)]),
            );
        }
        let device = &self.records[&(SHARED, DEVICE.0)];
        assert_eq!(self.device_active, device.latch || device.active, "the physical device's interrupt");
        assert_eq!(self.device_heard, self.is_forwarded(device), "what the physical GIC lets through");
        for ((holder, intid), record) in &self.records {
            let cpu = VcpuId(if *holder == SHARED { 0 } else { *holder });
            let at = format!("{intid} of {holder}");
            // What CPU interfaces took is known after a fold only; what is not resident is exact.
            let resident = self.cpus.iter().any(|cpu| {
                (*holder == SHARED || cpu.id.0 == *holder)
                    && cpu.loaded.in_use().any(|entry| entry.virtual_id.0 == *intid)
            });
            if !resident {
                assert_eq!(self.vgic.bit(cpu, ISPENDR, IntId(*intid)), record.is_pending(), "pending {at}");
                assert_eq!(self.vgic.bit(cpu, ISACTIVER, IntId(*intid)), record.active, "active {at}");
            }
        }
    }

    /// The physical interrupts that the guest does not listen to are given back.
    fn release_unheard(&mut self) {
        for cpu in 0..VCPUS {
            let heard = self.is_forwarded(&self.records[&(cpu, TIMER.0)]);
            self.record(cpu, TIMER.0).latch &= heard;
        }
        let heard = self.is_forwarded(&self.records[&(SHARED, DEVICE.0)]);
        self.record(0, DEVICE.0).latch &= heard;
    }

    fn step(&mut self, op: &Op) {
        let kicked = match *op {
            Op::Acknowledge(cpu) => return self.acknowledge(cpu),
            Op::End(cpu) => return self.end(cpu),
            Op::Deactivate(cpu, pick) => return self.deactivate(cpu, pick),
            Op::Exit(cpu) => VcpuSet::only(VcpuId(cpu)),
            Op::Fire(cpu) => self.fire(cpu),
            Op::FireDevice(cpu) => self.fire_device(cpu),
            Op::Sgi(from, to, index, group1) => self.send(from, to, INTIDS[index], group1),
            Op::Control(groups) => {
                self.groups = groups;
                self.vgic.set_gicd(CPU0, CTLR, groups)
            }
            Op::Target(index, cpu) if INTIDS[index] >= 32 => {
                self.record(0, INTIDS[index]).target = cpu;
                self.vgic.set_target(IntId(INTIDS[index]), VcpuId(cpu))
            }
            Op::Target(..) => VcpuSet::EMPTY,
            _ => self.configure(op),
        };
        self.release_unheard();
        self.kick(kicked);
    }

    /// Writes to a register, or moves a line, of one interrupt.
    fn configure(&mut self, op: &Op) -> VcpuSet {
        let v2 = self.vgic.version() == GicVersion::V2;
        let (Op::Enable(cpu, index, _)
        | Op::Pend(cpu, index, _)
        | Op::Level(cpu, index, _)
        | Op::Edge(cpu, index, _)
        | Op::Group(cpu, index, _)
        | Op::Priority(cpu, index, _)) = *op
        else {
            return VcpuSet::EMPTY;
        };
        let (id, vcpu) = (INTIDS[index], VcpuId(cpu));
        let intid = IntId(id);
        let record = self.records.get_mut(&Self::key(cpu, id)).unwrap();
        match *op {
            Op::Enable(_, _, enable) => {
                record.enabled = enable || v2 && id < 16;
                self.vgic.set_bit(vcpu, if enable { ISENABLER } else { ICENABLER }, intid)
            }
            Op::Pend(_, _, true) | Op::Edge(..) if intid == DEVICE => VcpuSet::EMPTY,
            Op::Pend(_, _, true) if id == TIMER.0 => VcpuSet::EMPTY,
            Op::Pend(_, _, pend) => {
                record.latch = if v2 && id < 16 { record.latch } else { pend };
                self.vgic.set_bit(vcpu, if pend { ISPENDR } else { ICPENDR }, intid)
            }
            Op::Level(..) if [TIMER, DEVICE].contains(&intid) || id < 16 => VcpuSet::EMPTY,
            Op::Level(_, _, level) => {
                record.latch |= record.edge && level && !record.line;
                record.line = level;
                self.vgic.set_line(vcpu, intid, level)
            }
            Op::Edge(_, _, edge) => {
                record.edge = edge || id < 16;
                self.vgic.set_edge(vcpu, intid, edge)
            }
            Op::Group(_, _, group1) => {
                record.group1 = group1;
                let word = (0..32).map(|lane| IntId(id / 32 * 32 + lane));
                let word = word.rev().fold(0, |word, other| {
                    let set = if other == intid { group1 } else { self.vgic.bit(vcpu, IGROUPR, other) };
                    word << 1 | u64::from(set)
                });
                self.vgic.set_bank(vcpu, IGROUPR, intid, word)
            }
            Op::Priority(_, _, priority) if !record.active => {
                record.priority = priority;
                self.vgic.set_priority(vcpu, intid, priority)
            }
            _ => VcpuSet::EMPTY,
        }
    }

    /// The physical timer fires, if the machine has it enabled and it is not active.
    fn fire(&mut self, cpu: u8) -> VcpuSet {
        let at = usize::from(cpu);
        if self.physical_active[at] || !self.vgic.is_enabled(VcpuId(cpu), TIMER) {
            return VcpuSet::EMPTY;
        }
        self.physical_active[at] = true;
        self.record(cpu, TIMER.0).latch = true;
        self.vgic.set_line(VcpuId(cpu), TIMER, true)
    }

    /// The device's interrupt is acknowledged by a CPU, if it is let through and not active.
    fn fire_device(&mut self, cpu: u8) -> VcpuSet {
        if self.device_active || !self.device_heard {
            return VcpuSet::EMPTY;
        }
        self.device_active = true;
        self.record(cpu, DEVICE.0).latch = true;
        self.vgic.set_line(VcpuId(cpu), DEVICE, true)
    }

    fn send(&mut self, from: u8, to: u8, intid: u32, group1: bool) -> VcpuSet {
        if self.vgic.version() == GicVersion::V2 {
            self.record(to, intid).sources |= 1 << from;
            return self.vgic.set_gicd(VcpuId(from), SGIR, 1 << (16 + to) | u64::from(intid));
        }
        let record = self.record(to, intid);
        record.latch |= record.group1 == group1;
        let register = if group1 { SgiRegister::Sgi1r } else { SgiRegister::Sgi0r };
        self.vgic.send_sgi_v3(VcpuId(from), register, u64::from(intid) << 24 | 1 << to)
    }

    fn acknowledge(&mut self, cpu: u8) {
        let expected = self.expected(cpu);
        let taken = self.cpus[usize::from(cpu)].acknowledge();
        assert_eq!(taken.map(|entry| entry.virtual_id), expected);
        let Some(entry) = taken else { return };
        let record = self.record(cpu, entry.virtual_id.0);
        if record.sources != 0 {
            assert_eq!(u32::from(entry.source.0), record.sources.trailing_zeros());
            record.sources &= record.sources - 1;
        }
        record.latch = false;
        record.active = true;
    }

    fn end(&mut self, cpu: u8) {
        let split = self.split;
        let ended = self.cpus[usize::from(cpu)].end(split);
        if let Some(id) = ended.filter(|_| !split) {
            self.record(cpu, id.0).active = false;
        }
        self.maintain(cpu);
    }

    /// Writes DIR on `cpu`, for something that it or, as SPIs allow, some other vCPU has dropped.
    fn deactivate(&mut self, cpu: u8, pick: usize) {
        let holders: Vec<(usize, IntId)> = (self.cpus.iter().enumerate())
            .flat_map(|(at, state)| state.dropped.iter().map(move |id| (at, *id)))
            .filter(|(at, id)| *at == usize::from(cpu) || !id.is_private())
            .collect();
        let Some((at, id)) = holders.get(pick % holders.len().max(1)).copied() else { return };
        self.cpus[at].dropped.retain(|dropped| *dropped != id);
        self.record(cpu, id.0).active = false;
        assert!(self.cpus[usize::from(cpu)].loaded.trap_deactivation);
        let mut kicked = self.cpus[usize::from(cpu)].leave(&mut self.vgic);
        kicked.add(VcpuSet::only(VcpuId(cpu)));
        self.collect(usize::from(cpu));
        kicked.add(self.vgic.deactivate(VcpuId(cpu), id));
        self.kick(kicked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn guests_are_shown_what_a_gic_without_list_registers_shows(
        version in prop::sample::select(BOTH.to_vec()),
        split in any::<bool>(),
        count in 1..5_u8,
        ops in prop::collection::vec(any_op(), 1..MOST_STEPS),
    ) {
        let mut bench = Bench::new(version, split, count);
        for op in &ops {
            bench.step(op);
            bench.check();
        }
    }
}
