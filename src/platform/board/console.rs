//! The UART that the monitor talks through.
//!
//! Not here: its driver, and its speed, which the firmware has set.
//! Follows the Devicetree Specification v0.4, 3.6 (`/chosen`), and the `arm,pl011` and
//! `brcm,bcm2835-aux-uart` bindings.

use alloc::vec::Vec;
use core::convert::Infallible;

use fdt::Fdt;

use super::{BoardError, registers};
use crate::addr::{Pa, Region};
use crate::dtb::interrupt::Interrupt;
use crate::dtb::node;
use crate::dtb::path::NodePath;

/// A UART that the monitor knows how to drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Console {
    /// Its kind.
    pub kind: UartKind,
    /// Its registers, which need not start or end at a page.
    pub registers: Region<Pa>,
    /// Its interrupt, where it has one; [`super::Board::console`] has none that do not go to the GIC.
    pub interrupt: Option<Interrupt>,
}

/// Kinds of UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UartKind {
    /// Arm PL011 (Arm DDI 0183G).
    Pl011,
    /// Mini UART of the BCM2835 and its successors, without the auxiliary enables in front of it.
    Bcm2835MiniUart,
}

/// Kinds by the `compatible` string.
const KINDS: [(&str, UartKind); 2] =
    [("arm,pl011", UartKind::Pl011), ("brcm,bcm2835-aux-uart", UartKind::Bcm2835MiniUart)];

impl Console {
    /// Finds the UART that `stdout-path` of `/chosen` names, or else the first PL011; `None` without either.
    ///
    /// For use before [`super::Board::read`], whose errors need a place to go.
    ///
    /// # Errors
    /// The UART's registers cannot be found by its properties.
    #[inline(never)]
    pub fn find(fdt: &Fdt<'_>) -> Result<Option<Self>, BoardError> {
        let Some((path, kind)) = stdout(fdt).or_else(|| first_pl011(fdt)) else { return Ok(None) };
        // An interrupt that cannot be made out is as good as none: output works all the same.
        let interrupt = path.interrupt(fdt, 0).ok().flatten();
        Ok(Some(Self { kind, registers: registers(&path, 0)?, interrupt }))
    }

    /// Lists the other UARTs that may be used: where somebody may be listening if nothing comes from this one.
    #[inline(never)]
    pub fn others(&self, fdt: &Fdt<'_>) -> Vec<Self> {
        let mut others = Vec::new();
        let Ok(()) =
            NodePath::walk(fdt, |path| {
                let found = kind(path).and_then(|kind| Some((kind, registers(path, 0).ok()?)));
                others.extend(
                    found
                        .filter(|(_, registers)| *registers != self.registers)
                        .map(|(kind, registers)| Self { kind, registers, interrupt: None }),
                );
                Ok::<(), Infallible>(())
            });
        others
    }

    /// Drops the interrupt if it is not one of the GIC with this phandle.
    pub(super) fn interrupting(self, gic: u32) -> Self {
        Self { interrupt: self.interrupt.filter(|interrupt| interrupt.controller == gic), ..self }
    }
}

fn stdout<'b, 'a>(fdt: &'b Fdt<'a>) -> Option<(NodePath<'b, 'a>, UartKind)> {
    let chosen = NodePath::find(fdt, "/chosen")?;
    let path = NodePath::resolve(fdt, node::string(chosen.node(), "stdout-path").ok()??)?;
    let kind = kind(&path)?;
    Some((path, kind))
}

fn first_pl011<'b, 'a>(fdt: &'b Fdt<'a>) -> Option<(NodePath<'b, 'a>, UartKind)> {
    let found = NodePath::walk(fdt, |path| match kind(path) {
        Some(UartKind::Pl011) => Err((path.clone(), UartKind::Pl011)),
        _ => Ok(()),
    });
    found.err()
}

/// Tells which kind of UART a node is, if it is one that may be used.
fn kind(path: &NodePath<'_, '_>) -> Option<UartKind> {
    let (_, kind) = KINDS.into_iter().find(|(name, _)| node::is_compatible(path.node(), &[name]))?;
    path.is_available().then_some(kind)
}
