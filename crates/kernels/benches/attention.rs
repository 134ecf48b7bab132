//! Speed of attention on one thread: `cargo bench -p kernels --bench attention`; with `-- all` on
//! every instruction set.
//!
//! Decode is one row of 3 KV heads with 3 query heads each over 30 layers of their own memory, as
//! SmolLM2-135M has them; prefill is 48 rows of one KV head of one layer: short, as
//! other programs get in the way of long runs.

use std::time::Instant;

use kernels::attention::{Attention, Blocks, Scratch, attend};
use kernels::isa::Isa;
use kernels::kv::{self, BLOCK_TOKENS, Bits, Layout};
use kernels::strided::{Rows, RowsMut};

const LAYERS: usize = 30;

fn main() {
    let isas = match std::env::args().any(|argument| argument == "all") {
        true => Isa::available(),
        false => &[Isa::best()][..],
    };
    for &isa in isas {
        println!("{isa:?}");
        for (head_dim, group_heads) in [(64, 3), (128, 4)] {
            for (key, value) in [
                (Bits::Four, Bits::Four),
                (Bits::Eight, Bits::Four),
                (Bits::Eight, Bits::Eight),
                (Bits::Sixteen, Bits::Sixteen),
            ] {
                let layout = Layout::new(3, head_dim, key, value);
                println!(
                    "head_dim {head_dim} x {group_heads}, K {} V {}",
                    key.count(),
                    value.count()
                );
                decode(isa, layout, group_heads, 2048);
                prefill(isa, layout, group_heads, 1920, 48);
            }
        }
        append(isa);
    }
}

/// The cache of one layer, a block after another.
fn cache(isa: Isa, layout: Layout, tokens: usize) -> Vec<u8> {
    let len = layout.kv_heads() * layout.head_dim();
    let mut blocks = vec![0; layout.bytes() * tokens.div_ceil(BLOCK_TOKENS)];
    for token in 0..tokens {
        let x: Vec<f32> =
            (0..len).map(|i| ((token * 31 + i * 17) % 97) as f32 / 48.0 - 1.0).collect();
        let block = &mut blocks[token / BLOCK_TOKENS * layout.bytes()..][..layout.bytes()];
        kv::append(isa, layout, block, token % BLOCK_TOKENS, &x, &x);
    }
    blocks
}

/// The best of some runs, in seconds.
fn best(mut f: impl FnMut()) -> f64 {
    (0..60)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// Where the blocks of a [`cache`] begin.
fn starts(layout: Layout, tokens: usize) -> Vec<usize> {
    (0..tokens.div_ceil(BLOCK_TOKENS)).map(|index| index * layout.bytes()).collect()
}

fn attention(layout: Layout, group_heads: usize, blocks: Blocks<'_>) -> Attention<'_> {
    let scale = 1.0 / (layout.head_dim() as f32).sqrt();
    Attention { layout, kv_head: 0, group_heads, scale, window: None, softcap: None, blocks }
}

fn decode(isa: Isa, layout: Layout, group_heads: usize, tokens: usize) {
    let layers = vec![cache(isa, layout, tokens); LAYERS];
    let width = group_heads * layout.head_dim();
    let starts = starts(layout, tokens);
    let query: Vec<f32> = (0..width).map(|i| (i % 13) as f32 / 6.0 - 1.0).collect();
    let mut out = vec![0.0; width];
    let mut scratch = Scratch::new();
    let seconds = best(|| {
        for layer in &layers {
            let blocks = Blocks { cache: layer, starts: &starts, part: 0 };
            for kv_head in 0..layout.kv_heads() {
                let attention = Attention { kv_head, ..attention(layout, group_heads, blocks) };
                let (query, out) = (Rows::new(&query, width, width), RowsMut::new(&mut out, width));
                attend(isa, &attention, &[tokens - 1], query, out, &mut scratch);
            }
        }
    });
    let bytes = (LAYERS * tokens * layout.token_bytes()) as f64;
    let flops = (LAYERS * tokens * layout.kv_heads() * width * 4) as f64;
    println!(
        "  decode at {tokens}: {:6.2} ms on one thread, {:5.1} GB/s, {:5.1} GFLOP/s",
        seconds * 1e3,
        bytes / seconds / 1e9,
        flops / seconds / 1e9
    );
}

fn prefill(isa: Isa, layout: Layout, group_heads: usize, start: usize, rows: usize) {
    let cache = cache(isa, layout, start + rows);
    let starts = starts(layout, start + rows);
    let blocks = Blocks { cache: &cache, starts: &starts, part: 0 };
    let width = group_heads * layout.head_dim();
    let queries: Vec<f32> = (0..rows * width).map(|i| (i % 13) as f32 / 6.0 - 1.0).collect();
    let positions: Vec<usize> = (start..start + rows).collect();
    let mut out = vec![0.0; rows * width];
    let mut scratch = Scratch::new();
    let attention = attention(layout, group_heads, blocks);
    let seconds = best(|| {
        let (queries, out) = (Rows::new(&queries, width, width), RowsMut::new(&mut out, width));
        attend(isa, &attention, &positions, queries, out, &mut scratch);
    });
    let flops = positions.iter().map(|p| (p + 1) * width * 4).sum::<usize>() as f64;
    println!("  prefill {start}+{rows}: {:5.1} GFLOP/s", flops / seconds / 1e9);
}

fn append(isa: Isa) {
    for bits in [Bits::Four, Bits::Eight, Bits::Sixteen] {
        let layout = Layout::new(3, 64, bits, bits);
        let seconds = best(|| drop(cache(isa, layout, 2048)));
        println!(
            "append at {} bits: {:.2} us per token and layer",
            bits.count(),
            seconds / 2048.0 * 1e6
        );
    }
}
