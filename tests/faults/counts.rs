//! How much is tried, and how much was, for the table at the end of `tests/run --faults`.

use std::env;

/// How many points of a grid to try: `share` in a hundred of those that there is time for.
///
/// `PVFERRY_FAULT_POINTS=5000` makes grids that dense, in place of the few hundred points that CI has time for.
pub(crate) fn points(share: u32) -> u32 {
    let all = env::var("PVFERRY_FAULT_POINTS").ok().map(|text| text.parse::<u32>().unwrap());
    (all.unwrap_or(300) * share).div_ceil(100)
}

/// Prints one line of the table.
pub(crate) fn tell(what: &str, tried: impl std::fmt::Display) {
    println!("COUNT {what}: {tried}");
}
