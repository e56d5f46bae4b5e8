//! A table of text: columns as wide as what is in them.
//!
//! Not here: what the cells say.

use alloc::string::String;
use alloc::vec::Vec;

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

/// Rows of cells, `N` in each.
pub struct Table<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// Makes a table that has a header and no rows.
    pub const fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn add(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// Writes the table. Where it is too wide, the widest column of words is cut.
    pub fn write(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        self.write_row(self.columns.iter().map(|column| column.title()), &widths, &mut text);
        for row in &self.rows {
            self.write_row(row.iter().map(String::as_str), &widths, &mut text);
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let cells =
            |at: usize| self.rows.iter().filter_map(move |row| row.get(at)).map(|cell| columns_of(cell));
        let widest =
            |(at, column): (usize, &Column)| cells(at).chain([column.title().len()]).max().unwrap_or(0);
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        let total: usize = widths.iter().sum::<usize>() + GAP * N.saturating_sub(1);
        let words =
            widths.iter_mut().zip(&self.columns).filter(|(_, column)| matches!(column, Column::Left(_)));
        if let Some((width, column)) = words.max_by_key(|(width, _)| **width) {
            *width = width.saturating_sub(total.saturating_sub(MAX_WIDTH)).max(column.title().len());
        }
        widths
    }

    fn write_row<'a>(&self, cells: impl Iterator<Item = &'a str>, widths: &[usize], text: &mut String) {
        let start = text.len();
        for ((cell, column), width) in cells.zip(&self.columns).zip(widths) {
            let cell = cut(cell, *width);
            let padding = width.saturating_sub(columns_of(&cell));
            let (before, after) = match column {
                Column::Left(_) => (0, padding),
                Column::Right(_) => (padding, 0),
            };
            text.extend(core::iter::repeat_n(' ', before));
            text.push_str(&cell);
            text.extend(core::iter::repeat_n(' ', after + GAP));
        }
        let end = text.get(start..).map_or(0, |row| row.trim_end().len());
        text.truncate(start + end);
        text.push('\n');
    }
}

fn columns_of(cell: &str) -> usize {
    cell.chars().count()
}

fn cut(cell: &str, width: usize) -> String {
    if columns_of(cell) <= width {
        return cell.into();
    }
    cell.chars().take(width.saturating_sub(1)).chain([CUT]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table<2> {
        Table::new([Column::Left("NAME"), Column::Right("COUNT")])
    }

    #[test]
    fn columns_are_as_wide_as_the_widest_cell() {
        let mut table = table();
        table.add(["a".into(), "1000000".into()]);
        table.add(["longer".into(), "1".into()]);
        assert_eq!(table.write(), "NAME      COUNT\na       1000000\nlonger        1\n");
    }

    #[test]
    fn a_name_that_is_too_long_is_cut() {
        let mut table = table();
        table.add(["x".repeat(200), "7".into()]);
        let text = table.write();
        assert!(text.lines().all(|line| line.len() == MAX_WIDTH), "{text}");
        assert!(text.ends_with("x~      7\n"), "{text}");
    }

    #[test]
    fn no_row_ends_in_spaces() {
        let mut table: Table<2> = Table::new([Column::Right("N"), Column::Left("NAME")]);
        table.add(["1".into(), String::new()]);
        assert_eq!(table.write(), "N  NAME\n1\n");
    }
}
