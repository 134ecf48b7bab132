//! How much of a long test is run.

/// `full`, or the share of the cases that is run; a tenth if it is not set.
pub const SCALE: &str = "SEMANTIC_TEST_SCALE";

/// The cases to run of so many.
pub fn scaled(cases: usize) -> usize {
    let share = match std::env::var(SCALE) {
        Err(_) => 0.1,
        Ok(text) if text == "full" => 1.0,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SCALE} is {text:?}")),
    };
    ((cases as f64 * share) as usize).max(1)
}
