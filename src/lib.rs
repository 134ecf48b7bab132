//! `semantic`: a local LLM server and command line whose agents keep their memory.
//!
//! # The map
//!
//! ```text
//!   cli ──► http ──► engine ──► model   (all MLX arrays live and die here)
//!    │                 ├──────► text    (token ids and text; pure)
//!    │                 └──────► store   (what agents leave, on disk)
//!    └──► config                        (config.toml and folders)
//! ```
//!
//! | room | what it is for | it alone names |
//! | --- | --- | --- |
//! | [`types`] | nouns that several rooms share | |
//! | [`metrics`] | what is counted and timed, as Prometheus reads it | `prometheus` |
//! | [`text`] | tokenizer, incremental detokenizer, chat template, thinking and calls of tools in replies, grammars that replies are held to, prompts that keep our replies' ids, why two prompts part, stop sequences | `tokenizers`, `minijinja`, `llguidance`, `toktrie` |
//! | [`model`] | finding and reading model files, what makes two KV caches fit, KV pool, forward pass, sampling | `mlx_rs`, `kernels`, `hf_hub` |
//! | [`store`] | what agents leave, on disk: saved so that no crash loses it, verified before it is used | `blake3` |
//! | [`engine`] | requests to tokens: continuous batching over one pool of KV blocks, what agents leave there | |
//! | [`http`] | the server: requests from the network to the engine, answers as JSON and events | `axum`, `hyper`, `subtle`, status codes |
//! | [`config`] | the configuration file and the folders | `toml`, `directories` |
//! | [`cli`] | the commands: flags in, text and exit code out | `clap`, `indicatif`, `anyhow`, `ctrlc`, printing |
//!
//! A room imports only rooms above it in this table (`text`, `model` and `store` do not import each
//! other, nor `metrics`; `config` imports none); `tests/it/tidy.rs` holds that and the last column.
//!
//! The engine decides without a model and without a clock (`engine/scheduler`, `engine/agents.rs`,
//! `engine/pool.rs` and their like); `engine/worker` takes its decisions to the model, on the one
//! thread that has it, and `engine/worker/io.rs` reads and writes the store on threads beside it.
//! `tests/it/simulation.rs` runs all of it on a fake model by the hundred thousand steps.
//!
//! A conversation is a *head* in the engine and a *line* in the store, which has its saves, each of
//! a higher *generation*. A block of KV is a file that never changes, named by everything it
//! depends on; a save is a manifest that names its blocks (`store/manifest.rs`). What was
//! said up to an answer that one can go on from by its id is a *transcript* (`store/transcripts.rs`).
//!
//! The model has two paths with one meaning: `model/portable.rs` is plain MLX operations,
//! `model/cpu` this project's own kernels.
//!
//! Beside the main crate, and the only places with `unsafe`: `crates/mlx-sys` links the prebuilt
//! MLX, `crates/mlx-custom` runs Rust functions as operations of MLX's graphs, `crates/kernels`
//! has all the SIMD and the decoder layer made of it: slices in, slices out, without MLX. Tests of
//! the whole program are in `tests/it`, their data and the scripts that made it in `tests/data`;
//! `tests/bench` measures what is around the model.
//!
//! To add a route: one file in `http` and one line in `http/routes.rs`. To add an architecture: one file
//! in `model/arch` and one line in its table. To add a model to the catalogue: one entry in
//! `model/source/catalogue.rs`. To add a command: one file in `cli` and one variant in its enum. To
//! add a part of `semantic cache`: the same in `cli/cache`. To add a suite to `semantic bench`: one
//! file in `cli/bench` and one line in its table. What a command's help shows besides its flags is in
//! `cli/help/pages.rs`; `UPDATE_EXPECT=1 cargo test --lib cli::help` then writes `man` and
//! `completions` anew.

pub mod types;

pub mod metrics;

pub mod text;

pub mod model;

pub mod store;

pub mod engine;

pub mod http;

pub mod config;

pub mod cli;
