//! From values to places on an axis: where it begins and ends, and which values are written on it.

/// Ticks that an axis is given at most, more or less.
const TICKS: f64 = 5.0;
/// A logarithmic axis has ticks at 1, 2 and 5 up to this many decades, above it at 1 alone.
const FINE_DECADES: f64 = 2.1;

#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Log,
}

impl Scale {
    /// From zero, or from the lowest value if that is below, to a round number; `None` without
    /// values.
    pub fn linear(values: impl IntoIterator<Item = f64>) -> Option<Scale> {
        let (low, high) = bounds(values.into_iter().filter(|value| value.is_finite()))?;
        let (low, high) = (low.min(0.0), high.max(0.0));
        let span = if high > low { high - low } else { 1.0 };
        let step = round_up(span / TICKS);
        let slack = 1e-9;
        let (first, last) = (low / step + slack, (low + span) / step - slack);
        let (first, last) = (first.floor(), last.ceil());
        let ticks = (first as i64..=last as i64).map(|index| index as f64 * step).collect();
        Some(Scale { kind: Kind::Linear, low: first * step, high: last * step, ticks })
    }

    /// From a round number to a round number, for values above zero; others are left out.
    pub fn log(values: impl IntoIterator<Item = f64>) -> Option<Scale> {
        let (low, high) = bounds(values.into_iter().filter(|it| it.is_finite() && *it > 0.0))?;
        let (low, mut high) = (round_down(low), round_up(high));
        if low >= high {
            high = 10.0 * low;
        }
        let mantissas: &[f64] = match (high / low).log10() {
            decades if decades <= FINE_DECADES => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let exponents = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let all = exponents.flat_map(|exponent| {
            mantissas.iter().map(move |mantissa| mantissa * 10_f64.powi(exponent))
        });
        let slack = 1e-9;
        let within = |tick: &f64| (low * (1.0 - slack)..=high * (1.0 + slack)).contains(tick);
        Some(Scale { kind: Kind::Log, low, high, ticks: all.filter(within).collect() })
    }

    /// A logarithmic axis on which exactly these values are written, such as sizes that were
    /// chosen; ascending.
    pub fn chosen(mut values: Vec<f64>) -> Option<Scale> {
        values.retain(|value| value.is_finite() && *value > 0.0);
        values.sort_by(f64::total_cmp);
        values.dedup();
        let (low, high) = (*values.first()?, *values.last()?);
        let high = if high > low { high } else { 2.0 * low };
        Some(Scale { kind: Kind::Log, low, high, ticks: values })
    }

    pub fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// Where a value lies, from 0 at the beginning to 1 at the end; what is outside is at the edge.
    pub fn share(&self, value: f64) -> f64 {
        let share = match self.kind {
            Kind::Linear => (value - self.low) / (self.high - self.low),
            Kind::Log if value <= 0.0 => 0.0,
            Kind::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        share.clamp(0.0, 1.0)
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |bounds, value| {
        let (low, high) = bounds.unwrap_or((value, value));
        Some((value.min(low), value.max(high)))
    })
}

/// The next 1, 2 or 5 times a power of ten, for a value above zero.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [5.0, 2.0, 1.0];
    let step = steps.into_iter().find(|step| step * power <= value * (1.0 + 1e-9));
    step.unwrap_or(1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_zero_and_ends_at_a_round_number() {
        let scale = Scale::linear([130.0, 412.0]).expect("values");
        assert_eq!(scale.ticks(), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!([0.0, 250.0, 500.0, 900.0].map(|it| scale.share(it)), [0.0, 0.5, 1.0, 1.0]);
        let below = Scale::linear([-0.3, 0.1]).expect("values");
        assert_eq!(below.ticks().len(), 5);
        assert!(below.share(0.0) > 0.7, "{below:?}");
        assert_eq!(Scale::linear([]), None);
        assert_eq!(Scale::linear([0.0]).expect("a value").share(0.0), 0.0);
    }

    #[test]
    fn a_logarithmic_axis_has_a_decade_as_wide_as_another() {
        let scale = Scale::log([0.0, 3.0, 4_000.0, f64::NAN]).expect("values");
        assert_eq!(scale.ticks(), [10.0, 100.0, 1000.0]);
        let shares = [2.0, 100.0, 5_000.0, 0.0].map(|it| scale.share(it));
        assert_eq!((shares[0], shares[2], shares[3]), (0.0, 1.0, 0.0));
        assert!((shares[1] - 0.5).abs() < 0.01, "{shares:?}");
        let short = Scale::log([12.0, 80.0]).expect("values");
        assert_eq!(short.ticks(), [10.0, 20.0, 50.0, 100.0]);
        assert_eq!(Scale::log([-1.0]), None);
    }

    #[test]
    fn chosen_values_are_the_ticks() {
        let scale = Scale::chosen(vec![16.0, 1.0, 4.0, 4.0]).expect("values");
        assert_eq!(scale.ticks(), [1.0, 4.0, 16.0]);
        assert!((scale.share(4.0) - 0.5).abs() < 1e-9);
        assert_eq!(Scale::chosen(vec![4.0]).expect("a value").share(4.0), 0.0);
    }
}
