//! Rows in columns, for people and for `awk`: two spaces between columns, nothing at line ends.

/// Lays out rows under a header. The last column is as long as it likes.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut laid_out = Rows::new(rows.first().map_or(header.len(), Vec::len).max(1));
    let cells = header.iter().copied().chain(rows.iter().flatten().map(String::as_str));
    cells.for_each(|cell| laid_out.cell(|text| text.push_str(cell)));
    laid_out.laid_out(&laid_out.widths())
}

/// Rows of equally many cells, one after the other in one text: there may be a hundred thousand.
pub(crate) struct Rows {
    text: String,
    /// Where each cell ends, and how many characters it has.
    cells: Vec<(usize, usize)>,
    columns: usize,
}

impl Rows {
    /// None yet, of so many cells each.
    pub(crate) fn new(columns: usize) -> Self {
        Self { text: String::new(), cells: Vec::new(), columns }
    }

    /// Adds a cell: what is written at the end of the text.
    pub(crate) fn cell(&mut self, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        let added = &self.text[start..];
        let width = if added.is_ascii() { added.len() } else { added.chars().count() };
        self.cells.push((self.text.len(), width));
    }

    /// How wide each column is.
    pub(crate) fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.columns];
        for row in self.cells.chunks(self.columns) {
            for (most, (_, width)) in widths.iter_mut().zip(row) {
                *most = (*width).max(*most);
            }
        }
        widths
    }

    /// All of them, in columns of these widths.
    pub(crate) fn laid_out(&self, widths: &[usize]) -> String {
        let line = widths.iter().map(|width| width + 2).sum::<usize>();
        let mut all = String::with_capacity(self.cells.len() / self.columns * line);
        let mut start = 0;
        for row in self.cells.chunks(self.columns) {
            let mut missing = 0;
            for (&(end, width), most) in row.iter().zip(widths) {
                let cell = &self.text[start..end];
                start = end;
                if !cell.is_empty() {
                    pad(&mut all, missing);
                    all.push_str(cell);
                    missing = 0;
                }
                missing += most - width + 2;
            }
            all.push('\n');
        }
        all
    }
}

fn pad(text: &mut String, mut missing: usize) {
    const BLANK: &str = "                                                                ";
    while missing > 0 {
        let some = missing.min(BLANK.len());
        text.push_str(&BLANK[..some]);
        missing -= some;
    }
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn lines_up() {
        let rows =
            vec![vec!["a".to_owned(), "grün".to_owned()], vec!["bcd".to_owned(), "x".into()]];
        assert_eq!(columns(&[], &rows), "a    grün\nbcd  x\n");
        assert_eq!(columns(&["id", "name"], &rows), "id   name\na    grün\nbcd  x\n");
    }
}
