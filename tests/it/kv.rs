//! The KV pools of both paths through the trait `Model`: what is exported, restored, shared or
//! reused reads back as if it had just been computed, bit for bit.

use semantic::model::fake::{Fake, FakeConfig, Memory};
use semantic::model::{Batch, Device, LoadOptions, Model, ModelFiles, Row, Wanted};
use semantic::types::{BLOCK_TOKENS, BlockId, KvAxis, TokenId};

use crate::support::golden;

const SETTINGS: [&str; 8] = ["32", "16", "8", "4", "8/4", "8r", "4r", "8/4r"];

const DEVICES: [Device; 2] = [Device::Cpu, Device::Portable];

fn model(device: Device, name: &str, kv: &str) -> Box<dyn Model> {
    let files = ModelFiles::open(&golden::data(&format!("tiny/{name}"))).unwrap();
    let kv = kv.parse().unwrap();
    files.load(LoadOptions { kv, pool_blocks: 8, device, threads: None }).unwrap()
}

fn tiny(device: Device, kv: &str) -> Box<dyn Model> {
    model(device, "llama-f32", kv)
}

/// A sequence that differs from that of another seed from its first token on.
fn ids(seed: usize, count: usize) -> Vec<TokenId> {
    (0..count).map(|i| TokenId(((i * (2 * seed + 5) + i / 3 + seed) % 288) as u32)).collect()
}

fn table<const N: usize>(ids: [u32; N]) -> [BlockId; N] {
    ids.map(BlockId)
}

/// Runs `tokens[start..]` in one step and gives the logits of its last token.
fn go_on(model: &mut dyn Model, tokens: &[TokenId], start: usize, blocks: &[BlockId]) -> Vec<f32> {
    let row = Row { tokens: &tokens[start..], start, blocks, logits: Wanted::Last };
    model.step(&Batch { rows: vec![row] }).unwrap()[0].last().to_vec()
}

/// Copies the KV of `tokens` tokens from one pool to another.
fn restore(from: (&mut dyn Model, &[BlockId]), to: (&mut dyn Model, &[BlockId]), tokens: usize) {
    let lengths = (0..tokens).step_by(BLOCK_TOKENS).map(|at| BLOCK_TOKENS.min(tokens - at));
    for ((&source, &target), len) in from.1.iter().zip(to.1).zip(lengths) {
        let bytes = from.0.export(source, len).unwrap();
        assert_eq!(bytes.len(), from.0.spec().block_bytes(len));
        to.0.import(target, len, &bytes).unwrap();
        assert!(to.0.export(target, len).unwrap() == bytes);
    }
}

#[test]
fn an_exported_sequence_goes_on_elsewhere_as_if_it_had_never_left() {
    for device in DEVICES {
        for kv in SETTINGS {
            // Within a block, at its end, and with a partial second block.
            for len in [1, 37, 256, 300] {
                let (mut here, mut there) = (tiny(device, kv), tiny(device, kv));
                let (old, new) = (table([2, 5]), table([7, 0]));
                let mut tokens = ids(1, len);
                go_on(&mut *here, &tokens, 0, &old);
                // The other pool is not fresh: something else lies there.
                go_on(&mut *there, &ids(2, 500), 0, &new);
                restore((&mut *here, &old), (&mut *there, &new), len);
                for next in [3, 4] {
                    tokens.push(TokenId(next));
                    let start = tokens.len() - 1;
                    let stayed = go_on(&mut *here, &tokens, start, &old);
                    assert!(
                        go_on(&mut *there, &tokens, start, &new) == stayed,
                        "{kv}: {len} tokens"
                    );
                }
            }
        }
    }
}

/// The paths round differently, so a new token's own codes may differ by one, of fifteen at 4 bits.
#[test]
fn what_one_path_exports_the_other_goes_on_from() {
    for kv in SETTINGS {
        for (from, to) in [(Device::Cpu, Device::Portable), (Device::Portable, Device::Cpu)] {
            let (mut here, mut there) = (tiny(from, kv), tiny(to, kv));
            let (old, new) = (table([2, 5]), table([7, 0]));
            let tokens = ids(1, 301);
            go_on(&mut *here, &tokens[..300], 0, &old);
            restore((&mut *here, &old), (&mut *there, &new), 300);
            let stayed = go_on(&mut *here, &tokens, 300, &old);
            let moved = go_on(&mut *there, &tokens, 300, &new);
            let most = stayed.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
            let pairs = stayed.iter().zip(&moved);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
            assert!(worst < 3e-3 * most, "{kv}: {from} to {to}: off by {worst} of {most}");
        }
    }
}

#[test]
fn every_architecture_and_head_size_is_exported_and_restored() {
    for device in DEVICES {
        for name in [
            "llama-bias",
            "mistral",
            "qwen2",
            "qwen3-q4-g64",
            "gemma3-wide-window",
            "gemma3-q4-g32",
        ] {
            goes_on_in_a_fresh_instance(device, name, "8/4r");
        }
    }
}

/// Norms per head, and windows that end long before the sequence does.
#[test]
fn qwen3_and_gemma3_are_exported_and_restored_at_every_setting() {
    for device in DEVICES {
        for name in ["qwen3", "gemma3"] {
            for kv in SETTINGS {
                goes_on_in_a_fresh_instance(device, name, kv);
            }
        }
    }
}

fn goes_on_in_a_fresh_instance(device: Device, name: &str, kv: &str) {
    let (mut here, mut there) = (model(device, name, kv), model(device, name, kv));
    assert_eq!(here.spec(), there.spec());
    let (old, new) = (table([2, 5]), table([7, 0]));
    let mut tokens = ids(1, 300);
    go_on(&mut *here, &tokens, 0, &old);
    restore((&mut *here, &old), (&mut *there, &new), 300);
    for next in [3, 4, 5] {
        tokens.push(TokenId(next));
        let start = tokens.len() - 1;
        let stayed = go_on(&mut *here, &tokens, start, &old);
        assert!(go_on(&mut *there, &tokens, start, &new) == stayed, "{name} {kv} on {device}");
    }
    let export = |model: &mut dyn Model, block| model.export(block, 47).unwrap();
    assert!(export(&mut *here, old[1]) == export(&mut *there, new[1]), "{name} {kv} on {device}");
}

/// Its state is the block's, not a token's, so it comes back only with the whole of what was written.
#[test]
fn a_stateful_model_is_exported_and_restored() {
    let fake = || {
        let config = FakeConfig {
            vocabulary: 97,
            context_tokens: 2048,
            pool_blocks: 8,
            memory: Memory::State,
        };
        Fake::new(config)
    };
    for len in [1, 255, 256, 257, 512, 700] {
        let (mut here, mut there) = (fake(), fake());
        let (old, new) = (table([2, 5, 1]), table([7, 0, 4]));
        let mut tokens: Vec<TokenId> = (0..len).map(|i| TokenId(i * 7 % 97)).collect();
        go_on(&mut here, &tokens, 0, &old);
        restore((&mut here, &old), (&mut there, &new), tokens.len());
        for next in [3, 4] {
            tokens.push(TokenId(next));
            let start = tokens.len() - 1;
            let stayed = go_on(&mut here, &tokens, start, &old);
            assert!(go_on(&mut there, &tokens, start, &new) == stayed, "{len} tokens");
        }
    }
}

#[test]
fn a_block_has_the_tensors_that_its_spec_lists() {
    for name in ["llama-f32", "qwen3-q4-g64", "gemma3"] {
        for kv in ["32", "16/16", "8/8", "8/4", "8/4r", "4/4", "16/4"] {
            let lists = DEVICES.map(|device| {
                let mut model = model(device, name, kv);
                check_tensors(&mut *model, &format!("{name} {kv} on {device}"));
                model.spec().tensors.clone()
            });
            assert_eq!(lists[0], lists[1], "{name} {kv}");
        }
    }
    for memory in [Memory::Tokens, Memory::State] {
        let config = FakeConfig { vocabulary: 288, context_tokens: 2048, pool_blocks: 8, memory };
        check_tensors(&mut Fake::new(config), &format!("the fake with {memory:?}"));
    }
}

/// Of a full block, cut to fewer tokens along the axis that is the tokens' in each tensor, is what a
/// part of it is exported as: shapes that were wrong would cut out something else.
fn check_tensors(model: &mut dyn Model, what: &str) {
    let (spec, block) = (model.spec().clone(), table([3]));
    go_on(model, &ids(1, BLOCK_TOKENS), 0, &block);
    let full = model.export(block[0], BLOCK_TOKENS).unwrap();
    for tokens in [0, 1, 100, BLOCK_TOKENS] {
        let bytes: usize = spec.tensors.iter().map(|tensor| tensor.bytes(tokens)).sum();
        assert_eq!(bytes, spec.block_bytes(tokens), "{what}: {tokens} tokens");
        let mut cut = Vec::new();
        let mut rest = &full[..];
        for tensor in &spec.tensors {
            let (bytes, others) = rest.split_at(tensor.bytes(BLOCK_TOKENS));
            rest = others;
            let along = tensor.shape.iter().position(|axis| *axis == KvAxis::Tokens);
            let inner: usize = match along {
                Some(axis) => tensor.shape(1)[axis..].iter().product(),
                None => bytes.len() / tensor.element.bytes(),
            };
            let token = inner * tensor.element.bytes();
            match along {
                Some(_) => bytes
                    .chunks(token * BLOCK_TOKENS)
                    .for_each(|row| cut.extend_from_slice(&row[..token * tokens])),
                None => cut.extend_from_slice(bytes),
            }
        }
        assert!(rest.is_empty());
        if tokens > 0 {
            assert!(model.export(block[0], tokens).unwrap() == cut, "{what}: {tokens} tokens");
        }
    }
    let names: std::collections::BTreeSet<_> = spec.tensors.iter().map(|it| &it.name).collect();
    assert_eq!(names.len(), spec.tensors.len(), "{what}: two tensors have one name");
}

/// The portable path promises it for equal chunks only: MLX picks its kernels by shape.
#[test]
fn a_restored_prefix_answers_as_a_computed_one() {
    for device in DEVICES {
        for kv in SETTINGS {
            let tokens = ids(3, 300);
            let (mut cold, mut warm) = (tiny(device, kv), tiny(device, kv));
            let (old, new) = (table([0, 1]), table([6, 3]));
            go_on(&mut *cold, &tokens[..BLOCK_TOKENS], 0, &old);
            let computed = go_on(&mut *cold, &tokens, BLOCK_TOKENS, &old);
            restore((&mut *cold, &old), (&mut *warm, &new), BLOCK_TOKENS);
            assert!(go_on(&mut *warm, &tokens, BLOCK_TOKENS, &new) == computed, "{kv}");
        }
    }
}

#[test]
fn the_order_of_blocks_in_the_pool_changes_nothing() {
    for device in DEVICES {
        for kv in SETTINGS {
            let tokens = ids(4, 500);
            let answer = |blocks: [BlockId; 2]| {
                let mut model = tiny(device, kv);
                go_on(&mut *model, &tokens[..400], 0, &blocks);
                go_on(&mut *model, &tokens, 400, &blocks)
            };
            let in_order = answer(table([0, 1]));
            for blocks in [[1, 0], [7, 2], [3, 4]] {
                assert!(answer(table(blocks)) == in_order, "{kv}: {blocks:?}");
            }
        }
    }
}

#[test]
fn rows_that_share_a_block_answer_as_if_each_had_its_own() {
    for device in DEVICES {
        for kv in SETTINGS {
            let prefix = ids(5, BLOCK_TOKENS);
            let tails = [ids(6, 40), ids(7, 40)];
            let answers = |tables: [[BlockId; 2]; 2]| {
                let mut model = tiny(device, kv);
                for blocks in &tables {
                    go_on(&mut *model, &prefix, 0, blocks);
                }
                let row = |index: usize| Row {
                    tokens: &tails[index],
                    start: BLOCK_TOKENS,
                    blocks: &tables[index],
                    logits: Wanted::All,
                };
                model.step(&Batch { rows: vec![row(0), row(1)] }).unwrap()
            };
            let unshared = answers([table([0, 1]), table([2, 3])]);
            assert!(answers([table([0, 1]), table([0, 3])]) == unshared, "{kv}");
            assert!(unshared[0] != unshared[1]);
        }
    }
}

#[test]
fn what_a_block_held_before_never_shows() {
    for device in DEVICES {
        for kv in SETTINGS {
            let (mut used, mut fresh) = (tiny(device, kv), tiny(device, kv));
            let blocks = table([4, 2]);
            go_on(&mut *used, &ids(8, 512), 0, &blocks);
            let tokens = ids(9, 300);
            for (start, end) in [(0, 200), (200, 299), (299, 300)] {
                let found = go_on(&mut *used, &tokens[..end], start, &blocks);
                assert!(found == go_on(&mut *fresh, &tokens[..end], start, &blocks), "{kv}: {end}");
            }
            let export = |model: &mut dyn Model| model.export(BlockId(2), 44).unwrap();
            assert!(export(&mut *used) == export(&mut *fresh), "{kv}");
        }
    }
}

/// A rotation is undone when read, so without quantisation it costs a rounding to f16 only.
#[test]
fn rotating_a_16_bit_cache_changes_the_logits_by_roundings() {
    for device in DEVICES {
        let tokens = ids(10, 300);
        let answer = |kv| go_on(&mut *tiny(device, kv), &tokens, 0, &table([0, 1]));
        let exact = answer("32");
        for kv in ["16", "16r", "16/16r", "32r"] {
            let worst =
                answer(kv).iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            let tolerance = if kv == "32r" { 1e-4 } else { 1e-2 };
            assert!(worst < tolerance, "{kv}: off by {worst}");
        }
    }
}

#[test]
fn bytes_of_another_length_and_blocks_outside_the_pool_are_refused() {
    for device in DEVICES {
        let mut model = tiny(device, "8");
        let bytes = model.export(BlockId(0), 10).unwrap();
        assert!(model.import(BlockId(0), 11, &bytes).is_err());
        assert!(model.import(BlockId(0), 10, &bytes[1..]).is_err());
        assert!(model.import(BlockId(8), 10, &bytes).is_err());
        assert!(model.export(BlockId(0), BLOCK_TOKENS + 1).is_err());
        model.import(BlockId(0), 10, &bytes).unwrap();
    }
}
