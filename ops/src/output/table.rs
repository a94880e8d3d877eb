//! Tables of text: columns as wide as their widest cell, two spaces between.

/// Rows under a heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with its heading.
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Table {
        Table { rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row. Cells hold no line breaks: values are escaped before they come here.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// The whole table, each line with its end.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: columns line up, also with wide characters, and lines have no trailing blanks.
    /// Method: a small table, in full.
    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NODE", "REGION", "STATE"]);
        table.row(["n1".into(), "us-east".into(), "ready".into()]);
        table.row(["n10".into(), "ö".into(), String::new()]);
        let want = "NODE  REGION   STATE\nn1    us-east  ready\nn10   ö\n";
        assert_eq!(table.render(), want);
    }

    /// Goal: an empty table is its heading. Method: the same, without rows.
    #[test]
    fn empty_table_is_its_heading() {
        assert_eq!(Table::new(["A", "B"]).render(), "A  B\n");
    }
}
