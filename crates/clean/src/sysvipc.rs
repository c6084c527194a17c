//! Rows of the System V tables with all their columns, times too; everybody may read them, whatever an object's mode.
//!
//! Source: `proc_sysvipc(5)`. The first line names the columns.

use switchboard_inspect::source::sysv::Table;

use crate::error::{Error, Reason, Result};

/// A row: numbers by their column's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row(Vec<(String, i64)>);

impl Row {
    /// The number of a column; 0 where there is no such column.
    pub(crate) fn number(&self, column: &str) -> i64 {
        self.0.iter().find(|(name, _)| name == column).map_or(0, |(_, value)| *value)
    }

    /// As [`Row::number`], as an id.
    pub(crate) fn id(&self, column: &str) -> u32 {
        u32::try_from(self.number(column) & 0xffff_ffff).unwrap_or(0)
    }

    /// The key as the calls take it.
    pub(crate) fn key(&self) -> i32 {
        self.id("key").cast_signed()
    }

    /// The time of whatever happened last, in seconds since 1970.
    pub(crate) fn newest(&self) -> i64 {
        let times = ["atime", "dtime", "ctime", "stime", "rtime", "otime"];
        times.into_iter().map(|time| self.number(time)).max().unwrap_or(0)
    }
}

/// The row of this id, in this IPC namespace.
pub(crate) fn row(table: Table, id: i32) -> Result<Row> {
    let path = table.path();
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
    find(table, &text, id).ok_or_else(|| Error::new(Reason::Gone, "it is gone"))
}

fn find(table: Table, text: &str, id: i32) -> Option<Row> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let of_id = match table {
        Table::Messages => "msqid",
        Table::Semaphores => "semid",
        Table::Memory => "shmid",
    };
    lines.find_map(|line| {
        let values = line.split_whitespace();
        let cells = names.iter().zip(values).map(|(name, value)| {
            let number = match *name {
                "perms" => i64::from_str_radix(value, 8).ok(),
                _ => value.parse().ok(),
            };
            Some(((*name).to_owned(), number?))
        });
        let row = Row(cells.collect::<Option<_>>()?);
        (row.number(of_id) == i64::from(id)).then_some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_by_name() {
        let text = "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n\
-559038737          7   640           4          1    11    12     1     2     3     4         50         60         40\n";
        let row = find(Table::Messages, text, 7).expect("a row");
        assert_eq!(row.key(), 0xdead_beef_u32.cast_signed());
        assert_eq!((row.number("perms"), row.id("cuid"), row.newest()), (0o640, 3, 60));
        assert_eq!(row.number("nattch"), 0);
        assert!(find(Table::Messages, text, 8).is_none());
        for wrong in ["", "a", "msqid\nx", "msqid perms\n7 9"] {
            assert!(find(Table::Messages, wrong, 7).is_none(), "{wrong}");
        }
    }
}
