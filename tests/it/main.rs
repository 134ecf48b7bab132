//! Whole-program tests, one module per room or promise.

#![allow(clippy::unwrap_used, reason = "the panic is the report")]

mod access;
mod admin;
mod agents_api;
mod at_rest;
mod bad_input;
mod baselines;
mod batching;
mod bench;
mod bench_report;
mod cache;
mod chat;
mod cli;
mod clock;
mod completions;
mod conduct;
mod counts;
mod deploy;
mod ending;
mod engine;
mod first_run;
mod golden;
mod grace;
mod health;
mod hostile;
mod http;
mod invariance;
mod keys;
mod kv;
mod logging;
#[cfg(target_os = "linux")]
mod memory;
mod messages;
mod native;
mod neighbours;
mod openapi;
mod promise;
mod race;
mod readme;
mod reasoning;
mod release;
mod remembering;
mod report_page;
mod sdk;
mod seeing;
mod serve;
mod simulation;
mod source;
mod store;
mod stress;
mod support;
mod tidy;
mod timing;
mod tokens;
mod tools;
