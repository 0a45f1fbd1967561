//! Scales of plots: from values to places, with round numbers to mark.

/// A logarithmic axis over whole decades.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogAxis {
    /// The decade it begins and ends with.
    pub decades: (i32, i32),
    /// The places of those.
    pub ends: (f64, f64),
}

impl LogAxis {
    /// The axis that holds all positive `values`.
    pub fn holding(values: impl Iterator<Item = f64>, ends: (f64, f64)) -> Self {
        let logs: Vec<f64> = values.filter(|&value| value > 0.0).map(f64::log10).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if logs.is_empty() {
            return Self { decades: (-1, 0), ends };
        }
        let low = low.floor() as i32;
        Self { decades: (low, (high.ceil() as i32).max(low + 1)), ends }
    }

    /// The place of a value; what is beyond the ends is put there.
    pub fn place(&self, value: f64) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        let log = if value > 0.0 { value.log10().clamp(low, high) } else { low };
        between(self.ends, (log - low) / (high - low))
    }

    /// Its marks: place and label.
    pub fn marks(&self) -> Vec<(f64, String)> {
        let decades = self.decades.0..=self.decades.1;
        decades.map(|decade| (self.place(10f64.powi(decade)), power_of_ten(decade))).collect()
    }
}

/// A linear axis between round numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// The distance of two marks.
    step: f64,
    /// The values at the ends, multiples of the step.
    range: (f64, f64),
    /// The places of those.
    ends: (f64, f64),
}

impl Axis {
    /// The axis that holds `low` and `high`, with five to a dozen marks.
    pub fn holding(low: f64, high: f64, ends: (f64, f64)) -> Self {
        let span = (high - low).max(1e-9);
        let power = 10f64.powf((span / 4.0).log10().floor());
        let step = [5.0, 2.0, 1.0].map(|factor| factor * power);
        let step = step.into_iter().find(|step| span / step >= 4.0).unwrap_or(power);
        let range = ((low / step).floor() * step, (high / step).ceil() * step);
        Self { step, range, ends }
    }

    /// The place of a value.
    pub fn place(&self, value: f64) -> f64 {
        between(self.ends, (value - self.range.0) / (self.range.1 - self.range.0))
    }

    /// Its marks: place and label.
    pub fn marks(&self) -> Vec<(f64, String)> {
        let digits = (-self.step.log10().floor()).max(0.0) as usize;
        let count = ((self.range.1 - self.range.0) / self.step).round() as usize;
        let values = (0..=count).map(|i| self.range.0 + i as f64 * self.step);
        values.map(|value| (self.place(value), format!("{value:.digits$}"))).collect()
    }
}

fn between((low, high): (f64, f64), share: f64) -> f64 {
    low + (high - low) * share
}

/// `10⁻³`.
fn power_of_ten(exponent: i32) -> String {
    let superscript = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit as u32 - '0' as u32).expect("a digit"),
    };
    match exponent {
        0 => "1".to_owned(),
        1 => "10".to_owned(),
        _ => format!("10{}", exponent.to_string().chars().map(superscript).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers() {
        let labels =
            |axis: Axis| axis.marks().into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        let axis = Axis::holding(4.48, 8.38, (0.0, 100.0));
        assert_eq!(labels(axis)[..3], ["4.0", "4.5", "5.0"].map(str::to_owned));
        assert_eq!((axis.place(4.0), axis.place(6.25), axis.place(8.5)), (0.0, 50.0, 100.0));
        let axis = Axis::holding(0.0, 0.11, (0.0, 1.0));
        assert_eq!(labels(axis)[..2], ["0.00".to_owned(), "0.02".to_owned()]);
    }

    #[test]
    fn decades_are_whole() {
        let axis = LogAxis::holding([0.0016, 0.034].into_iter(), (100.0, 0.0));
        assert_eq!(axis.decades, (-3, -1));
        let labels: Vec<_> = axis.marks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["10⁻³", "10⁻²", "10⁻¹"].map(str::to_owned));
        assert_eq!((axis.place(0.01), axis.place(0.0), axis.place(5.0)), (50.0, 100.0, 0.0));
        assert_eq!(power_of_ten(-10), "10⁻¹⁰");
        assert_eq!(LogAxis::holding([].into_iter(), (0.0, 1.0)).marks().len(), 2);
    }
}
