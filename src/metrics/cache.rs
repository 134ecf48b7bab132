//! What agents keep, what it spares, and what the disk has to do for it.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::buckets;
use super::family::{By, Families, level, observe};
use super::labels::{Miss, Tier};
use super::totals::Totals;

pub struct Cache {
    queries: IntCounter,
    hits: By<Tier, IntCounter>,
    misses: By<Miss, IntCounter>,
    reused_tokens: IntCounter,
    restored_tokens: IntCounter,
    restore: Histogram,
    restore_bytes: IntCounter,
    save: Histogram,
    save_bytes: IntCounter,
    evictions: By<Tier, IntCounter>,
    eviction: Histogram,
    durable_failures: IntCounter,
    store_bytes: IntGauge,
    store_budget: IntGauge,
}

impl Cache {
    pub(super) fn new(families: &Families<'_>) -> Cache {
        let time = |name, help| families.histogram(name, help, buckets::DISK);
        Cache {
            queries: families
                .counter("semantic_cache_queries_total", "Prompts that were looked up."),
            hits: families.counter_by(
                "semantic_cache_hits_total",
                "Prompts of which something was there: in the pool (hot) or the store (warm).",
            ),
            misses: families.counter_by(
                "semantic_cache_misses_total",
                "Prompts that could not go on from all that their agent remembers, by why; what they have \
                 in common may still be a hit.",
            ),
            reused_tokens: families.counter(
                "semantic_reused_tokens_total",
                "Tokens of prompts that were not computed again.",
            ),
            restored_tokens: families.counter(
                "semantic_restored_tokens_total",
                "Of the reused tokens, those that came from the store.",
            ),
            restore: time("semantic_restore_duration_seconds", "Bringing an agent back."),
            restore_bytes: families
                .counter("semantic_restore_bytes_total", "Bytes that were read back."),
            save: time(
                "semantic_save_duration_seconds",
                "From a save's last block handed over to its being safe.",
            ),
            save_bytes: families
                .counter("semantic_save_bytes_total", "Bytes of blocks that were written."),
            evictions: families.counter_by(
                "semantic_evictions_total",
                "Conversations that left the pool (hot), to make room or as somebody asked, or that the \
                 store gave up (warm).",
            ),
            eviction: time(
                "semantic_eviction_duration_seconds",
                "Saving all idle agents and giving their blocks back.",
            ),
            durable_failures: families.counter(
                "semantic_durable_failures_total",
                "Saves that failed; the agent is tried again unless what it has cannot be kept.",
            ),
            store_bytes: families.gauge("semantic_store_bytes", "What is in the store."),
            store_budget: families
                .gauge("semantic_store_budget_bytes", "What may be in the store; 0 if nothing."),
        }
    }

    pub(super) fn add_to(&self, totals: &mut Totals) {
        totals.prompts = self.queries.get();
        totals.prompts_hot = self.hits.of(Tier::Hot).get();
        totals.prompts_warm = self.hits.of(Tier::Warm).get();
        totals.reused_tokens = self.reused_tokens.get();
        totals.restored_tokens = self.restored_tokens.get();
        totals.restore_s = self.restore.get_sample_sum();
    }

    pub fn looked_up(&self) {
        self.queries.inc();
    }

    /// So much of a prompt was in this tier.
    pub fn hit(&self, tier: Tier, reused_tokens: usize, restored_tokens: usize) {
        self.hits.of(tier).inc();
        self.reused_tokens.inc_by(reused_tokens as u64);
        self.restored_tokens.inc_by(restored_tokens as u64);
    }

    pub fn missed(&self, why: Miss) {
        self.misses.of(why).inc();
    }

    pub fn restored(&self, took: Duration) {
        observe(&self.restore, took);
    }

    pub fn read(&self, bytes: u64) {
        self.restore_bytes.inc_by(bytes);
    }

    pub fn saved(&self, took: Duration) {
        observe(&self.save, took);
    }

    pub fn written(&self, bytes: u64) {
        self.save_bytes.inc_by(bytes);
    }

    pub fn not_saved(&self) {
        self.durable_failures.inc();
    }

    pub fn evicted(&self, tier: Tier, count: u64) {
        self.evictions.of(tier).inc_by(count);
    }

    /// All idle agents were saved and left the pool.
    pub fn evicted_all(&self, took: Duration) {
        observe(&self.eviction, took);
    }

    /// Said before each look.
    pub fn store_has(&self, bytes: u64, budget: u64) {
        self.store_bytes.set(level(bytes));
        self.store_budget.set(level(budget));
    }
}
