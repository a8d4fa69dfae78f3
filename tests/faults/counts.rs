//! How much was tried, for the table at the end of `tests/run --faults`.

/// Prints one line of the table.
pub(crate) fn tell(what: &str, tried: impl std::fmt::Display) {
    println!("COUNT {what}: {tried}");
}
