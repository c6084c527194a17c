//! Rows in columns, for people and for `awk`: two spaces between columns, nothing at line ends.

/// Lays out rows under a header. The last column is as long as it likes.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|title| title.chars().count()).collect();
    widths.resize(rows.iter().map(Vec::len).max().unwrap_or(0).max(widths.len()), 0);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).filter(|row| !row.is_empty()).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let missing = width.saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', missing));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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
