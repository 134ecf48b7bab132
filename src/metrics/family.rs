//! Makes families of metrics, with one for each value of a label from the start.
//!
//! A series that appears with its first event has no rate for that event, and a label's value that
//! is looked up costs a lock; those that are made beforehand have neither.

use std::marker::PhantomData;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::labels::Label;

/// Where families are made.
pub struct Families<'a> {
    registry: &'a Registry,
}

/// One metric for each value of a label.
pub struct By<L, M> {
    metrics: Vec<M>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, M> By<L, M> {
    fn new(make: impl Fn(&'static str) -> M) -> By<L, M> {
        let metrics = L::ALL.iter().map(|value| make(value.word())).collect();
        By { metrics, label: PhantomData }
    }

    pub fn of(&self, value: L) -> &M {
        &self.metrics[value.index()]
    }
}

const NAMES: &str = "names and labels are ours, and no family is made twice";

impl<'a> Families<'a> {
    pub fn new(registry: &'a Registry) -> Families<'a> {
        Families { registry }
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect(NAMES))
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels).expect(NAMES))
    }

    pub fn counter_by<L: Label>(&self, name: &str, help: &str) -> By<L, IntCounter> {
        let family = self.counters(name, help, &[L::NAME]);
        By::new(|value| family.with_label_values(&[value]))
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect(NAMES))
    }

    /// A gauge between whole numbers.
    pub fn ratio(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help).expect(NAMES))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels).expect(NAMES))
    }

    pub fn gauge_by<L: Label>(&self, name: &str, help: &str) -> By<L, IntGauge> {
        let family = self.gauges(name, help, &[L::NAME]);
        By::new(|value| family.with_label_values(&[value]))
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options).expect(NAMES))
    }

    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels).expect(NAMES))
    }

    fn register<C: Collector + Clone + 'static>(&self, family: C) -> C {
        self.registry.register(Box::new(family.clone())).expect(NAMES);
        family
    }
}

/// A time, as Prometheus counts it.
pub fn observe(histogram: &Histogram, time: Duration) {
    histogram.observe(time.as_secs_f64());
}

/// A number for a gauge, which has a sign.
pub fn level(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
