//! Tables with aligned columns: a heading, rows, two spaces in between; numbers are right-aligned.

use std::iter::zip;

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For texts.
    Left,
    /// Numbers and sizes.
    Right,
}

/// A table while it is built.
#[derive(Clone, Debug)]
pub struct Table<const COLUMNS: usize> {
    alignment: [Align; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with these headings.
    pub fn new(columns: [(&str, Align); COLUMNS]) -> Self {
        Self { alignment: columns.map(|(_, align)| align), rows: vec![columns.map(|(heading, _)| heading.to_owned())] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The lines, each with a newline, without spaces at their ends.
    pub fn render(&self) -> String {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in zip(&mut widths, row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), align) in zip(zip(row, widths), self.alignment) {
                let padding = " ".repeat(width - cell.chars().count());
                match align {
                    Align::Left => line.extend([cell.as_str(), &padding, "  "]),
                    Align::Right => line.extend([padding.as_str(), cell, "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([("BACKUP", Align::Left), ("SIZE", Align::Right), ("LABEL", Align::Left)]);
        assert!(table.is_empty());
        table.row(["20260822T101500Z".to_owned(), "1.2 GiB".to_owned(), "nächtlich".to_owned()]);
        table.row(["20260823T101500Z".to_owned(), "998 MiB".to_owned(), String::new()]);
        assert_eq!(
            table.render(),
            "BACKUP               SIZE  LABEL\n\
             20260822T101500Z  1.2 GiB  nächtlich\n\
             20260823T101500Z  998 MiB\n"
        );
    }
}
