//! Interrupts that a node's properties name, as numbers of the GIC.
//!
//! Not here: interrupt nexus nodes (`interrupt-map`); their devices are on buses that are not read.
//! Follows the Devicetree Specification v0.4, 2.4.1 (interrupt generating devices), and the specifiers of
//! the GIC: a cell for the kind, one for the number, one for flags (the `arm,gic` and `arm,gic-v3` bindings).

use fdt::Fdt;
use fdt::node::FdtNode;

use super::node::{self, Cells, Fault, Reason};
use super::path::{NodePath, PropertyError};
use crate::ids::IntId;

/// Says how the GIC sees an interrupt on its wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Pending from an edge on.
    Edge,
    /// Pending while the level lasts.
    Level,
}

/// An interrupt as a controller in the tree knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// `phandle` of the controller.
    pub controller: u32,
    /// The number.
    pub intid: IntId,
    /// The trigger.
    pub trigger: Trigger,
}

/// Most cells in an interrupt specifier; GICv3 with PPI partitions uses this many.
const MAX_SPECIFIER_CELLS: u32 = 4;

/// The kinds of interrupt: first cell, INTID of number 0, count (Arm IHI 0069H, 2.2.1).
const KINDS: [(u32, u32, u32); 4] = [
    (0, 32, 988),    // SPI
    (1, 16, 16),     // PPI
    (2, 4096, 1024), // extended SPI
    (3, 1056, 64),   // extended PPI
];

/// A controller, and how many cells name one of its interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controller {
    phandle: u32,
    cells: u32,
}

/// The interrupts of one node.
#[derive(Clone, Copy)]
pub enum Interrupts<'b, 'a> {
    /// There are none.
    None,
    /// All go to one controller: the value of `interrupts`, and where they go.
    Plain(&'a [u8], Controller),
    /// Each has its own: the value of `interrupts-extended`, and the tree to look controllers up in.
    Extended(&'a [u8], &'b Fdt<'a>),
}

impl Interrupts<'_, '_> {
    /// Reads interrupt `index`; `None` where there are fewer.
    ///
    /// # Errors
    /// The property is malformed, or the interrupt is none of a GIC.
    pub fn get(&self, index: usize) -> Result<Option<Interrupt>, Fault> {
        match *self {
            Self::None => Ok(None),
            Self::Plain(value, controller) => plain(controller, value, index),
            Self::Extended(value, fdt) => extended(fdt, value, index),
        }
    }
}

impl<'b, 'a> NodePath<'b, 'a> {
    /// Finds the interrupts of the node: those of `interrupts-extended` or else of `interrupts`.
    ///
    /// # Errors
    /// The way to the interrupt controller is malformed.
    pub fn interrupts(&self, fdt: &'b Fdt<'a>) -> Result<Interrupts<'b, 'a>, PropertyError> {
        if let Some(value) = node::value(self.node(), "interrupts-extended") {
            return Ok(Interrupts::Extended(value, fdt));
        }
        let Some(value) = node::value(self.node(), "interrupts") else { return Ok(Interrupts::None) };
        Ok(Interrupts::Plain(value, self.interrupt_parent(fdt)?))
    }

    /// Reads interrupt `index` of the node; `None` where there are fewer.
    ///
    /// # Errors
    /// The properties are malformed, or the interrupt is none of a GIC.
    pub fn interrupt(&self, fdt: &'b Fdt<'a>, index: usize) -> Result<Option<Interrupt>, PropertyError> {
        self.interrupts(fdt)?.get(index).map_err(|fault| self.error(fault))
    }

    /// Reads interrupt `index` as [`Self::interrupt`] does, and takes its absence as an error.
    ///
    /// # Errors
    /// The same, and fewer interrupts.
    pub fn required_interrupt(&self, fdt: &'b Fdt<'a>, index: usize) -> Result<Interrupt, PropertyError> {
        let has_any = node::has(self.node(), "interrupts") || node::has(self.node(), "interrupts-extended");
        let wanted = index.saturating_add(1);
        let reason = if has_any { Reason::TooFew { wanted } } else { Reason::Missing };
        self.interrupt(fdt, index)?.ok_or_else(|| self.fault("interrupts", reason))
    }

    /// Follows the nearest `interrupt-parent`, here or above.
    fn interrupt_parent(&self, fdt: &Fdt<'_>) -> Result<Controller, PropertyError> {
        let property = "interrupt-parent";
        for (levels, node) in self.upwards().enumerate() {
            let phandle = node::cell(node, property).map_err(|fault| self.error_above(levels, fault))?;
            if let Some(phandle) = phandle {
                return controller(fdt, property, phandle).map_err(|fault| self.error_above(levels, fault));
            }
        }
        Err(self.fault(property, Reason::Missing))
    }
}

/// Reads specifier `index` of an `interrupts` property.
fn plain(controller: Controller, value: &[u8], index: usize) -> Result<Option<Interrupt>, Fault> {
    let property = "interrupts";
    let entry = node::bytes_of(controller.cells);
    node::whole_entries(property, value, entry)?;
    let start = index.saturating_mul(entry);
    match value.get(start..) {
        Some([]) | None => Ok(None),
        Some(specifier) => decode(property, controller, &mut Cells::new(specifier)).map(Some),
    }
}

/// Reads specifier `index` of an `interrupts-extended` property, in which a phandle precedes each.
fn extended(fdt: &Fdt<'_>, value: &[u8], index: usize) -> Result<Option<Interrupt>, Fault> {
    let property = "interrupts-extended";
    let mut cells = Cells::new(value);
    let mut left = index;
    while let Some(phandle) = cells.cell() {
        let controller = controller(fdt, property, phandle)?;
        if left == 0 {
            return decode(property, controller, &mut cells).map(Some);
        }
        cells.skip(controller.cells);
        left -= 1;
    }
    Ok(None)
}

/// Finds an interrupt controller and the length of its specifiers.
fn controller(fdt: &Fdt<'_>, property: &'static str, phandle: u32) -> Result<Controller, Fault> {
    let none = Fault { property, reason: Reason::NoController(phandle) };
    let found: FdtNode<'_, '_> = fdt.find_phandle(phandle).ok_or(none)?;
    let cells = node::cell(found, "#interrupt-cells")?.ok_or(none)?;
    let fits = (1..=MAX_SPECIFIER_CELLS).contains(&cells);
    fits.then_some(Controller { phandle, cells }).ok_or(none)
}

/// Decodes one specifier of a GIC.
fn decode(property: &'static str, controller: Controller, cells: &mut Cells<'_>) -> Result<Interrupt, Fault> {
    let fault = |reason| Fault { property, reason };
    if controller.cells < 3 {
        return Err(fault(Reason::NoController(controller.phandle)));
    }
    let mut cell = || cells.cell().ok_or(fault(Reason::TooFew { wanted: 3 }));
    let (kind, number, flags) = (cell()?, cell()?, cell()?);
    let (_, first, _) = KINDS
        .into_iter()
        .find(|(code, _, count)| *code == kind && number < *count)
        .ok_or(fault(Reason::NoInterrupt { kind, number }))?;
    // Bits 1:0 are the two edges, 3:2 the two levels; the bits above say which CPUs have the PPI.
    let trigger = if flags & 0b11 == 0 { Trigger::Level } else { Trigger::Edge };
    Ok(Interrupt { controller: controller.phandle, intid: IntId(first + number), trigger })
}
