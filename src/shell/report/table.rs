//! A table of text: columns as wide as what is in them.
//!
//! Not here: what the cells say.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::iter::repeat_n;

/// Most characters of a row.
pub const MAX_WIDTH: usize = 100;
/// Characters between two columns.
const GAP: usize = 2;
/// What a cell ends in that was cut.
const CUT: char = '~';

/// A column: on which side its cells stand, and its title.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    const fn title(self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) => title,
        }
    }
}

/// Cells, row by row.
pub struct Table {
    columns: &'static [Column],
    cells: Vec<String>,
}

impl Table {
    /// Makes a table that has a header and no rows.
    pub const fn new(columns: &'static [Column]) -> Self {
        Self { columns, cells: Vec::new() }
    }

    /// Adds a cell.
    pub fn cell(&mut self, words: fmt::Arguments<'_>) -> &mut Self {
        self.cells.push(alloc::fmt::format(words));
        self
    }

    /// Adds a cell with a word.
    pub fn word(&mut self, word: &str) -> &mut Self {
        self.cells.push(word.into());
        self
    }

    /// Adds a cell with a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.cell(format_args!("{number}"))
    }

    /// Adds a cell with a number of tenths.
    pub fn tenths(&mut self, tenths: u64) -> &mut Self {
        self.cell(format_args!("{}.{}", tenths / 10, tenths % 10))
    }

    /// Writes the table. Where it is too wide, the widest column of words is cut.
    pub fn write(&self) -> String {
        let widths = self.widths();
        let titles: Vec<String> = self.columns.iter().map(|column| column.title().into()).collect();
        let mut text = String::new();
        for row in [titles.as_slice()].into_iter().chain(self.rows()) {
            self.write_row(row, &widths, &mut text);
        }
        text
    }

    fn rows(&self) -> impl Iterator<Item = &[String]> {
        self.cells.chunks(self.columns.len().max(1))
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.title().len()).collect();
        for row in self.rows() {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.len().max(*width));
        }
        let total = widths.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP);
        let words =
            widths.iter_mut().zip(self.columns).filter(|(_, column)| matches!(column, Column::Left(_)));
        if let Some((width, column)) = words.max_by_key(|(width, _)| **width) {
            *width = width.saturating_sub(total.saturating_sub(MAX_WIDTH)).max(column.title().len());
        }
        widths
    }

    fn write_row(&self, cells: &[String], widths: &[usize], text: &mut String) {
        for ((cell, column), width) in cells.iter().zip(self.columns).zip(widths) {
            let is_cut = cell.len() > *width;
            let shown = cell.get(..width.saturating_sub(is_cut.into())).filter(|_| is_cut).unwrap_or(cell);
            let padding = width.saturating_sub(cell.len());
            let (before, after) = match column {
                Column::Left(_) => (0, padding),
                Column::Right(_) => (padding, 0),
            };
            text.extend(repeat_n(' ', before));
            text.push_str(shown);
            text.extend(repeat_n(CUT, is_cut.into()).chain(repeat_n(' ', after + GAP)));
        }
        while text.ends_with(' ') {
            text.pop();
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new(&[Column::Left("NAME"), Column::Right("COUNT")])
    }

    #[test]
    fn columns_are_as_wide_as_the_widest_cell() {
        let mut table = table();
        table.word("a").number(1_000_000).word("longer").number(1);
        assert_eq!(table.write(), "NAME      COUNT\na       1000000\nlonger        1\n");
    }

    #[test]
    fn a_name_that_is_too_long_is_cut() {
        let mut table = table();
        table.word(&"x".repeat(200)).number(7);
        let text = table.write();
        assert!(text.lines().all(|line| line.len() == MAX_WIDTH), "{text}");
        assert!(text.ends_with("x~      7\n"), "{text}");
    }

    #[test]
    fn a_cut_that_would_split_a_character_is_not_made() {
        let mut table = table();
        table.word(&"\u{20ac}".repeat(50)).number(7);
        assert!(table.write().contains('\u{20ac}'));
    }

    #[test]
    fn no_row_ends_in_spaces() {
        let mut table = Table::new(&[Column::Right("N"), Column::Left("NAME")]);
        table.number(1).word("");
        assert_eq!(table.write(), "N  NAME\n1\n");
    }
}
