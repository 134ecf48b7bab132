//! Weights, packed once at load into the order in which the kernels read them (`tile.rs`).

use half::{bf16, f16};

use super::activations::Input;
use super::tile::{Bias, Bits, Float, Header, Layout, SECOND_LEVEL, SECOND_LEVEL_BYTES};
use super::tile::{Tile, TileFormat};
use super::{CHUNK, LANES};
use crate::memory::{AlignedBytes, OutOfMemory};

/// A matrix `[rows, columns]`, packed.
pub struct Weights {
    rows: usize,
    columns: usize,
    format: TileFormat,
    tile_bytes: usize,
    bytes: AlignedBytes,
}

/// Affine-quantised weights as files have them: `value = scale · code + bias`.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    pub rows: usize,
    pub columns: usize,
    /// 4, 5, 6 or 8.
    pub bits: usize,
    /// `[rows][columns · bits / 8]`: per row a stream of codes, low bits first.
    pub codes: &'a [u8],
    pub scales: Scales<'a>,
}

/// What the codes are worth.
#[derive(Clone, Copy)]
pub enum Scales<'a> {
    /// A scale and a bias for 32, 64 or 128 columns: `[rows, columns / group]` of each.
    Plain { group: usize, scales: &'a [f32], biases: &'a [f32] },
    /// As GGUF's Q4_K and Q5_K have them: `d` and `dmin` for [`SUPERBLOCK`] columns, a scale and a
    /// minimum for 32. The scale is `d · scale`, the bias `-dmin · minimum`, both rounded to f32.
    TwoLevel { d: &'a [f16], dmin: &'a [f16], scales: &'a [u8], minimums: &'a [u8] },
    /// As GGUF's Q6_K has them: `d` for [`SUPERBLOCK`] columns, a scale for 16. The scale is
    /// `d · scale`, and the codes are less by a half of their range: `scale · (code - 2^(bits-1))`.
    TwoLevelHalves { d: &'a [f16], scales: &'a [i8] },
}

/// Columns that share the first level of two.
pub const SUPERBLOCK: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("weights of {0} bits (there are kernels for 4, 5, 6 and 8)")]
    Bits(usize),
    #[error("weights in groups of {0} (there are kernels for 32, 64 and 128)")]
    Group(usize),
    #[error("{columns} columns are not a multiple of the group size {group}")]
    Columns { columns: usize, group: usize },
    #[error("{name} of a {rows} by {columns} matrix have {len} elements instead of {expected}")]
    Length { name: &'static str, rows: usize, columns: usize, len: usize, expected: usize },
    #[error("a {rows} by {columns} matrix is too large")]
    TooLarge { rows: usize, columns: usize },
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl Weights {
    pub fn affine(affine: Affine) -> Result<Weights, Error> {
        let layout = affine.layout()?;
        affine.check(layout)?;
        let tile_bytes = affine.columns / layout.columns() * layout.group_bytes();
        let format = TileFormat::Affine(layout);
        let mut weights = Weights::zeroed(affine.rows, affine.columns, format, tile_bytes)?;
        for row in 0..affine.rows {
            weights.pack_affine_row(layout, &affine, row);
        }
        Ok(weights)
    }

    /// `values[rows, columns]`
    pub fn dense_f32(rows: usize, columns: usize, values: &[f32]) -> Result<Weights, Error> {
        Weights::dense(rows, columns, values, Float::F32, |value| value.to_le_bytes())
    }

    /// `values[rows, columns]`
    pub fn dense_f16(rows: usize, columns: usize, values: &[f16]) -> Result<Weights, Error> {
        Weights::dense(rows, columns, values, Float::F16, |value| value.to_le_bytes())
    }

    /// `values[rows, columns]`
    pub fn dense_bf16(rows: usize, columns: usize, values: &[bf16]) -> Result<Weights, Error> {
        Weights::dense(rows, columns, values, Float::Bf16, |value| value.to_le_bytes())
    }

    fn dense<T: Copy, const N: usize>(
        rows: usize,
        columns: usize,
        values: &[T],
        float: Float,
        to_bytes: impl Fn(T) -> [u8; N],
    ) -> Result<Weights, Error> {
        assert!(N == float.bytes());
        check_length("values", (rows, columns), values.len(), rows.checked_mul(columns))?;
        let tile_bytes = columns.next_multiple_of(CHUNK) * LANES * N;
        let mut weights = Weights::zeroed(rows, columns, TileFormat::Dense(float), tile_bytes)?;
        for row in 0..rows {
            let tile = weights.tile_mut(row / LANES);
            let (tile, _) = tile.as_chunks_mut::<N>();
            let values = &values[row * columns..][..columns];
            for (column, value) in values.iter().enumerate() {
                tile[column * LANES + row % LANES] = to_bytes(*value);
            }
        }
        Ok(weights)
    }

    fn zeroed(
        rows: usize,
        columns: usize,
        format: TileFormat,
        tile_bytes: usize,
    ) -> Result<Weights, Error> {
        let len = rows.div_ceil(LANES).checked_mul(tile_bytes);
        let len = len.filter(|&len| isize::try_from(len).is_ok());
        let bytes = AlignedBytes::zeroed(len.ok_or(Error::TooLarge { rows, columns })?)?;
        Ok(Weights { rows, columns, format, tile_bytes, bytes })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How its activations are to be prepared.
    pub fn input(&self) -> Input {
        match self.format {
            TileFormat::Affine(_) => Input::Quantised,
            TileFormat::Dense(_) => Input::Floats,
        }
    }

    /// What it takes in memory, and what a product with one row reads.
    pub fn bytes(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// One row's values. Of quantised weights with biases: the product rounded, then the sum, as
    /// MLX's `dequantize` does it.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.rows);
        assert!(out.len() == self.columns);
        let (tile, lane) = (self.tile(index / LANES), index % LANES);
        match tile.format {
            TileFormat::Affine(layout) => {
                let groups = tile.bytes.chunks_exact(layout.group_bytes());
                let outs = out.chunks_exact_mut(layout.columns());
                for (group, out) in groups.zip(outs) {
                    let group = layout.group(group);
                    for (chunk, out) in out.chunks_exact_mut(CHUNK).enumerate() {
                        let codes = group.codes(chunk);
                        for (column, out) in out.iter_mut().enumerate() {
                            let code = codes[column / 4][lane * 4 + column % 4];
                            *out = group.value(chunk, column, lane, f32::from(code));
                        }
                    }
                }
            }
            TileFormat::Dense(float) => {
                for (column, out) in out.iter_mut().enumerate() {
                    *out = float.read(tile.bytes, column * LANES + lane);
                }
            }
        }
    }

    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    pub(crate) fn tile_bytes(&self) -> usize {
        self.tile_bytes
    }

    /// # Panics
    /// When there are not so many tiles.
    pub(super) fn tile(&self, index: usize) -> Tile<'_> {
        let bytes = &self.bytes.as_slice()[index * self.tile_bytes..][..self.tile_bytes];
        Tile { format: self.format, bytes }
    }

    fn tile_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes.as_mut_slice()[index * self.tile_bytes..][..self.tile_bytes]
    }

    fn pack_affine_row(&mut self, layout: Layout, affine: &Affine, row: usize) {
        let groups = affine.columns / layout.columns();
        let code_bytes = layout.columns() * affine.bits / 8;
        let lane = row % LANES;
        let tile = self.tile_mut(row / LANES);
        for (group, out) in tile.chunks_exact_mut(layout.group_bytes()).enumerate() {
            let index = row * groups + group;
            let (header, out) = out.split_at_mut(layout.header_bytes());
            affine.scales.pack(layout.header, header, index, lane);
            let codes = &affine.codes[index * code_bytes..][..code_bytes];
            let chunks = codes.chunks_exact(CHUNK * affine.bits / 8);
            for (codes, out) in chunks.zip(out.chunks_exact_mut(layout.bits.chunk_bytes())) {
                for (column, code) in layout.bits.unpack_stream(codes).into_iter().enumerate() {
                    layout.bits.write(out, column, lane, code);
                }
            }
        }
    }
}

impl Affine<'_> {
    fn layout(&self) -> Result<Layout, Error> {
        let bits = match self.bits {
            4 => Bits::Four,
            5 => Bits::Five,
            6 => Bits::Six,
            8 => Bits::Eight,
            bits => return Err(Error::Bits(bits)),
        };
        let (header, group) = match self.scales {
            Scales::Plain { group, .. } if ![32, 64, 128].contains(&group) => {
                return Err(Error::Group(group));
            }
            Scales::Plain { group, scales, biases } => (plain_header(bits, scales, biases), group),
            Scales::TwoLevel { .. } => (Header::TwoLevel, SUPERBLOCK),
            Scales::TwoLevelHalves { .. } => (Header::TwoLevelHalves, SUPERBLOCK),
        };
        if !self.columns.is_multiple_of(group) {
            return Err(Error::Columns { columns: self.columns, group });
        }
        Ok(Layout { bits, header, chunks_per_group: group / CHUNK })
    }

    fn check(&self, layout: Layout) -> Result<(), Error> {
        let Affine { rows, columns, bits, .. } = *self;
        let shape = (rows, columns);
        // A multiple of 32 columns, so whole bytes.
        let code_bytes = (columns / 8).checked_mul(bits).and_then(|row| row.checked_mul(rows));
        check_length("codes", shape, self.codes.len(), code_bytes)?;
        let groups_of = |width: usize| rows.checked_mul(columns / width);
        let groups = groups_of(layout.columns());
        match self.scales {
            Scales::Plain { scales, biases, .. } => {
                check_length("scales", shape, scales.len(), groups)?;
                check_length("biases", shape, biases.len(), groups)
            }
            Scales::TwoLevel { d, dmin, scales, minimums } => {
                check_length("d", shape, d.len(), groups)?;
                check_length("dmin", shape, dmin.len(), groups)?;
                check_length("scales", shape, scales.len(), groups_of(CHUNK))?;
                check_length("minimums", shape, minimums.len(), groups_of(CHUNK))
            }
            Scales::TwoLevelHalves { d, scales } => {
                check_length("d", shape, d.len(), groups)?;
                check_length("scales", shape, scales.len(), groups_of(CHUNK / 2))
            }
        }
    }
}

/// Biases that can be had from the scales to the bit are not stored: Q4_0's and Q8_0's are such.
fn plain_header(bits: Bits, scales: &[f32], biases: &[f32]) -> Header {
    let is_centred =
        |(scale, bias): (&f32, &f32)| (-bits.zero() * scale).to_bits() == bias.to_bits();
    if scales.iter().zip(biases).all(is_centred) {
        Header::Plain { float: Float::smallest_for(&[scales]), bias: Bias::Centred }
    } else {
        Header::Plain { float: Float::smallest_for(&[scales, biases]), bias: Bias::Stored }
    }
}

impl Scales<'_> {
    /// Writes one row's part of the header of a group; `index` counts the groups of the matrix.
    fn pack(&self, kind: Header, header: &mut [u8], index: usize, lane: usize) {
        match (*self, kind) {
            (Scales::Plain { scales, biases, .. }, Header::Plain { float, bias }) => {
                float.write(header, lane, scales[index]);
                if bias == Bias::Stored {
                    float.write(header, LANES + lane, biases[index]);
                }
            }
            (Scales::TwoLevel { d, dmin, scales, minimums }, Header::TwoLevel) => {
                Float::F16.write(header, lane, d[index].to_f32());
                Float::F16.write(header, LANES + lane, dmin[index].to_f32());
                let chunks = header[SECOND_LEVEL..].chunks_exact_mut(SECOND_LEVEL_BYTES);
                let range = index * SUPERBLOCK / CHUNK..;
                let values = scales[range.clone()].iter().zip(&minimums[range]);
                for (chunk, (scale, minimum)) in chunks.zip(values) {
                    chunk[lane] = *scale;
                    chunk[LANES + lane] = *minimum;
                }
            }
            (Scales::TwoLevelHalves { d, scales }, Header::TwoLevelHalves) => {
                Float::F16.write(header, lane, d[index].to_f32());
                let halves = header[SECOND_LEVEL..].chunks_exact_mut(LANES);
                for (half, scale) in halves.zip(&scales[index * 2 * SUPERBLOCK / CHUNK..]) {
                    half[lane] = *scale as u8;
                }
            }
            _ => unreachable!("the layout was made for these scales"),
        }
    }
}

fn check_length(
    name: &'static str,
    (rows, columns): (usize, usize),
    len: usize,
    expected: Option<usize>,
) -> Result<(), Error> {
    match expected {
        None => Err(Error::TooLarge { rows, columns }),
        Some(expected) if len != expected => {
            Err(Error::Length { name, rows, columns, len, expected })
        }
        Some(_) => Ok(()),
    }
}
