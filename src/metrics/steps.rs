//! What the engine does: its steps, its line, its pool, and its end.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::buckets;
use super::family::{By, Families, level, observe};
use super::labels::{Block, Tier};
use super::totals::Totals;

pub struct Steps {
    batch: Histogram,
    step: Histogram,
    prefill_step: Histogram,
    prefill_step_tokens: IntCounter,
    running: IntGauge,
    waiting: IntGauge,
    parked: IntGauge,
    usage: Gauge,
    utilization: Gauge,
    blocks: By<Block, IntGauge>,
    agents: By<Tier, IntGauge>,
    agents_active: IntGauge,
    drain: Histogram,
    drain_timeouts: IntCounter,
    drained_requests: IntCounter,
}

/// How things stand when somebody looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    pub running: usize,
    pub waiting: usize,
    pub parked: usize,
    pub blocks_total: usize,
    pub blocks_free: usize,
    pub blocks_used: usize,
    pub blocks_evictable: usize,
    pub agents_hot: usize,
    /// With those at work that have nothing in the pool but that.
    pub agents_active: usize,
    pub agents_warm: usize,
}

impl Steps {
    pub(super) fn new(families: &Families<'_>) -> Steps {
        Steps {
            batch: families.histogram(
                "semantic_batch_size",
                "Sequences that a step of the model computes together.",
                buckets::BATCH,
            ),
            step: families.histogram(
                "semantic_step_duration_seconds",
                "One step of the model.",
                buckets::STEP,
            ),
            prefill_step: families.histogram(
                "semantic_prefill_step_duration_seconds",
                "One step that held parts of prompts that went on after it, and nothing else.",
                buckets::STEP,
            ),
            prefill_step_tokens: families
                .counter("semantic_prefill_step_tokens_total", "Tokens of such steps."),
            running: families.gauge("semantic_num_requests_running", "Replies under way."),
            waiting: families.gauge("semantic_num_requests_waiting", "Requests in line."),
            parked: families.gauge(
                "semantic_num_requests_parked",
                "Replies that gave their blocks up for a while.",
            ),
            usage: families.ratio(
                "semantic_kv_cache_usage_ratio",
                "Blocks of the pool that hold something, 0 to 1.",
            ),
            utilization: families.ratio(
                "semantic_pool_utilization_ratio",
                "Blocks of the pool that a new request could not have, 0 to 1.",
            ),
            blocks: families.gauge_by("semantic_pool_blocks", "Blocks of the pool."),
            agents: families.gauge_by(
                "semantic_agents",
                "Agents that are remembered: in the pool (hot) or in the store only (warm).",
            ),
            agents_active: families
                .gauge("semantic_agents_active", "Agents that are in the pool or at work."),
            drain: families.histogram(
                "semantic_drain_duration_seconds",
                "From the order to finish to the last request's end.",
                buckets::DRAIN,
            ),
            drain_timeouts: families
                .counter("semantic_drain_timeouts_total", "Drains that were not done in time."),
            drained_requests: families
                .counter("semantic_drained_requests_total", "Requests that drains waited for."),
        }
    }

    pub fn stepped(&self, rows: usize, took: Duration) {
        self.batch.observe(rows as f64);
        observe(&self.step, took);
    }

    /// So many tokens of prompts that went on after it, and nothing else.
    pub fn read(&self, tokens: usize, took: Duration) {
        observe(&self.prefill_step, took);
        self.prefill_step_tokens.inc_by(tokens as u64);
    }

    pub(super) fn add_to(&self, totals: &mut Totals) {
        totals.prefill_step_tokens = self.prefill_step_tokens.get();
        totals.prefill_step_s = self.prefill_step.get_sample_sum();
    }

    pub fn drained(&self, requests: usize, took: Duration) {
        observe(&self.drain, took);
        self.drained_requests.inc_by(requests as u64);
    }

    /// So many had ended when the time was up.
    pub fn not_drained(&self, requests: usize) {
        self.drain_timeouts.inc();
        self.drained_requests.inc_by(requests as u64);
    }

    /// Said before each look, so that nothing is done for it while nobody looks.
    pub fn set(&self, levels: &Levels) {
        let set = |gauge: &IntGauge, count: usize| gauge.set(level(count as u64));
        set(&self.running, levels.running);
        set(&self.waiting, levels.waiting);
        set(&self.parked, levels.parked);
        set(self.blocks.of(Block::Free), levels.blocks_free);
        set(self.blocks.of(Block::Used), levels.blocks_used);
        set(self.blocks.of(Block::Evictable), levels.blocks_evictable);
        set(self.agents.of(Tier::Hot), levels.agents_hot);
        set(self.agents.of(Tier::Warm), levels.agents_warm);
        set(&self.agents_active, levels.agents_active);
        let busy = levels.blocks_used.saturating_sub(levels.blocks_evictable);
        let total = levels.blocks_total.max(1) as f64;
        self.usage.set(levels.blocks_used as f64 / total);
        self.utilization.set(busy as f64 / total);
    }
}
