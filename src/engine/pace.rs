//! How much fits the time of a step: a constant until it is learned.
use std::time::Duration;
pub struct Pace {
    chunk_max: usize,
}
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub decode_rows: usize,
    pub decode_context_tokens: usize,
    pub prefill: Vec<Chunk>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub start: usize,
    pub tokens: usize,
}
impl Pace {
    pub fn new(_: Duration, chunk_max: usize) -> Pace {
        Pace { chunk_max }
    }
    pub fn observe(&mut self, _: &Shape, _: Duration) {}
    pub fn predict(&self, _: &Shape) -> Duration {
        Duration::from_millis(100)
    }
    pub fn prefill_tokens(&self, _: usize, _: usize, _: usize) -> usize {
        self.chunk_max.min(90)
    }
}
