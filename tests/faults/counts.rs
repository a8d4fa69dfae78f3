//! How much is tried, and how much was, for the table at the end of `tests/run --faults`.

use std::env;

/// How many points of a grid to try: `percent` of 300, which is what CI has time for.
///
/// `PVFERRY_FAULT_POINTS=5000` takes the place of the 300, and makes every grid denser.
pub(crate) fn points(percent: u32) -> u32 {
    let measure = env::var("PVFERRY_FAULT_POINTS").ok().map(|text| text.parse::<u32>().unwrap());
    (measure.unwrap_or(300) * percent).div_ceil(100)
}

/// Prints one line of the table.
pub(crate) fn tell(what: &str, tried: impl std::fmt::Display) {
    println!("COUNT {what}: {tried}");
}
