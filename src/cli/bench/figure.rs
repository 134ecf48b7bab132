//! A measured figure: the median of its runs, and how far they lie apart.

/// What several runs of the same work gave; at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Ascending.
    runs: Vec<f64>,
}

impl Figure {
    pub fn new(mut runs: Vec<f64>) -> Figure {
        assert!(!runs.is_empty());
        runs.sort_by(f64::total_cmp);
        Figure { runs }
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
