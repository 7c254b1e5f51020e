//! Where a row was last seen.

/// The place of a row in its table. A hint, only good for the table it came from: a row moves with each of its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Page of the table.
    pub block: u32,
    /// Line on the page, from 1.
    pub line: u16,
}
