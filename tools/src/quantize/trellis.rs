//! Levels along paths ([`cerebellum::quant::PathState`]): which are the nearest, and the path of least error through a
//! group, by the algorithm of Viterbi (1967).
//!
//! Each next bit leads from a state to one of two; at every place the search keeps the best way to each state. It is
//! exact, since what follows depends on the state alone.

use cerebellum::quant::{
    MAX_GROUP_SIZE, PATH_INPUTS, PathState, QUARTERS, input_at, place_in_path,
};

use super::levels::{Levels, Table};
use super::scale::{Group, Rounding};

/// The most levels of a quarter.
const MOST_OF_QUARTER: usize = 4;

/// Levels along a path. Searches go by a reference, since it is large.
pub struct PathLevels {
    all: Table,
    quarters: [Quarter; QUARTERS],
}

/// As [`Table`].
#[derive(Clone, Copy)]
struct Quarter {
    least: f32,
    thresholds: [f32; MOST_OF_QUARTER - 1],
    steps: [f32; MOST_OF_QUARTER - 1],
}

impl PathLevels {
    /// From the levels, in ascending order.
    pub fn new(levels: &[i8]) -> Self {
        let quarter = |first: usize| {
            let level = |i: usize| levels.get(first + QUARTERS * i).map(|&level| f32::from(level));
            let pair = |i: usize| Some((level(i)?, level(i + 1)?));
            Quarter {
                least: level(0).expect("a level in each quarter"),
                thresholds: std::array::from_fn(|i| {
                    pair(i).map_or(f32::INFINITY, |(below, above)| 0.5 * (below + above))
                }),
                steps: std::array::from_fn(|i| pair(i).map_or(0.0, |(below, above)| above - below)),
            }
        };
        Self { all: Table::new(levels), quarters: std::array::from_fn(quarter) }
    }

    /// The nearest to `x` of a quarter.
    #[inline(always)]
    pub fn nearest_of(&self, quarter: usize, x: f32) -> f32 {
        self.quarters[quarter].nearest(x)
    }
}

impl Quarter {
    #[inline(always)]
    fn nearest(&self, x: f32) -> f32 {
        let mut level = self.least;
        for i in 0..MOST_OF_QUARTER - 1 {
            level += if x > self.thresholds[i] { self.steps[i] } else { 0.0 };
        }
        level
    }
}

impl Levels for &PathLevels {
    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        self.all.nearest(x)
    }

    #[inline(always)]
    fn two_nearest(self, state: PathState, x: f32) -> [(f32, PathState); 2] {
        // Both quarters that each parity of the state leads to, so that there is no branch.
        let is_odd = state.quarter(0) & 1 != 0;
        let low = if is_odd { self.nearest_of(1, x) } else { self.nearest_of(0, x) };
        let high = if is_odd { self.nearest_of(3, x) } else { self.nearest_of(2, x) };
        // The bit that leads to the lower quarter.
        let bit = state.quarter(0) >> 1;
        let (low, high) = ((low, state.next(bit)), (high, state.next(1 - bit)));
        if (x - high.0).abs() < (x - low.0).abs() { [high, low] } else { [low, high] }
    }

    /// Of the quarter of a path whose bits are all 0.
    #[inline(always)]
    fn at_rest(self) -> f32 {
        self.nearest_of(0, 0.0)
    }
}

/// The state in which a path reaches `column` from the one `before`: where it begins, or past inputs that there are
/// not, whose bits are 0.
#[inline(always)]
pub fn enter(state: PathState, before: Option<usize>, column: usize) -> PathState {
    match before {
        Some(before) if before / PATH_INPUTS == column / PATH_INPUTS => {
            let passed = place_in_path(before) + 1..place_in_path(column);
            passed.fold(state, |state, _| state.next(0))
        }
        _ => PathState::START,
    }
}

/// Trial scales whose paths are searched together.
const TRIALS: usize = 8;

/// What each state has cost, of all trials.
type Costs = [[f32; TRIALS]; PathState::COUNT];

/// No state is reached.
const NEVER: Costs = [[f32::INFINITY; TRIALS]; PathState::COUNT];

/// Where a path begins.
const START: Costs = {
    let mut costs = NEVER;
    costs[PathState::START.index()] = [0.0; TRIALS];
    costs
};

/// The state from which bit `bit` leads to `to`, if the bit two places before is `second`.
const fn from(to: usize, second: usize) -> PathState {
    PathState::of(to >> 1, second)
}

impl Rounding for &PathLevels {
    /// The trial scale of least error, of either sign.
    #[inline(always)]
    fn propose(self, group: &Group, reaches: impl Iterator<Item = f32>) -> f32 {
        let max_abs = group.max_abs();
        let (mut least, mut best) = (f32::INFINITY, 0.0);
        let mut inverses = reaches.flat_map(|reach| [reach / max_abs, -reach / max_abs]).peekable();
        while inverses.peek().is_some() {
            // What is no number is no better than anything.
            let mut trials = [f32::NAN; TRIALS];
            trials.iter_mut().zip(inverses.by_ref()).for_each(|(trial, inverse)| *trial = inverse);
            let errors = self.errors(group, &trials);
            for trial in 0..TRIALS {
                let error = errors[trial] / (trials[trial] * trials[trial]);
                if error < least {
                    (least, best) = (error, 1.0 / trials[trial]);
                }
            }
        }
        best
    }

    #[inline(always)]
    fn round(self, group: &Group, scale: f32, integers: &mut [f32; MAX_GROUP_SIZE]) {
        for first in (0..group.len).step_by(PATH_INPUTS) {
            self.round_path(group, first, scale, integers);
        }
    }
}

impl PathLevels {
    /// The least squared errors, in units of the scale, with the inverses of so many scales.
    // Loops and no closures, which would not be compiled for the processor's widest registers.
    #[inline(always)]
    fn errors(&self, group: &Group, inverses: &[f32; TRIALS]) -> [f32; TRIALS] {
        let mut errors = [0.0; TRIALS];
        for first in (0..group.len).step_by(PATH_INPUTS) {
            let mut costs = START;
            for place in 0..PATH_INPUTS {
                let input = first + input_at(place);
                if input < group.len {
                    let (weight, importance) = (group.weights[input], group.importance[input]);
                    costs = self.next(&costs, weight, importance, inverses);
                } else {
                    costs = passed(&costs);
                }
            }
            for trial in 0..TRIALS {
                let mut least = costs[0][trial];
                for costs in &costs[1..] {
                    least = if costs[trial] < least { costs[trial] } else { least };
                }
                errors[trial] += least;
            }
        }
        errors
    }

    /// The costs behind a weight.
    #[inline(always)]
    fn next(&self, costs: &Costs, weight: f32, importance: f32, inverses: &[f32; TRIALS]) -> Costs {
        let mut misses = [[0.0; TRIALS]; QUARTERS];
        for (quarter, misses) in misses.iter_mut().enumerate() {
            for trial in 0..TRIALS {
                let wanted = weight * inverses[trial];
                let difference = wanted - self.nearest_of(quarter, wanted);
                misses[trial] = importance * (difference * difference);
            }
        }
        let mut next = NEVER;
        for (to, next) in next.iter_mut().enumerate() {
            let (a, b) = (from(to, 0), from(to, 1));
            let bit = (to & 1) as u8;
            let (miss_a, miss_b) = (a.quarter(bit) as usize, b.quarter(bit) as usize);
            for trial in 0..TRIALS {
                let by_a = costs[a.index()][trial] + misses[miss_a][trial];
                let by_b = costs[b.index()][trial] + misses[miss_b][trial];
                next[trial] = if by_b < by_a { by_b } else { by_a };
            }
        }
        next
    }

    /// The levels of the path from input `first` on.
    fn round_path(
        &self,
        group: &Group,
        first: usize,
        scale: f32,
        integers: &mut [f32; MAX_GROUP_SIZE],
    ) {
        let mut costs = [f32::INFINITY; PathState::COUNT];
        costs[PathState::START.index()] = 0.0;
        let mut ways = [[(0, 0.0); PathState::COUNT]; PATH_INPUTS];
        for (place, ways) in ways.iter_mut().enumerate() {
            let input = first + input_at(place);
            let mut next = [f32::INFINITY; PathState::COUNT];
            for (to, (next, way)) in next.iter_mut().zip(ways).enumerate() {
                for second in 0..2 {
                    let from = from(to, second);
                    let (cost, level) = if input < group.len {
                        let wanted = group.weights[input] / scale;
                        let level =
                            self.nearest_of(usize::from(from.quarter((to & 1) as u8)), wanted);
                        let miss = wanted - level;
                        (costs[from.index()] + group.importance[input] * (miss * miss), level)
                    } else if to & 1 == 0 {
                        (costs[from.index()], 0.0)
                    } else {
                        continue;
                    };
                    if cost < *next {
                        (*next, *way) = (cost, (from.index(), level));
                    }
                }
            }
            costs = next;
        }
        let by_cost = |a: &usize, b: &usize| costs[*a].total_cmp(&costs[*b]);
        let mut state = (0..PathState::COUNT).min_by(by_cost).expect("states");
        for place in (0..PATH_INPUTS).rev() {
            let (from, level) = ways[place][state];
            if let Some(integer) = integers.get_mut(first + input_at(place)) {
                *integer = level;
            }
            state = from;
        }
    }
}

/// The costs behind an input that there is not, whose bit is 0.
#[inline(always)]
fn passed(costs: &Costs) -> Costs {
    let mut next = NEVER;
    for to in [0, 2] {
        let (a, b) = (&costs[from(to, 0).index()], &costs[from(to, 1).index()]);
        for trial in 0..TRIALS {
            next[to][trial] = if b[trial] < a[trial] { b[trial] } else { a[trial] };
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use cerebellum::quant::Scheme;

    use super::*;

    /// All numbers from -50 to 50 in steps of a sixteenth.
    fn numbers() -> impl Iterator<Item = f32> {
        (-800i16..=800).map(|i| f32::from(i) / 16.0)
    }

    #[test]
    fn along_a_path_the_nearest_are_those_of_either_bit() {
        for scheme in [Scheme::Tc3, Scheme::Tc2] {
            let all = scheme.levels().unwrap();
            let levels = &PathLevels::new(all);
            for (x, state) in
                numbers().flat_map(|x| (0..4).map(move |s| (x, PathState::of(s & 1, s >> 1))))
            {
                let ways = levels.two_nearest(state, x);
                let bits =
                    ways.map(|(_, next)| [0, 1].into_iter().find(|&bit| state.next(bit) == next));
                assert!(bits.contains(&Some(0)) && bits.contains(&Some(1)), "{x} {state:?}");
                for ((level, _), bit) in ways.into_iter().zip(bits) {
                    let quarter =
                        all.iter().skip(state.quarter(bit.unwrap()).into()).step_by(QUARTERS);
                    let distances = quarter.map(|&w| (x - f32::from(w)).abs());
                    assert_eq!(
                        distances.reduce(f32::min),
                        Some((x - level).abs()),
                        "{x} {state:?}"
                    );
                }
                assert!((ways[0].0 - x).abs() <= (ways[1].0 - x).abs(), "{x} {state:?}");
            }
        }
    }

    #[test]
    fn a_path_passes_inputs_that_there_are_not() {
        let state = PathState::of(1, 1);
        assert_eq!(enter(state, Some(0), 1), state);
        // From step 0 to step 2 of a row that has but two of the first one's inputs.
        assert_eq!(enter(state, Some(1), 8), PathState::START);
        assert_eq!(enter(state, Some(2), 8), state.next(0));
        assert_eq!(enter(state, Some(31), 32), PathState::START);
        assert_eq!(enter(state, None, 32), PathState::START);
    }
}
