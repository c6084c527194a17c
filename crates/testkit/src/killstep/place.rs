//! Names of places in programs and libraries.
//!
//! Source: `elf(5)`: the symbol tables, and where the segments of a file are in memory.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

use super::Place;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, offset)) = symbols_of(&self.module).at(self.offset) {
            return write!(f, "{name:#}+{offset:#x}", name = rustc_demangle::demangle(name));
        }
        let file = self.module.file_name().unwrap_or(self.module.as_os_str());
        write!(f, "{}+{:#x}", file.display(), self.offset)
    }
}

/// The functions of a file, and where its bytes go.
#[derive(Default)]
struct Symbols {
    /// Offset in the file, length, address.
    segments: Vec<(u64, u64, u64)>,
    /// Address, length and name, by address.
    functions: Vec<(u64, u64, String)>,
}

impl Symbols {
    /// None: a file that cannot be read has no symbols.
    fn read(module: &Path) -> Option<Self> {
        let bytes = std::fs::read(module).ok()?;
        let file = object::File::parse(&*bytes).ok()?;
        let segments = file.segments().map(|segment| {
            let (offset, len) = segment.file_range();
            (offset, len, segment.address())
        });
        let mut functions: Vec<(u64, u64, String)> = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
            .filter_map(|symbol| {
                Some((symbol.address(), symbol.size(), symbol.name().ok()?.to_owned()))
            })
            .collect();
        functions.sort();
        functions.dedup_by_key(|(address, ..)| *address);
        Some(Self { segments: segments.collect(), functions })
    }

    fn at(&self, offset: u64) -> Option<(&str, u64)> {
        let (start, _, address) = self
            .segments
            .iter()
            .find(|(start, len, _)| (*start..start.saturating_add(*len)).contains(&offset))?;
        let address = address + (offset - start);
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, len, name) = self.functions.get(after.checked_sub(1)?)?;
        // Beyond its end is a function whose name was stripped.
        (address - start < *len).then_some((name, address - start))
    }
}

/// Read once for each file.
fn symbols_of(module: &Path) -> Arc<Symbols> {
    static KNOWN: LazyLock<Mutex<HashMap<Box<Path>, Arc<Symbols>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(symbols) = known.get(module) {
        return Arc::clone(symbols);
    }
    let symbols = Arc::new(Symbols::read(module).unwrap_or_default());
    known.insert(module.into(), Arc::clone(&symbols));
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_name_of_its_function() {
        let symbols = Symbols {
            segments: vec![(0, 0x100, 0), (0x100, 0x100, 0x1100)],
            functions: vec![(0x1110, 12, "first".to_owned()), (0x1120, 16, "second".to_owned())],
        };
        assert_eq!(symbols.at(0x118), Some(("first", 8)));
        assert_eq!(symbols.at(0x120), Some(("second", 0)));
        assert_eq!(symbols.at(0x11c), None);
        assert_eq!(symbols.at(0x108), None);
        assert_eq!(symbols.at(0x200), None);
    }

    #[test]
    fn this_program_has_symbols() {
        let program = std::env::current_exe().expect("this program's path");
        let symbols = Symbols::read(&program).expect("an ELF file");
        assert!(symbols.functions.iter().any(|(.., name)| name == "main"));
        assert!(!symbols.segments.is_empty());
    }

    #[test]
    fn a_place_without_symbols_has_an_offset() {
        let place = Place { module: Path::new("/nowhere/libx.so").into(), offset: 0x1c };
        assert_eq!(place.to_string(), "libx.so+0x1c");
    }
}
