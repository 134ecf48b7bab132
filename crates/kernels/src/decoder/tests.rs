//! A layer over a batch gives what it gives each token alone, to the bit.

use half::{bf16, f16};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::kv::{self, BLOCK_TOKENS, Bits};
use crate::matmul::tests::{Random, bits_of};
use crate::matmul::{Affine, Scales};

/// The layers of the model, of which one is tested: it must leave the others' parts alone.
const LAYERS: usize = 2;
/// What the cache holds where nothing was written.
const UNTOUCHED: u8 = 0xa5;

#[derive(Clone, Debug)]
struct Case {
    shape: Shape,
    activation: Activation,
    window: Option<usize>,
    softcap: Option<f32>,
    /// `(start, tokens)` of each.
    sequences: Vec<(usize, usize)>,
    /// Sequences that begin after the first block share it.
    shares_prefix: bool,
    part: usize,
    threads: usize,
    /// Of the weights, of which of them are quantised or have biases, of norms and inputs.
    seed: u64,
}

/// The KV cache and where each sequence's blocks begin in it.
#[derive(Clone)]
struct Blocks {
    bytes: Vec<u8>,
    starts: Vec<Vec<usize>>,
}

impl Case {
    fn block_bytes(&self) -> usize {
        LAYERS * self.shape.layout.bytes()
    }

    fn part(&self) -> usize {
        self.part * self.shape.layout.bytes()
    }

    fn tokens(&self) -> usize {
        self.sequences.iter().map(|&(_, tokens)| tokens).sum()
    }

    fn layer(&self, random: &mut Random) -> Layer {
        let Shape { hidden, intermediate, .. } = self.shape;
        let (query, kv) = (self.shape.query_width(), self.shape.kv_width());
        let head_dim = self.shape.head_dim();
        Layer {
            attention_norm: norm(hidden, random),
            query: linear(query, hidden, random),
            key: linear(kv, hidden, random),
            value: linear(kv, hidden, random),
            query_norm: sometimes(random, |random| norm(head_dim, random)),
            key_norm: sometimes(random, |random| norm(head_dim, random)),
            output: linear(hidden, query, random),
            attention_output_norm: sometimes(random, |random| norm(hidden, random)),
            mlp_norm: norm(hidden, random),
            gate: linear(intermediate, hidden, random),
            up: linear(intermediate, hidden, random),
            down: linear(hidden, intermediate, random),
            mlp_output_norm: sometimes(random, |random| norm(hidden, random)),
            activation: self.activation,
            angles: 0,
            window: self.window,
            softcap: self.softcap,
        }
    }

    /// Blocks in any order, with the keys and values of the tokens before the step.
    fn blocks(&self, random: &mut Random) -> Blocks {
        let (layout, bytes) = (self.shape.layout, self.block_bytes());
        let counts = self.sequences.iter().map(|(start, n)| (start + n).div_ceil(BLOCK_TOKENS));
        let mut free: Vec<usize> = (0..counts.clone().sum()).map(|index| index * bytes).collect();
        let cache = vec![UNTOUCHED; free.len() * bytes];
        let mut take = || free.swap_remove(random.next() as usize % free.len());
        let mut starts: Vec<Vec<usize>> =
            counts.map(|count| (0..count).map(|_| take()).collect()).collect();
        if self.shares_prefix {
            let shared = self.sequences.iter().position(|&(start, _)| start >= BLOCK_TOKENS);
            let shared = shared.map(|index| starts[index][0]);
            for (starts, (start, _)) in starts.iter_mut().zip(&self.sequences) {
                if *start >= BLOCK_TOKENS {
                    starts[0] = shared.expect("there is one that begins so late");
                }
            }
        }
        let mut blocks = Blocks { bytes: cache, starts };
        for ((start, _), starts) in self.sequences.iter().zip(&blocks.starts) {
            for token in 0..*start {
                let keys = random.factors(self.shape.kv_width(), Random::unit);
                let values = random.factors(self.shape.kv_width(), Random::unit);
                let part = starts[token / BLOCK_TOKENS] + self.part();
                let block = &mut blocks.bytes[part..part + layout.bytes()];
                kv::append(Isa::best(), layout, block, token % BLOCK_TOKENS, &keys, &values);
            }
        }
        blocks
    }

    fn step(&self, sequences: Vec<Sequence>, threads: usize) -> Step {
        let half = self.shape.head_dim() / 2;
        let frequencies: Vec<f32> =
            (0..half).map(|i| 1e4_f32.powf(i as f32 / half as f32)).collect();
        let positions = sequences.iter().flat_map(|s| s.start..s.start + s.tokens);
        let tokens = positions.clone().count();
        let (mut cos, mut sin) = (vec![0.0; tokens * half], vec![0.0; tokens * half]);
        let rows = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
        for (position, (cos, sin)) in positions.zip(rows) {
            rows::rope_angles(position as f64, &frequencies, cos, sin);
        }
        let angles = vec![Angles { cos, sin }];
        Step::new(sequences, angles, self.block_bytes(), &self.shape, threads)
    }

    /// All sequences in one step.
    fn batch(&self, isa: Isa, layer: &Layer, blocks: &mut Blocks, x: &mut [f32]) {
        let pool = &Pool::new(self.threads).unwrap();
        let sequence = |(&(start, tokens), blocks): (&(usize, usize), &Vec<usize>)| {
            let blocks = blocks.clone();
            Sequence { start, tokens, blocks }
        };
        let sequences = self.sequences.iter().zip(&blocks.starts).map(sequence).collect();
        let step = &self.step(sequences, self.threads);
        let work = Work { isa, pool, shape: &self.shape, step };
        let mut buffers = Buffers::default();
        let before = x.to_vec();
        let mut run = |x: &mut [f32]| {
            let cache = Cache { blocks: &mut blocks.bytes, part: self.part() };
            layer.run(&work, cache, &mut buffers, x);
        };
        // Once more with what the first time left in the buffers.
        run(x);
        x.copy_from_slice(&before);
        run(x);
    }

    /// Each token in a step of its own: the definition.
    fn one_by_one(&self, layer: &Layer, blocks: &mut Blocks, x: &mut [f32]) {
        let pool = &Pool::new(1).unwrap();
        let mut buffers = Buffers::default();
        let mut rows = x.chunks_exact_mut(self.shape.hidden);
        for ((start, tokens), blocks_of) in self.sequences.iter().zip(&blocks.starts) {
            for start in *start..start + tokens {
                let sequence = Sequence { start, tokens: 1, blocks: blocks_of.clone() };
                let step = &self.step(vec![sequence], 1);
                let work = Work { isa: Isa::SCALAR, pool, shape: &self.shape, step };
                let cache = Cache { blocks: &mut blocks.bytes, part: self.part() };
                layer.run(&work, cache, &mut buffers, rows.next().expect("a row per token"));
            }
        }
    }
}

fn sometimes<T>(random: &mut Random, one: impl Fn(&mut Random) -> T) -> Option<T> {
    random.next().is_multiple_of(2).then(|| one(random))
}

fn norm(len: usize, random: &mut Random) -> Norm {
    Norm { weight: random.factors(len, |random| 1.0 + 0.3 * random.unit()), epsilon: 1e-5 }
}

/// Quantised or dense, with a bias or without; products are about as large as what goes in.
fn linear(rows: usize, columns: usize, random: &mut Random) -> Linear {
    let size = 2.0 / (columns as f32).sqrt();
    let weights = match random.next() % 6 {
        0..3 if columns.is_multiple_of(32) => {
            let bits = [4, 5, 6, 8][random.next() as usize % 4];
            let codes = random.factors(rows * columns * bits / 8, |random| random.next() as u8);
            let scale = 2.0 * size / (1 << bits) as f32;
            let factors = |random: &mut Random, size: f32| {
                let one = |random: &mut Random| {
                    f16::from_f32(size * (1.0 + 0.2 * random.unit())).to_f32()
                };
                random.factors(rows * columns / 32, one)
            };
            let (scales, biases) = (factors(random, scale), factors(random, -size));
            let scales = Scales::Plain { group: 32, scales: &scales, biases: &biases };
            Weights::affine(Affine { rows, columns, bits, codes: &codes, scales })
        }
        kind => {
            let values = random.factors(rows * columns, |random| size * random.unit());
            let halves = || values.iter().copied();
            match kind % 3 {
                0 => Weights::dense_f32(rows, columns, &values),
                1 => {
                    let values: Vec<f16> = halves().map(f16::from_f32).collect();
                    Weights::dense_f16(rows, columns, &values)
                }
                _ => {
                    let values: Vec<bf16> = halves().map(bf16::from_f32).collect();
                    Weights::dense_bf16(rows, columns, &values)
                }
            }
        }
    };
    let bias = sometimes(random, |random| random.factors(rows, Random::unit));
    Linear { weights: weights.expect("a right shape"), bias }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let bits = || select(Bits::ALL.to_vec());
    let layouts = (1..4_usize, select(vec![32, 64]), bits(), bits())
        .prop_map(|(heads, head_dim, keys, values)| Layout::new(heads, head_dim, keys, values));
    let intermediate = prop_oneof![select(vec![32, 64, 128]), 1..130_usize];
    (select(vec![32, 64, 96]), intermediate, 1..4_usize, layouts, any::<[bool; 2]>()).prop_map(
        |(hidden, intermediate, group_heads, layout, [rotates_keys, rotates_values])| Shape {
            hidden,
            intermediate,
            group_heads,
            layout,
            scale: 1.0 / (layout.head_dim() as f32).sqrt(),
            rotates_keys,
            rotates_values,
        },
    )
}

/// Single tokens far from the start of their sequence, whose blocks become tasks of their own, and
/// longer pieces around the end of a block.
fn sequences() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let start = prop_oneof![0..40_usize, 230..270_usize, 0..900_usize];
    let tokens = prop_oneof![4 => Just(1_usize), 3 => 1..45_usize, 1 => Just(0)];
    proptest::collection::vec((start, tokens), 1..5)
}

fn cases() -> impl Strategy<Value = Case> {
    let activation = select(vec![Activation::Silu, Activation::GeluTanh]);
    let window = proptest::option::of(1..600_usize);
    let softcap = proptest::option::of(1.0..20.0_f32);
    let layer = (shapes(), activation, window, softcap);
    let rest = (sequences(), any::<bool>(), 0..LAYERS, 1..4_usize, any::<u64>());
    (layer, rest).prop_map(|(layer, rest)| {
        let (shape, activation, window, softcap) = layer;
        let (sequences, shares_prefix, part, threads, seed) = rest;
        Case { shape, activation, window, softcap, sequences, shares_prefix, part, threads, seed }
    })
}

/// `SEMANTIC_TEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = std::env::var("SEMANTIC_TEST_CASES").ok().and_then(|count| count.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(if cfg!(miri) { 1 } else { 40 }))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_batch_gives_what_each_token_gives_alone(case in cases()) {
        let random = &mut Random(case.seed);
        let layer = case.layer(random);
        let before = case.blocks(random);
        let x = random.factors(case.tokens() * case.shape.hidden, Random::unit);
        let (mut expected, mut expected_blocks) = (x.clone(), before.clone());
        case.one_by_one(&layer, &mut expected_blocks, &mut expected);
        prop_assert!(expected.iter().all(|x| x.is_finite()));
        for &isa in Isa::available() {
            let (mut out, mut blocks) = (x.clone(), before.clone());
            case.batch(isa, &layer, &mut blocks, &mut out);
            prop_assert!(bits_of(&out) == bits_of(&expected), "{isa:?}: x differs");
            prop_assert!(blocks.bytes == expected_blocks.bytes, "{isa:?}: the KV differs");
        }
    }

    #[test]
    fn the_head_gives_each_row_the_logits_that_it_gives_it_alone(
        (hidden, vocabulary) in (select(vec![32_usize, 64, 96]), 1..300_usize),
        (rows, threads) in (1..20_usize, 1..4_usize),
        wanted in proptest::collection::vec(any::<prop::sample::Index>(), 0..30),
        seed: u64,
    ) {
        let random = &mut Random(seed);
        let (norm, linear) = (&norm(hidden, random), &linear(vocabulary, hidden, random));
        let x = random.factors(rows * hidden, Random::unit);
        let wanted: Vec<usize> = wanted.iter().map(|index| index.index(rows)).collect();
        let mut buffers = Buffers::default();
        let mut expected = vec![f32::NAN; wanted.len() * vocabulary];
        for (row, out) in wanted.iter().zip(expected.chunks_exact_mut(vocabulary)) {
            let head = Head { isa: Isa::SCALAR, pool: &Pool::new(1).unwrap(), norm, linear };
            head.run(&mut buffers, &x[row * hidden..][..hidden], &[0], out);
        }
        let pool = &Pool::new(threads).unwrap();
        for &isa in Isa::available() {
            let mut out = vec![f32::NAN; expected.len()];
            Head { isa, pool, norm, linear }.run(&mut buffers, &x, &wanted, &mut out);
            prop_assert!(bits_of(&out) == bits_of(&expected), "{isa:?}");
        }
    }
}

/// A case of one sequence, whose layer and step are right but for what a test changes.
fn small() -> Case {
    let shape = Shape {
        hidden: 32,
        intermediate: 32,
        group_heads: 1,
        layout: Layout::new(1, 32, Bits::Eight, Bits::Eight),
        scale: 1.0,
        rotates_keys: false,
        rotates_values: false,
    };
    Case {
        shape,
        activation: Activation::Silu,
        window: None,
        softcap: None,
        sequences: vec![(255, 2)],
        shares_prefix: false,
        part: 0,
        threads: 1,
        seed: 1,
    }
}

/// Runs the small case's layer with these blocks for its sequence and this part; the cache has two.
fn run_small(starts: [usize; 2], part: usize) {
    let case = small();
    let layer = case.layer(&mut Random(case.seed));
    let (start, tokens) = case.sequences[0];
    let step = &case.step(vec![Sequence { start, tokens, blocks: starts.to_vec() }], 1);
    let pool = &Pool::new(1).unwrap();
    let work = Work { isa: Isa::best(), pool, shape: &case.shape, step };
    let mut bytes = vec![0; 2 * case.block_bytes()];
    let cache = Cache { blocks: &mut bytes, part };
    layer.run(&work, cache, &mut Buffers::default(), &mut [0.5; 64]);
}

#[test]
fn blocks_that_are_not_in_the_cache_are_refused() {
    let (block, part) = (small().block_bytes(), small().shape.layout.bytes());
    let refused = |starts, part| std::panic::catch_unwind(|| run_small(starts, part)).is_err();
    assert!(!refused([0, block], 0));
    assert!(!refused([block, 0], part));
    // These wrap around to the start of the cache.
    for bad in [usize::MAX, usize::MAX - block + 1, usize::MAX - part + 1] {
        assert!(refused([0, bad], 0), "{bad}");
        assert!(refused([bad, 0], 0), "{bad}");
        assert!(refused([0, block], bad), "{bad}");
    }
    assert!(refused([0, block + 1], 0));
    assert!(refused([0, block - 1], 0));
    assert!(refused([0, 0], 0));
    assert!(refused([0, block], part + 1));
    let start = |start| Sequence { start, tokens: 2, blocks: vec![0, block] };
    for bad in [511, usize::MAX - 1, usize::MAX] {
        assert!(std::panic::catch_unwind(|| small().step(vec![start(bad)], 1)).is_err(), "{bad}");
    }
}
