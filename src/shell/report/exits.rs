//! The report on exits: which causes and devices take how much.
//!
//! Not here: what counts them.

use alloc::string::String;

use vocabulary::addr::sorted;

use super::table::{Column, Table};

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
    const TICKS: [Column; 4] =
        [Column::Left("EXITS BY"), Column::Right("COUNT"), Column::Right("TICKS"), Column::Right("EACH")];
    const INSTRUCTIONS: [Column; 4] = [
        Column::Left("EXITS BY"),
        Column::Right("COUNT"),
        Column::Right("INSTRUCTIONS"),
        Column::Right("EACH"),
    ];
    let mut table = Table::new(match cost {
        Cost::Instructions => &INSTRUCTIONS,
        Cost::Ticks => &TICKS,
    });
    let mut all = ExitRow { name: "all", count: 0, cost: 0 };
    for row in sorted(rows, |row| u64::MAX - row.cost).iter().filter(|row| row.count != 0) {
        all.count = all.count.saturating_add(row.count);
        all.cost = all.cost.saturating_add(row.cost);
        add(&mut table, row);
    }
    add(&mut table, &all);
    table.write()
}

fn add(table: &mut Table, row: &ExitRow<'_>) {
    table.word(row.name).number(row.count).number(row.cost);
    match row.cost.saturating_mul(10).checked_div(row.count) {
        Some(each) => table.tenths(each),
        None => table.word("-"),
    };
}
