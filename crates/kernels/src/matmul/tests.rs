use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

/// How the weights of a test are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Affine {
        bits: usize,
        group: usize,
        scales: Stored,
    },
    /// Biases that centre the codes: `-2^(bits-1) · scale`.
    Centred {
        bits: usize,
        group: usize,
        scales: Stored,
    },
    TwoLevel {
        bits: usize,
    },
    TwoLevelHalves {
        bits: usize,
    },
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    F16,
    Bf16,
    F32,
}

/// Numbers that look random and are the same on each machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn factors<T>(&mut self, len: usize, one: impl Fn(&mut Random) -> T) -> Vec<T> {
        (0..len).map(|_| one(self)).collect()
    }

    fn codes(&mut self, len: usize, bits: usize) -> Vec<u8> {
        self.factors(len, |random| random.next() as u8 >> (8 - bits))
    }

    /// As a model's activations are: small ones and a few outliers.
    fn activations(&mut self, len: usize) -> Vec<f32> {
        let mut one = |_| match self.next() % 50 {
            0 => 100.0 * self.unit(),
            1 => 0.0,
            _ => self.unit() * self.unit(),
        };
        (0..len).map(&mut one).collect()
    }
}

impl Stored {
    fn random(self, random: &mut Random, scale: f32) -> f32 {
        let value = random.unit() * scale;
        match self {
            Stored::F16 => f16::from_f32(value).to_f32(),
            // Too small for f16 to hold exactly.
            Stored::Bf16 => bf16::from_f32(value * 1e-5).to_f32(),
            Stored::F32 => value,
        }
    }
}

/// The scales of a K-quant with minimums.
struct TwoLevel {
    d: Vec<f16>,
    dmin: Vec<f16>,
    scales: Vec<u8>,
    minimums: Vec<u8>,
}

impl TwoLevel {
    fn random(len: usize, random: &mut Random) -> TwoLevel {
        TwoLevel {
            d: random.factors(len / SUPERBLOCK, |r| f16::from_f32(r.unit() * 0.01)),
            dmin: random.factors(len / SUPERBLOCK, |r| f16::from_f32(r.unit() * 0.05)),
            scales: random.factors(len / 32, |r| r.next() as u8 & 63),
            minimums: random.factors(len / 32, |r| r.next() as u8 & 63),
        }
    }

    /// A scale and a bias in f32 for each 32 weights, as a reader of files would compute them.
    fn expanded(&self) -> (Vec<f32>, Vec<f32>) {
        let product = |first: &[f16], second: &[u8], sign: f32| {
            let of = |i: usize| sign * first[i / 8].to_f32() * f32::from(second[i]);
            (0..second.len()).map(of).collect()
        };
        (product(&self.d, &self.scales, 1.0), product(&self.dmin, &self.minimums, -1.0))
    }
}

/// What the weight of an index is by its definition.
fn value(scales: Scales, bits: usize, i: usize, code: u8) -> f32 {
    let code = f32::from(code);
    match scales {
        Scales::Plain { group, scales, biases } => scales[i / group] * code + biases[i / group],
        Scales::TwoLevel { d, dmin, scales, minimums } => {
            let scale = d[i / 256].to_f32() * f32::from(scales[i / 32]);
            scale * code - dmin[i / 256].to_f32() * f32::from(minimums[i / 32])
        }
        Scales::TwoLevelHalves { d, scales } => {
            let scale = d[i / 256].to_f32() * f32::from(scales[i / 16]);
            scale * (code - (1 << (bits - 1)) as f32)
        }
    }
}

/// Weights and, for the reference, what they are worth.
struct Matrix {
    weights: Weights,
    values: Vec<f32>,
}

impl Matrix {
    fn random(kind: Kind, rows: usize, columns: usize, random: &mut Random) -> Matrix {
        let len = rows * columns;
        match kind {
            Kind::F32 | Kind::F16 | Kind::Bf16 => Matrix::dense(kind, rows, columns, random),
            Kind::Affine { bits, group, scales } => {
                let codes = random.codes(len, bits);
                let biases = random.factors(len / group, |r| scales.random(r, 1.0));
                let scales = random.factors(len / group, |r| scales.random(r, 0.1));
                let scales = Scales::Plain { group, scales: &scales, biases: &biases };
                Matrix::affine((rows, columns), bits, &codes, scales)
            }
            Kind::Centred { bits, group, scales } => {
                let codes = random.codes(len, bits);
                let scales = random.factors(len / group, |r| scales.random(r, 0.1));
                let zero = -((1 << (bits - 1)) as f32);
                let biases: Vec<f32> = scales.iter().map(|scale| zero * scale).collect();
                let scales = Scales::Plain { group, scales: &scales, biases: &biases };
                Matrix::affine((rows, columns), bits, &codes, scales)
            }
            Kind::TwoLevel { bits } => {
                let codes = random.codes(len, bits);
                let TwoLevel { d, dmin, scales, minimums } = &TwoLevel::random(len, random);
                let scales = Scales::TwoLevel { d, dmin, scales, minimums };
                Matrix::affine((rows, columns), bits, &codes, scales)
            }
            Kind::TwoLevelHalves { bits } => {
                let codes = random.codes(len, bits);
                let d = random.factors(len / SUPERBLOCK, |r| f16::from_f32(r.unit() * 0.01));
                let scales = random.factors(len / 16, |r| r.next() as i8);
                let scales = Scales::TwoLevelHalves { d: &d, scales: &scales };
                Matrix::affine((rows, columns), bits, &codes, scales)
            }
        }
    }

    /// From a byte per code.
    fn affine(
        (rows, columns): (usize, usize),
        bits: usize,
        codes: &[u8],
        scales: Scales,
    ) -> Matrix {
        let values = codes.iter().enumerate().map(|(i, &code)| value(scales, bits, i, code));
        let values = values.collect();
        let codes = &stream(codes, bits);
        let weights = Weights::affine(Affine { rows, columns, bits, codes, scales });
        Matrix { weights: weights.expect("a right shape"), values }
    }

    fn dense(kind: Kind, rows: usize, columns: usize, random: &mut Random) -> Matrix {
        let mut values = random.factors(rows * columns, Random::unit);
        let weights = match kind {
            Kind::F16 => {
                let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
                values = halves.iter().map(|half| half.to_f32()).collect();
                Weights::dense_f16(rows, columns, &halves)
            }
            Kind::Bf16 => {
                let halves: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
                values = halves.iter().map(|half| half.to_f32()).collect();
                Weights::dense_bf16(rows, columns, &halves)
            }
            _ => Weights::dense_f32(rows, columns, &values),
        };
        Matrix { weights: weights.expect("a right shape"), values }
    }

    fn multiply(&self, isa: Isa, pool: &Pool, x: &[f32]) -> Vec<f32> {
        let columns = self.weights.columns();
        let rows = x.len() / columns;
        let mut activations = Activations::new();
        activations.prepare(isa, pool, self.weights.input(), x, (rows, columns));
        // Every element must be written.
        let mut out = vec![f32::NAN; rows * self.weights.rows()];
        multiply(isa, pool, &self.weights, &activations, &mut out);
        out
    }

    /// Asserts that `out` is the product up to `tolerance` times the norms of the two rows.
    fn assert_near(&self, x: &[f32], out: &[f32], tolerance: f64) {
        let (rows, columns) = (self.weights.rows(), self.weights.columns());
        for (x, out) in x.chunks(columns).zip(out.chunks(rows)) {
            for (w, out) in self.values.chunks(columns).zip(out) {
                let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let error = (f64::from(*out) - exact).abs();
                assert!(error <= tolerance * norm(w) * norm(x), "{out} instead of {exact}");
            }
        }
    }
}

/// Codes as a little-endian stream of bits, the way files have them.
fn stream(codes: &[u8], bits: usize) -> Vec<u8> {
    let mut bytes = vec![0; codes.len() * bits / 8];
    for (i, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let place = i * bits + bit;
            bytes[place / 8] |= (code >> bit & 1) << (place % 8);
        }
    }
    bytes
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

pub(crate) fn bits_of(values: &[f32]) -> Vec<u32> {
    // The sign and payload of a NaN may differ.
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

fn kinds() -> impl Strategy<Value = Kind> {
    let scales =
        prop_oneof![Just(Stored::F16), Just(Stored::F16), Just(Stored::Bf16), Just(Stored::F32)];
    let bits = || prop_oneof![Just(4_usize), Just(5), Just(6), Just(8)];
    let group = prop_oneof![Just(32_usize), Just(64), Just(128)];
    let plain =
        (bits(), group, scales, any::<bool>()).prop_map(|(bits, group, scales, centred)| {
            match centred {
                true => Kind::Centred { bits, group, scales },
                false => Kind::Affine { bits, group, scales },
            }
        });
    let two_level = bits().prop_map(|bits| Kind::TwoLevel { bits });
    let halves = bits().prop_map(|bits| Kind::TwoLevelHalves { bits });
    let dense = prop_oneof![Just(Kind::F32), Just(Kind::F16), Just(Kind::Bf16)];
    prop_oneof![6 => plain, 2 => two_level, 2 => halves, 3 => dense]
}

fn all_kinds() -> Vec<Kind> {
    let mut all = vec![Kind::F32, Kind::F16, Kind::Bf16];
    for bits in [4, 5, 6, 8] {
        for group in [32, 64, 128] {
            for scales in [Stored::F16, Stored::Bf16, Stored::F32] {
                all.push(Kind::Affine { bits, group, scales });
            }
            all.push(Kind::Centred { bits, group, scales: Stored::F16 });
        }
        all.push(Kind::TwoLevel { bits });
        all.push(Kind::TwoLevelHalves { bits });
    }
    all
}

/// A number of columns that this kind can have.
fn columns(kind: Kind, groups: usize, odd: usize) -> usize {
    match kind {
        Kind::Affine { group, .. } | Kind::Centred { group, .. } => groups * group,
        Kind::TwoLevel { .. } | Kind::TwoLevelHalves { .. } => groups.div_ceil(2) * SUPERBLOCK,
        Kind::F32 | Kind::F16 | Kind::Bf16 => groups * 32 + odd,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 300 }))]

    #[test]
    fn every_instruction_set_gives_the_same_bits(
        kind in kinds(),
        (rows, groups, odd) in (1..70_usize, 1..7_usize, 0..32_usize),
        m in 1..27_usize,
        seed: u64,
    ) {
        let random = &mut Random(seed);
        let columns = columns(kind, groups, odd);
        let matrix = Matrix::random(kind, rows, columns, random);
        let x = random.activations(m * columns);
        let pool = Pool::new(1).unwrap();
        let expected = matrix.multiply(Isa::SCALAR, &pool, &x);
        for &isa in Isa::available() {
            let out = matrix.multiply(isa, &pool, &x);
            prop_assert_eq!(bits_of(&expected), bits_of(&out), "{:?}", isa);
        }
    }

    #[test]
    fn a_row_alone_gives_what_it_gives_in_any_batch(
        kind in kinds(),
        (rows, groups, odd) in (1..140_usize, 1..5_usize, 0..32_usize),
        (m, threads) in (1..41_usize, 1..4_usize),
        isa in proptest::sample::select(Isa::available()),
        seed: u64,
    ) {
        let random = &mut Random(seed);
        let columns = columns(kind, groups, odd);
        let matrix = Matrix::random(kind, rows, columns, random);
        let x = random.activations(m * columns);
        let batch = matrix.multiply(isa, &Pool::new(threads).unwrap(), &x);
        let alone = Pool::new(1).unwrap();
        for (x, out) in x.chunks(columns).zip(batch.chunks(rows)) {
            prop_assert_eq!(bits_of(&matrix.multiply(isa, &alone, x)), bits_of(out));
        }
    }

    #[test]
    fn two_levels_of_scales_give_the_bits_that_their_products_in_f32_give(
        bits in prop_oneof![Just(4_usize), Just(5)],
        (rows, m) in (1..40_usize, 1..10_usize),
        seed: u64,
    ) {
        let random = &mut Random(seed);
        let (columns, pool) = (512, Pool::new(1).unwrap());
        let codes = random.codes(rows * columns, bits);
        let two_level = TwoLevel::random(rows * columns, random);
        let (scales, biases) = two_level.expanded();
        let plain = Scales::Plain { group: 32, scales: &scales, biases: &biases };
        let plain = Matrix::affine((rows, columns), bits, &codes, plain);
        let TwoLevel { d, dmin, scales, minimums } = &two_level;
        let scales = Scales::TwoLevel { d, dmin, scales, minimums };
        let two_level = Matrix::affine((rows, columns), bits, &codes, scales);
        let x = random.activations(m * columns);
        for &isa in Isa::available() {
            let expected = bits_of(&plain.multiply(isa, &pool, &x));
            prop_assert_eq!(&expected, &bits_of(&two_level.multiply(isa, &pool, &x)), "{:?}", isa);
        }
    }

    #[test]
    fn biases_that_are_not_stored_give_the_bits_of_those_that_are(
        bits in prop_oneof![Just(4_usize), Just(8)],
        (rows, m) in (1..40_usize, 1..10_usize),
        seed: u64,
    ) {
        let random = &mut Random(seed);
        let kind = Kind::Centred { bits, group: 32, scales: Stored::F16 };
        let (columns, pool) = (96, Pool::new(1).unwrap());
        let seed = random.next();
        let centred = Matrix::random(kind, rows, columns, &mut Random(seed));
        // The same and a row whose biases are their own, so that all are stored.
        let random = &mut Random(seed);
        let codes = random.codes(rows * columns, bits);
        let mut scales = random.factors(rows * 3, |r| Stored::F16.random(r, 0.1));
        let zero = -((1 << (bits - 1)) as f32);
        let mut biases: Vec<f32> = scales.iter().map(|scale| zero * scale).collect();
        scales.extend([1.0; 3]);
        biases.extend([1.0; 3]);
        let codes = [codes, vec![0; columns]].concat();
        let scales = Scales::Plain { group: 32, scales: &scales, biases: &biases };
        let stored = Matrix::affine((rows + 1, columns), bits, &codes, scales);
        let x = random.activations(m * columns);
        for &isa in Isa::available() {
            let out = centred.multiply(isa, &pool, &x);
            let expected = stored.multiply(isa, &pool, &x);
            for (out, expected) in out.chunks(rows).zip(expected.chunks(rows + 1)) {
                prop_assert_eq!(bits_of(out), bits_of(&expected[..rows]), "{:?}", isa);
            }
        }
    }

    #[test]
    fn strange_activations_give_the_same_bits_too(kind in kinds(), m in 1..10_usize, seed: u64) {
        let random = &mut Random(seed);
        let columns = columns(kind, 3, 0);
        let matrix = Matrix::random(kind, 17, columns, random);
        let strange = |bits: u64| match bits % 8 {
            // Any bits at all: infinities, NaN, subnormals, the greatest and the smallest.
            0 => f32::from_bits((bits >> 32) as u32),
            1 => f32::MAX,
            2 => -1e-40,
            3 => -0.0,
            _ => (bits >> 40) as f32,
        };
        let x: Vec<f32> = (0..m * columns)
            .map(|i| if i / 32 % 2 == 0 { random.unit() } else { strange(random.next()) })
            .collect();
        let pool = Pool::new(1).unwrap();
        let expected = matrix.multiply(Isa::SCALAR, &pool, &x);
        for &isa in Isa::available() {
            let out = matrix.multiply(isa, &pool, &x);
            prop_assert_eq!(bits_of(&expected), bits_of(&out), "{:?}", isa);
        }
    }
}

#[test]
fn a_row_alone_gives_what_it_gives_in_a_batch_on_any_number_of_threads() {
    let pools = [1, 2, 3].map(|threads| Pool::new(threads).unwrap());
    let isa = Isa::best();
    for kind in all_kinds() {
        let random = &mut Random(7);
        let (m, rows, columns) = (37, 131, columns(kind, 3, 0));
        let matrix = Matrix::random(kind, rows, columns, random);
        let x = random.activations(m * columns);
        let alone: Vec<f32> =
            x.chunks(columns).flat_map(|x| matrix.multiply(isa, &pools[0], x)).collect();
        for pool in &pools {
            let batch = matrix.multiply(isa, pool, &x);
            assert_eq!(bits_of(&batch), bits_of(&alone), "{kind:?}, {}", pool.threads());
        }
    }
}

#[test]
fn hundreds_of_rows_are_cut_into_bands_without_a_trace() {
    let random = &mut Random(8);
    let (m, rows, columns) = (300, 48, 1536);
    let kind = Kind::Affine { bits: 4, group: 32, scales: Stored::F16 };
    let matrix = Matrix::random(kind, rows, columns, random);
    let x = random.activations(m * columns);
    let pool = Pool::new(2).unwrap();
    let out = matrix.multiply(Isa::best(), &pool, &x);
    for row in [0, 1, 151, 152, 299] {
        let alone = matrix.multiply(Isa::best(), &pool, &x[row * columns..][..columns]);
        assert_eq!(bits_of(&alone), bits_of(&out[row * rows..][..rows]));
    }
    matrix.assert_near(&x, &out, 1e-4);
}

#[test]
fn products_are_near_the_exact_ones() {
    let pool = Pool::new(2).unwrap();
    for kind in all_kinds() {
        for groups in [1, 3, 12] {
            let columns = columns(kind, groups, 0);
            let random = &mut Random(columns as u64);
            let matrix = Matrix::random(kind, 33, columns, random);
            let x = random.activations(11 * columns);
            matrix.assert_near(&x, &matrix.multiply(Isa::best(), &pool, &x), 1e-4);
        }
    }
}

#[test]
fn zero_huge_and_tiny_rows_come_out_right() {
    let kind = Kind::Affine { bits: 4, group: 32, scales: Stored::F16 };
    let random = &mut Random(9);
    let matrix = Matrix::random(kind, 20, 64, random);
    let pool = Pool::new(1).unwrap();
    for &isa in Isa::available() {
        for scale in [0.0, 1e30, 1e-30] {
            let x: Vec<f32> = (0..64).map(|_| scale * random.unit()).collect();
            matrix.assert_near(&x, &matrix.multiply(isa, &pool, &x), 1e-4);
        }
        // Too small to be told from zero.
        let zeros = matrix.multiply(isa, &pool, &[1e-40; 64]);
        assert_eq!(zeros, [0.0; 20]);
        // Not a number, and only in the row that has it.
        let mut x = vec![1.0; 128];
        x[100] = f32::INFINITY;
        let out = matrix.multiply(isa, &pool, &x);
        assert!(out[..20].iter().all(|y| y.is_finite()));
        assert!(out[20..].iter().all(|y| y.is_nan()));
    }
}

// The integers made of NaN overflowed their sum, which is a panic in a build with such checks. Only
// some seeds of the tests above had enough of them in one chunk.
#[test]
fn a_chunk_of_nothing_but_nan_is_nan() {
    let kind = Kind::Affine { bits: 8, group: 32, scales: Stored::F32 };
    let matrix = Matrix::random(kind, 5, 64, &mut Random(12));
    for &isa in Isa::available() {
        for x in [f32::NAN, -f32::NAN, f32::INFINITY, f32::from_bits(0xffff_ffff)] {
            let out = matrix.multiply(isa, &Pool::new(1).unwrap(), &[x; 64]);
            assert!(out.iter().all(|y| y.is_nan()));
        }
    }
}

#[test]
fn every_row_can_be_read_back() {
    for kind in all_kinds() {
        let columns = columns(kind, 3, 5);
        let matrix = Matrix::random(kind, 35, columns, &mut Random(10));
        let mut row = vec![0.0; columns];
        for (index, values) in matrix.values.chunks(columns).enumerate() {
            matrix.weights.row(index, &mut row);
            assert_eq!(row, values, "{kind:?}");
        }
    }
}

#[test]
fn packed_weights_are_no_larger_than_their_file() {
    let bytes = |kind| {
        let matrix = Matrix::random(kind, 64, 1024, &mut Random(11));
        matrix.weights.bytes() as f64 / (64.0 * 1024.0)
    };
    let affine = |bits, group, scales| bytes(Kind::Affine { bits, group, scales });
    let centred = |bits| bytes(Kind::Centred { bits, group: 32, scales: Stored::F16 });
    // As Q4_1, Q5_1, Q4_0, Q8_0 and MLX's 4 bits have it.
    assert_eq!(affine(4, 32, Stored::F16), 0.625);
    assert_eq!(affine(5, 32, Stored::F16), 0.75);
    assert_eq!(centred(4), 18.0 / 32.0);
    assert_eq!(centred(8), 34.0 / 32.0);
    assert_eq!(affine(4, 64, Stored::Bf16), 0.5625);
    // Q4_K, Q5_K and Q6_K have 144, 176 and 210 bytes; two bits per scale and minimum are empty.
    assert_eq!(bytes(Kind::TwoLevel { bits: 4 }), 148.0 / 256.0);
    assert_eq!(bytes(Kind::TwoLevel { bits: 5 }), 180.0 / 256.0);
    assert_eq!(bytes(Kind::TwoLevelHalves { bits: 6 }), 212.0 / 256.0);
}

#[test]
fn wrong_shapes_are_told() {
    let plain = |group, biases| Scales::Plain { group, scales: &[1.0; 4], biases };
    let good =
        Affine { rows: 2, columns: 64, bits: 4, codes: &[0; 64], scales: plain(32, &[0.0; 4]) };
    let error = |affine| Weights::affine(affine).err().map(|error| error.to_string());
    assert_eq!(error(good), None);
    let d = &[f16::ONE; 2];
    let minimums = &[0; 15];
    let expected = [
        (Affine { bits: 3, ..good }, "weights of 3 bits (there are kernels for 4, 5, 6 and 8)"),
        (
            Affine { scales: plain(16, &[0.0; 4]), ..good },
            "weights in groups of 16 (there are kernels for 32, 64 and 128)",
        ),
        (Affine { columns: 48, ..good }, "48 columns are not a multiple of the group size 32"),
        (
            Affine { codes: &[0; 63], ..good },
            "codes of a 2 by 64 matrix have 63 elements instead of 64",
        ),
        (
            Affine { scales: plain(32, &[0.0; 5]), ..good },
            "biases of a 2 by 64 matrix have 5 elements instead of 4",
        ),
        (
            Affine { scales: Scales::TwoLevelHalves { d, scales: &[0; 32] }, ..good },
            "64 columns are not a multiple of the group size 256",
        ),
        (
            Affine {
                columns: 256,
                codes: &[0; 256],
                scales: Scales::TwoLevel { d, dmin: d, scales: &[0; 16], minimums },
                ..good
            },
            "minimums of a 2 by 256 matrix have 15 elements instead of 16",
        ),
    ];
    for (affine, message) in expected {
        assert_eq!(error(affine).as_deref(), Some(message));
    }
    assert!(Weights::dense_f32(2, 3, &[0.0; 5]).is_err());
}

#[test]
fn empty_products_are_empty() {
    let pool = Pool::new(2).unwrap();
    let none = Weights::dense_f32(0, 4, &[]).expect("a right shape");
    let mut x = Activations::new();
    x.prepare(Isa::best(), &pool, Input::Floats, &[1.0; 8], (2, 4));
    multiply(Isa::best(), &pool, &none, &x, &mut []);
    let some = Weights::dense_f32(1, 4, &[1.0; 4]).expect("a right shape");
    x.prepare(Isa::best(), &pool, Input::Floats, &[], (0, 4));
    multiply(Isa::best(), &pool, &some, &x, &mut []);
    // A sum of nothing is zero.
    let narrow = Weights::dense_f32(3, 0, &[]).expect("a right shape");
    x.prepare(Isa::best(), &pool, Input::Floats, &[], (2, 0));
    let mut out = [f32::NAN; 6];
    multiply(Isa::best(), &pool, &narrow, &x, &mut out);
    assert_eq!(out, [0.0; 6]);
}
