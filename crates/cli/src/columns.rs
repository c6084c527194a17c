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

    /// All of them, in columns of these widths. What is wider is cut.
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
                    push(&mut all, cell, width, *most);
                    missing = 0;
                }
                missing += most.saturating_sub(width) + 2;
            }
            all.push('\n');
        }
        all
    }
}

/// Adds a cell of this width, or as much of it as there is room for.
fn push(text: &mut String, cell: &str, width: usize, most: usize) {
    if width <= most {
        return text.push_str(cell);
    }
    text.extend(cell.chars().take(most.saturating_sub(1)));
    text.push('…');
}

/// Makes columns narrower, the widest one of those that may be first, until all are as wide as the terminal together; none becomes narrower than
/// can be read, even if they are wider then.
pub(crate) fn fit(widths: &mut [usize], may: impl Fn(usize) -> bool, terminal: usize) {
    const LEAST: usize = 10;
    let mut all = widths.iter().map(|width| width + 2).sum::<usize>().saturating_sub(2);
    while all > terminal {
        let columns = widths.iter_mut().enumerate();
        let widest = columns.filter(|(at, _)| may(*at)).map(|(_, width)| width).max();
        let Some(widest) = widest.filter(|width| **width > LEAST) else { return };
        *widest -= 1;
        all -= 1;
    }
}

/// How wide the terminal is that standard output is; none if it is none.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = terminal_size::terminal_size_of(std::io::stdout());
    size.map(|(width, _)| usize::from(width.0)).filter(|&width| width > 0)
}

/// Breaks lines that are longer than this between words. What comes below begins where the last column of the line does, or a little to the
/// right of the line.
pub(crate) fn wrapped(text: &str, width: usize) -> String {
    let mut all = String::with_capacity(text.len());
    for line in text.lines() {
        wrap(&mut all, line, width);
    }
    all
}

fn wrap(all: &mut String, line: &str, width: usize) {
    let indent = line.len() - line.trim_start().len();
    let last = line.trim_end().rmatch_indices("  ").next().map_or(0, |(at, _)| at + 2);
    let column = line.get(..last).map_or(0, |before| before.chars().count());
    let below = if column > indent && column < width / 2 { column } else { indent + 4 };
    let (mut used, mut gap) = (0, 0);
    for word in line.split(' ') {
        let len = word.chars().count();
        if len > 0 && used > below.max(indent) && used + gap + len > width {
            all.push('\n');
            pad(all, below);
            (used, gap) = (below, 0);
        }
        if len > 0 {
            pad(all, gap);
            all.push_str(word);
            (used, gap) = (used + gap + len, 0);
        }
        gap += 1;
    }
    all.push('\n');
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
    use super::{Rows, columns, fit, wrapped};

    #[test]
    fn a_terminal_is_as_wide_as_it_is() {
        let mut widths = [5, 40, 12, 60];
        fit(&mut widths, |at| at != 0, 80);
        assert_eq!(widths.iter().map(|width| width + 2).sum::<usize>(), 82);
        assert_eq!((widths[0], widths[2]), (5, 12));
        fit(&mut widths, |at| at == 1, 20);
        assert_eq!(widths[1], 10, "narrower, nothing can be read");
        let mut narrow = [3, 4];
        fit(&mut narrow, |_| true, 80);
        assert_eq!(narrow, [3, 4]);
        let mut rows = Rows::new(2);
        for cell in ["grün und blau", "x", "kurz", "länger als das"] {
            rows.cell(|text| text.push_str(cell));
        }
        assert_eq!(rows.laid_out(&[6, 4]), "grün …  x\nkurz    län…\n");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("short\n\n  as it is\n", 20), "short\n\n  as it is\n");
        assert_eq!(
            wrapped("  no: some words are missing", 20),
            "  no: some words are\n      missing\n"
        );
        let row = "name  12  some words to say it";
        assert_eq!(wrapped(row, 22), "name  12  some words\n          to say it\n");
        assert_eq!(
            wrapped("  name          12345  word", 22),
            "  name          12345\n      word\n"
        );
        assert_eq!(
            wrapped("averylongwordthatisnotbroken x", 10),
            "averylongwordthatisnotbroken\n    x\n"
        );
    }

    #[test]
    fn lines_up() {
        let rows =
            vec![vec!["a".to_owned(), "grün".to_owned()], vec!["bcd".to_owned(), "x".into()]];
        assert_eq!(columns(&[], &rows), "a    grün\nbcd  x\n");
        assert_eq!(columns(&["id", "name"], &rows), "id   name\na    grün\nbcd  x\n");
    }
}
