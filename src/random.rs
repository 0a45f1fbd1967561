//! Philox 4x32-10, a counter-based random generator (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3", SC 2011): a draw depends on its key and counter alone.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

fn philox([mut k0, mut k1]: [u32; 2], mut x: [u32; 4]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(x[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(x[2]);
        x = [(p1 >> 32) as u32 ^ x[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ x[3] ^ k1, p0 as u32];
        (k0, k1) = (k0.wrapping_add(WEYL[0]), k1.wrapping_add(WEYL[1]));
    }
    x
}

/// A uniform number in [0, 1) with 53 random bits, a function of the arguments alone.
pub fn uniform(seed: u64, position: u64) -> f64 {
    let words = |n: u64| [n as u32, (n >> 32) as u32];
    let ([k0, k1], [c0, c1]) = (words(seed), words(position));
    let [high, low, ..] = philox([k0, k1], [c0, c1, 0, 0]);
    let bits = u64::from(high) << 32 | u64::from(low);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with the reference implementation (Random123, `kat_vectors`).
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 2], [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            philox([0xa409_3822, 0x299f_31d0], pi),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniform_is_uniform() {
        let n = 20_000;
        let draws = (0..n).map(|position| uniform(7, position));
        let mean = draws.clone().sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert!(draws.into_iter().all(|u| (0.0..1.0).contains(&u)));
        assert_ne!(uniform(1, 0), uniform(0, 1));
    }
}
