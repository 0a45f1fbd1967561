//! The weights that a scheme has, for searches: which of them is the nearest, and which the second nearest.

use cerebellum::quant::{PathState, Scheme};

use crate::round::round;

/// The weights of a scheme.
pub trait Levels: Copy {
    /// The nearest to `x`, wherever on a path it may be.
    fn nearest(self, x: f32) -> f32;

    /// The nearest to `x`, and the negative of the nearest to `-x`.
    #[inline(always)]
    fn nearest_of_both_signs(self, x: f32) -> [f32; 2] {
        [self.nearest(x), -self.nearest(-x)]
    }

    /// The nearest to `x` in this state and the one on its other side, or along a path that of the other bit; with
    /// the states that follow. It is no number if there is none.
    fn two_nearest(self, state: PathState, x: f32) -> [(f32, PathState); 2];

    /// What stands where a scale is 0.
    fn at_rest(self) -> f32;
}

/// All integers between two.
#[derive(Clone, Copy)]
pub struct Integers {
    min: f32,
    max: f32,
}

impl Integers {
    /// Those of a scheme without levels of its own.
    pub fn of(scheme: Scheme) -> Self {
        let (min, max) = scheme.range();
        Self { min: min.into(), max: max.into() }
    }
}

impl Levels for Integers {
    // Clamped first, so that rounding sees small numbers only.
    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        round(x.clamp(self.min, self.max))
    }

    #[inline(always)]
    fn nearest_of_both_signs(self, x: f32) -> [f32; 2] {
        let nearest = round(x);
        [nearest.clamp(self.min, self.max), nearest.clamp(-self.max, -self.min)]
    }

    #[inline(always)]
    fn two_nearest(self, state: PathState, x: f32) -> [(f32, PathState); 2] {
        let first = self.nearest(x);
        let second = first + if x > first { 1.0 } else { -1.0 };
        let is_one = second >= self.min && second <= self.max;
        [(first, state), (if is_one { second } else { f32::NAN }, state)]
    }

    #[inline(always)]
    fn at_rest(self) -> f32 {
        0.0
    }
}

/// The most levels of a table.
const MOST: usize = 16;

/// Levels of any distances. The sum of the steps between those that `x` has passed is exact.
#[derive(Clone, Copy)]
pub struct Table {
    least: f32,
    /// Midway between neighbours; infinite where there are no more.
    thresholds: [f32; MOST - 1],
    /// From each level to the next.
    steps: [f32; MOST - 1],
    /// All levels but the first and the last; infinite where there are no more.
    inner: [f32; MOST - 2],
}

impl Table {
    /// From the levels, in ascending order.
    pub fn new(levels: &[i8]) -> Self {
        let level = |i: usize| f32::from(levels[i]);
        let mut table = Self {
            least: level(0),
            thresholds: [f32::INFINITY; MOST - 1],
            steps: [0.0; MOST - 1],
            inner: [f32::INFINITY; MOST - 2],
        };
        for i in 1..levels.len() {
            table.thresholds[i - 1] = 0.5 * (level(i - 1) + level(i));
            table.steps[i - 1] = level(i) - level(i - 1);
        }
        for i in 1..levels.len() - 1 {
            table.inner[i - 1] = level(i);
        }
        table
    }
}

impl Levels for Table {
    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        let mut level = self.least;
        for i in 0..MOST - 1 {
            level += if x > self.thresholds[i] { self.steps[i] } else { 0.0 };
        }
        level
    }

    /// Beyond the last level it is the last two.
    #[inline(always)]
    fn two_nearest(self, state: PathState, x: f32) -> [(f32, PathState); 2] {
        let (mut below, mut above) = (self.least, self.least + self.steps[0]);
        for i in 0..MOST - 2 {
            let is_passed = x >= self.inner[i];
            below += if is_passed { self.steps[i] } else { 0.0 };
            above += if is_passed { self.steps[i + 1] } else { 0.0 };
        }
        let is_above = x - below > above - x;
        if is_above { [(above, state), (below, state)] } else { [(below, state), (above, state)] }
    }

    #[inline(always)]
    fn at_rest(self) -> f32 {
        self.nearest(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All numbers from -50 to 50 in steps of a sixteenth, midpoints among them.
    fn numbers() -> impl Iterator<Item = f32> {
        (-800i16..=800).map(|i| f32::from(i) / 16.0)
    }

    fn check(levels: impl Levels, all: &[i8]) {
        let distance = |x: f32, level: f32| (x - level).abs();
        for x in numbers() {
            let least =
                all.iter().map(|&w| distance(x, f32::from(w))).fold(f32::INFINITY, f32::min);
            let is_one = |level: f32| all.iter().any(|&w| f32::from(w) == level);
            let [(first, _), (second, _)] = levels.two_nearest(PathState::START, x);
            assert!(is_one(first) && distance(x, first) == least, "{x}: {first}");
            assert!(is_one(levels.nearest(x)) && distance(x, levels.nearest(x)) == least, "{x}");
            let [nearest, negative] = levels.nearest_of_both_signs(x);
            assert!(distance(x, nearest) == least && is_one(-negative), "{x}");
            assert!(distance(-x, -negative) == distance(-x, levels.nearest(-x)), "{x}");
            // The second is the nearest on the other side, or if there is none the last but one.
            let is_above = |w: f32| w > x || w == x && second < first;
            let others = all.iter().map(|&w| f32::from(w)).filter(|&w| w != first);
            let beyond: Vec<f32> =
                others.clone().filter(|&w| is_above(w) != is_above(first)).collect();
            let beyond = if beyond.is_empty() { others.collect() } else { beyond };
            let next = beyond.iter().map(|&w| distance(x, w)).fold(f32::INFINITY, f32::min);
            assert!(
                second.is_nan() || is_one(second) && distance(x, second) == next,
                "{x}: {second}"
            );
        }
    }

    #[test]
    fn the_nearest_are_those_of_all() {
        for scheme in Scheme::ALL.into_iter().filter(|scheme| !scheme.is_path()) {
            let all: Vec<i8> =
                (0..=u8::MAX >> (8 - scheme.bits())).map(|i| scheme.weight(i)).collect();
            match scheme.levels() {
                None => check(Integers::of(scheme), &all),
                Some(levels) => check(Table::new(levels), &all),
            }
        }
    }
}
