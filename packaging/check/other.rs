//! A static library of somebody else's, with a standard library and an unwinder of its own.

/// The sum of the numbers below `count`, of seven as what a panic is caught as.
#[unsafe(no_mangle)]
pub extern "C" fn other_sum(count: u32) -> u32 {
    std::panic::catch_unwind(|| {
        let numbers: Vec<u32> = (0..count).collect();
        assert!(count != 7, "seven");
        numbers.iter().sum()
    })
    .unwrap_or(77)
}
