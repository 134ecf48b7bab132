//! Where the time of requests goes, from the line to the last token.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use super::buckets;
use super::family::{By, Families, observe};
use super::labels::Finished;
use super::totals::Totals;

pub struct Requests {
    finished: By<Finished, IntCounter>,
    first_token: Histogram,
    between_tokens: Histogram,
    whole: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    prompt_tokens: IntCounter,
    generation_tokens: IntCounter,
}

impl Requests {
    pub(super) fn new(families: &Families<'_>) -> Requests {
        let time = |name, help| families.histogram(name, help, buckets::REQUEST);
        Requests {
            finished: families
                .counter_by("semantic_request_success_total", "Requests that have ended, by why."),
            first_token: families.histogram(
                "semantic_time_to_first_token_seconds",
                "From a request's coming to its first token.",
                buckets::FIRST_TOKEN,
            ),
            between_tokens: families.histogram(
                "semantic_inter_token_latency_seconds",
                "From one token of a reply to the next.",
                buckets::BETWEEN_TOKENS,
            ),
            whole: time(
                "semantic_e2e_request_latency_seconds",
                "From a request's coming to its end.",
            ),
            queue: time(
                "semantic_request_queue_time_seconds",
                "From a request's coming to its blocks.",
            ),
            prefill: time(
                "semantic_request_prefill_time_seconds",
                "From a request's blocks to its first token, restoring included.",
            ),
            decode: time(
                "semantic_request_decode_time_seconds",
                "From a request's first token to its last.",
            ),
            prompt_tokens: families
                .counter("semantic_prompt_tokens_total", "Tokens of prompts, reused or computed."),
            generation_tokens: families
                .counter("semantic_generation_tokens_total", "Tokens generated."),
        }
    }

    pub(super) fn add_to(&self, totals: &mut Totals) {
        totals.prompt_tokens = self.prompt_tokens.get();
        totals.generation_tokens = self.generation_tokens.get();
    }

    pub fn admitted(&self, queued: Duration, prompt_tokens: usize) {
        observe(&self.queue, queued);
        self.prompt_tokens.inc_by(prompt_tokens as u64);
    }

    pub fn first_token(&self, since_submitted: Duration) {
        observe(&self.first_token, since_submitted);
    }

    /// Tokens of one reply, the first of all aside; each took its part of the time.
    pub fn tokens(&self, count: usize) {
        self.generation_tokens.inc_by(count as u64);
    }

    pub fn between_tokens(&self, time: Duration) {
        observe(&self.between_tokens, time);
    }

    pub fn prefilled(&self, time: Duration) {
        observe(&self.prefill, time);
    }

    pub fn decoded(&self, time: Duration) {
        observe(&self.decode, time);
    }

    pub fn finished(&self, why: Finished, since_submitted: Duration) {
        self.finished.of(why).inc();
        observe(&self.whole, since_submitted);
    }
}
