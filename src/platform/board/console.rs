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
        Ok(Some(Self::of(fdt, &path, kind)?))
    }

    fn of(fdt: &Fdt<'_>, path: &NodePath<'_, '_>, kind: UartKind) -> Result<Self, BoardError> {
        // An interrupt that cannot be made out is as good as none: output works all the same.
        let interrupt = path.interrupt(fdt, 0).ok().flatten();
        Ok(Self { kind, registers: registers(path, 0)?, interrupt })
    }

    /// Lists the other UARTs that may be used: where somebody may be listening if nothing comes from this one.
    #[inline(never)]
    pub fn others(&self, fdt: &Fdt<'_>) -> Vec<Self> {
        let mut others = Vec::new();
        let Ok(()) = NodePath::walk(fdt, |path| {
            let found = kind(path).and_then(|kind| Self::of(fdt, path, kind).ok());
            others.extend(found.filter(|other| other.registers != self.registers));
            Ok::<(), Infallible>(())
        });
        others
    }

    /// Takes the other kind of UART instead if the pins of a Raspberry Pi's header lead to that: its firmware chooses by
    /// rules of its own, and what `stdout-path` names may end in the air. `gpfsel1` reads the second of the registers
    /// that say what pins do, which are given to it (BCM2711 ARM Peripherals, 5.2).
    #[must_use]
    #[inline(never)]
    pub fn at_the_header(self, fdt: &Fdt<'_>, gpfsel1: impl FnOnce(Region<Pa>) -> u32) -> Self {
        let Some(pins) = header_pins(fdt) else { return self };
        let wanted = match gpfsel1(pins) >> 12 & 0b111 {
            0b100 => UartKind::Pl011,           // GPIO 14, ALT0: TXD0
            0b010 => UartKind::Bcm2835MiniUart, // GPIO 14, ALT5: TXD1
            _ => return self,
        };
        let other = || self.others(fdt).into_iter().find(|other| other.kind == wanted);
        if self.kind == wanted { self } else { other().unwrap_or(self) }
    }

    /// Drops the interrupt if it is not one of the GIC with this phandle.
    pub(super) fn interrupting(self, gic: u32) -> Self {
        Self { interrupt: self.interrupt.filter(|interrupt| interrupt.controller == gic), ..self }
    }
}

fn header_pins(fdt: &Fdt<'_>) -> Option<Region<Pa>> {
    let found = NodePath::walk(fdt, |path| {
        let is_gpio = node::is_compatible(path.node(), &["brcm,bcm2711-gpio", "brcm,bcm2835-gpio"]);
        if is_gpio && path.is_available() { Err(registers(path, 0).ok()) } else { Ok(()) }
    });
    found.err().flatten()
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
