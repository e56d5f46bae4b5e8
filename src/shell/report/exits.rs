//! The report on exits: which causes and devices take how much.
//!
//! Not here: what counts them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::table::{Column, Table};
use super::tenths;

/// What the cost of exits is measured in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// Instructions at EL2.
    Instructions,
    /// Ticks of the system counter.
    Ticks,
}

/// Exits of one kind.
#[derive(Clone, Copy, Debug)]
pub struct ExitRow<'a> {
    /// Its cause, or the device that was accessed.
    pub name: &'a str,
    /// How many there were.
    pub count: u64,
    /// What they took, in all.
    pub cost: u64,
}

/// Lists kinds of exit, the dearest first, and all of them together; those that did not happen are left out.
#[must_use]
pub fn exits(rows: &[ExitRow<'_>], cost: Cost) -> String {
    let title = match cost {
        Cost::Instructions => "INSTRUCTIONS",
        Cost::Ticks => "TICKS",
    };
    let mut table = Table::new([
        Column::Left("EXITS BY"),
        Column::Right("COUNT"),
        Column::Right(title),
        Column::Right("EACH"),
    ]);
    let mut rows: Vec<ExitRow<'_>> = rows.iter().filter(|row| row.count != 0).copied().collect();
    rows.sort_by_key(|row| core::cmp::Reverse((row.cost, row.count)));
    let all = rows.iter().fold(ExitRow { name: "all", count: 0, cost: 0 }, |all, row| ExitRow {
        name: all.name,
        count: all.count.saturating_add(row.count),
        cost: all.cost.saturating_add(row.cost),
    });
    for row in rows.iter().chain([&all]) {
        let each = row.cost.saturating_mul(10).checked_div(row.count);
        table.add([
            row.name.into(),
            row.count.to_string(),
            row.cost.to_string(),
            each.map_or("-".into(), tenths),
        ]);
    }
    table.write()
}
