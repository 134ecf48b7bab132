//! What came to pass in a simulation, so that it is seen when one covers nothing.

/// What came to pass.
#[derive(Debug, Default)]
pub struct Totals {
    pub steps: usize,
    pub finished: usize,
    pub cancelled: usize,
    pub cut: usize,
    pub failed: usize,
    pub refused: usize,
    pub late: usize,
    pub hits: usize,
    pub restored: usize,
    pub parkings: usize,
    pub tokens: usize,
    pub failed_saves: usize,
    pub restarts: usize,
    pub forgotten: usize,
    pub forked: usize,
    pub evicted: usize,
    pub rolled_back: usize,
    pub warmed: usize,
    pub retained: usize,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        let Totals { steps, finished, cancelled, cut, refused, late, .. } = other;
        self.steps += steps;
        self.finished += finished;
        self.cancelled += cancelled;
        self.cut += cut;
        self.failed += other.failed;
        self.refused += refused;
        self.late += late;
        self.hits += other.hits;
        self.restored += other.restored;
        self.parkings += other.parkings;
        self.tokens += other.tokens;
        self.failed_saves += other.failed_saves;
        self.restarts += other.restarts;
        self.forgotten += other.forgotten;
        self.forked += other.forked;
        self.evicted += other.evicted;
        self.rolled_back += other.rolled_back;
        self.warmed += other.warmed;
        self.retained += other.retained;
    }
}
