//! How attention must behave, on every instruction set.

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::kv::{self, Bits};

/// A sequence's cache of one layer, and queries for it.
#[derive(Clone, Debug)]
struct Case {
    layout: Layout,
    group_heads: usize,
    /// Position of the first row.
    start: usize,
    rows: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    seed: u64,
}

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    /// Uniform within -1 to 1.
    fn number(&mut self) -> f32 {
        self.bits() as f32 / (1_u64 << 30) as f32 - 1.0
    }

    fn numbers(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.number()).collect()
    }
}

impl Case {
    fn positions(&self) -> Vec<usize> {
        (self.start..self.start + self.rows).collect()
    }

    fn row_width(&self) -> usize {
        self.group_heads * self.layout.head_dim()
    }

    /// The cache up to the last row's key; every slot beyond is `garbage`.
    fn blocks(&self, isa: Isa, garbage: u8) -> Vec<Vec<u8>> {
        let end = self.start + self.rows;
        let len = self.layout.kv_heads() * self.layout.head_dim();
        let mut random = Random(self.seed);
        let mut blocks = vec![vec![garbage; self.layout.bytes()]; end.div_ceil(BLOCK_TOKENS)];
        // Some dimensions are larger than others, as in real keys.
        let sizes: Vec<f32> = (0..len).map(|i| if i % 7 == 3 { 4.0 } else { 1.0 }).collect();
        for token in 0..end {
            let keys: Vec<f32> = sizes.iter().map(|size| size * random.number()).collect();
            let values = random.numbers(len);
            let block = &mut blocks[token / BLOCK_TOKENS];
            kv::append(isa, self.layout, block, token % BLOCK_TOKENS, &keys, &values);
        }
        blocks
    }

    /// `[kv_head][row][group_heads * head_dim]`
    fn queries(&self) -> Vec<f32> {
        let len = self.layout.kv_heads() * self.rows * self.row_width();
        Random(self.seed + 1).numbers(len).iter().map(|x| 2.0 * x).collect()
    }

    fn attention<'a>(&self, kv_head: usize, blocks: Blocks<'a>) -> Attention<'a> {
        Attention {
            layout: self.layout,
            kv_head,
            group_heads: self.group_heads,
            scale: 1.0 / (self.layout.head_dim() as f32).sqrt(),
            window: self.window,
            softcap: self.softcap,
            blocks,
        }
    }

    /// Attends with all rows in one call per head; the result has the shape of the queries.
    fn attend(&self, isa: Isa, blocks: &[Vec<u8>]) -> Vec<f32> {
        let (cache, starts) = in_a_cache(blocks);
        let blocks = Blocks { cache: &cache, starts: &starts, part: PART };
        let queries = self.queries();
        let mut out = vec![f32::NAN; queries.len()];
        let (width, len) = (self.row_width(), self.rows * self.row_width());
        let mut scratch = Scratch::new();
        let heads = queries.chunks_exact(len).zip(out.chunks_exact_mut(len));
        for (head, (queries, out)) in heads.enumerate() {
            let attention = self.attention(head, blocks);
            let queries = Rows::new(queries, width, width);
            let out = RowsMut::new(out, width);
            attend(isa, &attention, &self.positions(), queries, out, &mut scratch);
        }
        out
    }

    /// The exact result, from the values as they are stored.
    fn reference(&self, blocks: &[Vec<u8>]) -> Vec<f64> {
        let (head_dim, rows) = (self.layout.head_dim(), self.rows);
        let scale = 1.0 / (head_dim as f64).sqrt();
        let queries = self.queries();
        let mut out = Vec::new();
        for (index, query) in queries.chunks_exact(head_dim).enumerate() {
            let row = index / self.group_heads % rows;
            let kv_head = index / self.group_heads / rows;
            let position = self.start + row;
            let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
            let scores: Vec<f64> = (first..=position)
                .map(|token| {
                    let key = stored_key(self.layout, blocks, kv_head, token);
                    let dot: f64 = key.iter().zip(query).map(|(k, q)| k * f64::from(*q)).sum();
                    match self.softcap {
                        None => dot * scale,
                        Some(cap) => f64::from(cap) * (dot * scale / f64::from(cap)).tanh(),
                    }
                })
                .collect();
            let largest = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut values = vec![0.0; head_dim];
            for (token, weight) in (first..).zip(&weights) {
                let value = stored_value(self.layout, blocks, kv_head, token);
                values.iter_mut().zip(value).for_each(|(out, x)| *out += weight / sum * x);
            }
            out.extend(values);
        }
        out
    }
}

/// Where the parts of a test's layer begin in their blocks.
const PART: usize = 5;

/// One cache of these parts, last block first, and where their blocks begin in it.
fn in_a_cache(parts: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let (mut cache, mut starts) = (Vec::new(), Vec::new());
    for part in parts.iter().rev() {
        starts.insert(0, cache.len());
        cache.extend([0; PART]);
        cache.extend(part);
    }
    (cache, starts)
}

fn half(bytes: &[u8], index: usize) -> f64 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f64()
}

fn single(bytes: &[u8], index: usize) -> f64 {
    f64::from(f32::from_le_bytes(*bytes[4 * index..].first_chunk().expect("four bytes")))
}

fn stored_key(layout: Layout, blocks: &[Vec<u8>], head: usize, token: usize) -> Vec<f64> {
    let (block, slot) = (&blocks[token / BLOCK_TOKENS], token % BLOCK_TOKENS);
    let tensors = layout.keys();
    let codes = &block[tensors.codes];
    (0..layout.head_dim())
        .map(|d| {
            let code = match layout.key_bits() {
                Bits::ThirtyTwo => {
                    return single(codes, (head * layout.head_dim() + d) * 256 + slot);
                }
                Bits::Sixteen => return half(codes, (head * layout.head_dim() + d) * 256 + slot),
                Bits::Eight => codes[(head * layout.head_dim() + d) * 256 + slot],
                Bits::Four => {
                    let byte = codes[(head * layout.head_dim() / 2 + d / 2) * 256 + slot];
                    if d % 2 == 0 { byte & 15 } else { byte >> 4 }
                }
            };
            let at = (head * layout.groups() + d / layout.group()) * 256 + slot;
            let scale = half(&block[tensors.scales.clone()], at);
            scale * f64::from(code) + half(&block[tensors.biases.clone()], at)
        })
        .collect()
}

fn stored_value(layout: Layout, blocks: &[Vec<u8>], head: usize, token: usize) -> Vec<f64> {
    let (block, slot) = (&blocks[token / BLOCK_TOKENS], token % BLOCK_TOKENS);
    let tensors = layout.values();
    let codes = &block[tensors.codes];
    let head_dim = layout.head_dim();
    (0..head_dim)
        .map(|d| {
            let code = match layout.value_bits() {
                Bits::ThirtyTwo => return single(codes, (head * 256 + slot) * head_dim + d),
                Bits::Sixteen => return half(codes, (head * 256 + slot) * head_dim + d),
                Bits::Eight => codes[(head * 256 + slot) * head_dim + d],
                Bits::Four => {
                    let byte = codes[(head * 256 + slot) * head_dim / 2 + d % (head_dim / 2)];
                    if d < head_dim / 2 { byte & 15 } else { byte >> 4 }
                }
            };
            let at = (head * 256 + slot) * layout.groups() + d / layout.group();
            let scale = half(&block[tensors.scales.clone()], at);
            scale * f64::from(code) + half(&block[tensors.biases.clone()], at)
        })
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn any_bits() -> impl Strategy<Value = Bits> {
    prop::sample::select(Bits::ALL.to_vec())
}

fn layout() -> impl Strategy<Value = Layout> {
    let head_dim = prop::sample::select(vec![32, 64, 96, 128, 160, 256]);
    (1..3_usize, head_dim, any_bits(), any_bits())
        .prop_map(|(heads, head_dim, key, value)| Layout::new(heads, head_dim, key, value))
}

fn case() -> impl Strategy<Value = Case> {
    let start = prop_oneof![0..40_usize, 236..276_usize, 490..600_usize];
    let window = prop::option::weighted(0.4, prop_oneof![1..20_usize, 20..400_usize]);
    let softcap = prop::option::weighted(0.3, 0.5_f32..30.0);
    (layout(), 1..10_usize, start, 1..21_usize, window, softcap, any::<u32>()).prop_map(
        |(layout, group_heads, start, rows, window, softcap, seed)| {
            let seed = u64::from(seed);
            Case { layout, group_heads, start, rows, window, softcap, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_scalar_one(case in case()) {
        let blocks = case.blocks(Isa::SCALAR, 0);
        let scalar = bits(&case.attend(Isa::SCALAR, &blocks));
        for &isa in Isa::available() {
            prop_assert!(case.blocks(isa, 0) == blocks, "append with {:?}", isa);
            prop_assert!(bits(&case.attend(isa, &blocks)) == scalar, "attend with {:?}", isa);
        }
    }

    #[test]
    fn attention_is_right(case in case()) {
        let blocks = case.blocks(Isa::best(), 0);
        let ours = case.attend(Isa::best(), &blocks);
        let exact = case.reference(&blocks);
        for (ours, exact) in ours.chunks(case.layout.head_dim()).zip(exact.chunks(case.layout.head_dim())) {
            let size = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
            let error = ours.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>();
            let coded = case.layout.key_bits().is_affine() || case.layout.value_bits().is_affine();
            // Factors of 16 bits are to be no worse than numbers of f16.
            let most = if coded { 5e-4 } else { 1e-5 };
            prop_assert!(error.sqrt() <= most * size, "error {} of {}", error.sqrt(), size);
        }
    }

    #[test]
    fn a_row_alone_is_the_row_of_a_tile(case in case()) {
        let blocks = case.blocks(Isa::best(), 0);
        let (cache, starts) = in_a_cache(&blocks);
        let together = case.attend(Isa::best(), &blocks);
        let (queries, width) = (case.queries(), case.row_width());
        let mut scratch = Scratch::new();
        for (index, query) in queries.chunks_exact(width).enumerate() {
            let position = case.start + index % case.rows;
            let starts = &starts[..position / BLOCK_TOKENS + 1];
            let blocks = Blocks { cache: &cache, starts, part: PART };
            let attention = case.attention(index / case.rows, blocks);
            let together = bits(&together[index * width..][..width]);

            let mut out = vec![f32::NAN; width];
            let rows = Rows::new(query, width, width);
            let out_rows = RowsMut::new(&mut out, width);
            attend(Isa::best(), &attention, &[position], rows, out_rows, &mut scratch);
            prop_assert!(bits(&out) == together);

            // The same block by block.
            let len = attention.partial_len();
            let mut partials = vec![f32::NAN; len * starts.len()];
            for (block, partial) in partials.chunks_exact_mut(len).enumerate() {
                let blocks = block..block + 1;
                attend_blocks(Isa::best(), &attention, position, query, blocks, partial, &mut scratch);
            }
            out.fill(f32::NAN);
            merge(Isa::best(), &attention, &partials, &mut out);
            prop_assert!(bits(&out) == together);

            // Blocks out of the window may as well be left out.
            let seen = attention.blocks_seen(position);
            out.fill(f32::NAN);
            merge(Isa::best(), &attention, &partials[seen.start * len..seen.end * len], &mut out);
            prop_assert!(bits(&out) == together);
        }
    }

    #[test]
    fn what_a_row_may_not_see_does_not_matter(case in case()) {
        let clean = case.blocks(Isa::best(), 0);
        // 0xff is NaN as f16 and as f32.
        let dirty = case.blocks(Isa::best(), 0xff);
        let expected = bits(&case.attend(Isa::best(), &clean));
        prop_assert!(bits(&case.attend(Isa::best(), &dirty)) == expected);

        // Nor do other rows' keys and values: the last token is NaN, and only the last row sees it.
        let mut poisoned = clean;
        let last = case.start + case.rows - 1;
        let nan = vec![f32::NAN; case.layout.kv_heads() * case.layout.head_dim()];
        let block = &mut poisoned[last / BLOCK_TOKENS];
        kv::append(Isa::best(), case.layout, block, last % BLOCK_TOKENS, &nan, &nan);
        let width = case.row_width();
        let ours = case.attend(Isa::best(), &poisoned);
        for (index, row) in ours.chunks_exact(width).enumerate() {
            if index % case.rows != case.rows - 1 {
                prop_assert!(bits(row) == expected[index * width..][..width]);
            }
        }
    }
}

#[test]
fn blocks_out_of_the_window_are_not_read() {
    let layout = Layout::new(1, 64, Bits::Eight, Bits::Four);
    let case = Case {
        layout,
        group_heads: 2,
        start: 700,
        rows: 5,
        window: Some(130),
        softcap: None,
        seed: 3,
    };
    let mut blocks = case.blocks(Isa::best(), 0);
    let expected = bits(&case.attend(Isa::best(), &blocks));
    blocks[0].clear();
    blocks[1].clear();
    assert_eq!(bits(&case.attend(Isa::best(), &blocks)), expected);
}
