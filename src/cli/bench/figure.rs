//! A measured figure: the median of its runs, and how far they lie apart.

use serde::{Deserialize, Serialize};

/// What several runs of the same work gave; at least one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Wire", try_from = "Runs")]
pub struct Figure {
    /// Ascending.
    runs: Vec<f64>,
}

/// A figure in JSON: whoever reads it need not compute.
#[derive(Serialize)]
struct Wire {
    median: f64,
    min: f64,
    max: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    runs: Vec<f64>,
}

/// All that is read of it.
#[derive(Deserialize)]
struct Runs {
    runs: Vec<f64>,
}

impl From<Figure> for Wire {
    fn from(figure: Figure) -> Wire {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| figure.percentile(share));
        let (median, min, max) = (figure.median(), figure.min(), figure.max());
        Wire { median, min, max, p50, p95, p99, runs: figure.runs }
    }
}

impl TryFrom<Runs> for Figure {
    type Error = &'static str;

    fn try_from(Runs { runs }: Runs) -> Result<Figure, &'static str> {
        match runs.is_empty() {
            true => Err("a figure has no runs"),
            false => Ok(Figure::new(runs)),
        }
    }
}

impl Figure {
    pub fn new(mut runs: Vec<f64>) -> Figure {
        assert!(!runs.is_empty());
        runs.sort_by(f64::total_cmp);
        Figure { runs }
    }

    /// All of them, ascending.
    pub fn runs(&self) -> &[f64] {
        &self.runs
    }

    /// The middle run, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let middle = self.runs.len() / 2;
        match self.runs.len() % 2 {
            1 => self.runs[middle],
            _ => f64::midpoint(self.runs[middle - 1], self.runs[middle]),
        }
    }

    pub fn min(&self) -> f64 {
        self.runs[0]
    }

    pub fn max(&self) -> f64 {
        self.runs[self.runs.len() - 1]
    }

    /// The smallest run that at least this share of all runs does not exceed (nearest rank).
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = (share * self.runs.len() as f64).ceil() as usize;
        self.runs[rank.clamp(1, self.runs.len()) - 1]
    }

    /// How many times the other's median ours is.
    pub fn ratio(&self, other: &Figure) -> f64 {
        self.median() / other.median()
    }
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        let odd = Figure::new(vec![3.0, 100.0, 1.0]);
        assert_eq!((odd.min(), odd.median(), odd.max()), (1.0, 3.0, 100.0));
        let even = Figure::new(vec![4.0, 1.0, 2.0, 100.0]);
        assert_eq!((even.min(), even.median(), even.max()), (1.0, 3.0, 100.0));
        let one = Figure::new(vec![7.0]);
        assert_eq!((one.min(), one.median(), one.max()), (7.0, 7.0, 7.0));
    }

    #[test]
    fn a_percentile_is_a_run_that_was() {
        let runs = Figure::new((1..=100).map(f64::from).collect());
        assert_eq!(
            [0.0, 0.5, 0.95, 0.99, 1.0].map(|it| runs.percentile(it)),
            [1.0, 50.0, 95.0, 99.0, 100.0]
        );
        assert_eq!(Figure::new(vec![7.0]).percentile(0.5), 7.0);
    }

    #[test]
    fn a_ratio_is_that_of_the_medians() {
        let ours = Figure::new(vec![30.0, 20.0, 1000.0]);
        let theirs = Figure::new(vec![1.0, 15.0, 16.0]);
        assert_eq!(ours.ratio(&theirs), 2.0);
    }
}
