//! What computes, what it computes with, and whether there is room for it.

use std::thread::available_parallelism;

use super::{Arguments, Finding};
use crate::cli::Context;
use crate::cli::compute::Compute;
use crate::cli::memory;
use crate::cli::model;
use crate::cli::output::{Failure, human_bytes};
use crate::model::machine::{default_threads, instruction_set};
use crate::model::source::{self, ModelName, ResolvedModel};
use crate::model::{Device, check_mlx, mlx_version};

/// Where the kernels have no vector instructions.
const SCALAR: &str = "scalar";

/// A setting out of range is the user's slip, no finding.
pub fn findings(arguments: &Arguments, context: &Context) -> Result<Vec<Finding>, Failure> {
    let compute =
        arguments.compute.merge(context.config.serve.compute()).map_err(Failure::Usage)?;
    let pool_bytes = arguments
        .kv_pool_mb
        .or(context.config.serve.kv_pool_mb)
        .map_or_else(memory::default_pool_bytes, |mb| mb.saturating_mul(1_000_000));
    let (model, model_bytes) = model(arguments, context);
    Ok(vec![device(&compute), mlx(), threads(&compute), model, room(model_bytes, pool_bytes)])
}

fn device(compute: &Compute) -> Finding {
    let (name, set) = ("device", instruction_set());
    let finding = format!("{}, instructions of the kernels: {set}", compute.device);
    match (compute.device, set) {
        (Device::Cpu, SCALAR) => {
            let hint = "take --device auto: this processor has neither AVX2 nor AVX-512";
            Finding::fail(name, finding, hint)
        }
        (Device::Auto, SCALAR) if cfg!(not(target_os = "macos")) => {
            let hint = "plain MLX computes, slowly: the kernels need AVX2 or AVX-512";
            Finding::warn(name, finding, hint)
        }
        _ => Finding::ok(name, finding),
    }
}

fn mlx() -> Finding {
    let version = mlx_version();
    match check_mlx() {
        Ok(()) => Finding::ok("mlx", format!("{version} computes")),
        Err(error) => {
            let hint = "its libraries do not fit this machine or this program: build it anew";
            Finding::fail("mlx", format!("{version} does not compute: {error}"), hint)
        }
    }
}

fn threads(compute: &Compute) -> Finding {
    let cores = default_threads();
    let allowed = available_parallelism().map_or(cores, usize::from);
    let threads = compute.threads.unwrap_or(cores);
    let finding = format!("{threads}, on {cores} cores");
    match threads > allowed {
        true => Finding::warn(
            "threads",
            format!("{finding}, of which this process may use {allowed}"),
            "give --threads that number: more only wait for each other",
        ),
        false => Finding::ok("threads", finding),
    }
}

/// And the bytes of its weights, if it is here.
fn model(arguments: &Arguments, context: &Context) -> (Finding, Option<u64>) {
    let name = arguments.model.name(context);
    let settings = model::settings(&context.data_dir);
    let here = ModelName::parse(name).and_then(|name| source::find_here(&name, &settings));
    match here {
        Ok(Some(found)) => opened(&found),
        Ok(None) => {
            let finding = format!("{name} is not on this machine; `serve` would fetch it");
            let hint = format!("`semantic pull {name}` fetches it now");
            (Finding::warn("model", finding, hint), None)
        }
        Err(error) => {
            let hint = error.hint().unwrap_or_else(|| "`semantic models` lists those here".into());
            (Finding::fail("model", format!("{name}: {error}"), hint), None)
        }
    }
}

fn opened(found: &ResolvedModel) -> (Finding, Option<u64>) {
    let path = found.path.display();
    match model::open(found).and_then(|_| model::file_bytes(&found.path)) {
        Ok(bytes) => {
            let finding = format!("{}, {}, {path}", found.name, human_bytes(bytes));
            (Finding::ok("model", finding), Some(bytes))
        }
        Err(failure) => {
            let finding = format!("{}: {}", found.name, failure.message());
            let hint = "fetch it again with `semantic pull`, or take another --model";
            (Finding::fail("model", finding, hint), None)
        }
    }
}

/// The weights and the pool against the memory.
fn room(model_bytes: Option<u64>, pool_bytes: u64) -> Finding {
    let name = "memory";
    let Some(total) = memory::total_bytes() else {
        return Finding::ok(name, "this system does not tell".to_owned());
    };
    let needed = model_bytes.unwrap_or(0).saturating_add(pool_bytes);
    let available = memory::available_bytes();
    let mut finding = format!("{} in all", human_bytes(total));
    if let Some(available) = available {
        finding += &format!(", {} available", human_bytes(available));
    }
    let weights = model_bytes
        .map_or(String::new(), |bytes| format!("{} of weights and ", human_bytes(bytes)));
    finding += &format!("; {weights}a KV pool of up to {}", human_bytes(pool_bytes));
    let hint = "give a smaller --kv-pool-mb, or take a smaller model";
    if needed > total {
        return Finding::fail(name, finding, hint);
    }
    match available.is_some_and(|available| needed > available) {
        true => Finding::warn(name, finding, hint),
        false => Finding::ok(name, finding),
    }
}
