//! Weights, packed once at load into the order in which the kernels read them.
//!
//! 16 rows make a tile, which is one contiguous range of bytes. A tile of quantised weights has for
//! each group of columns the 16 scales, the 16 biases, and the codes of each 32 columns in 8 quads
//! of `[row][4]`:
//! - 4 bits: 64 bytes for two quads, the first in the low nibbles;
//! - 5 bits: the same, before them 64 bytes with the fifth bits: 64 bits per quad;
//! - 8 bits: 64 bytes per quad.
//!
//! A tile of dense weights is `[column][row]`, with columns filled up to a multiple of 32.

use half::{bf16, f16};

use super::activations::Input;
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
    /// 4, 5 or 8.
    pub bits: usize,
    /// Columns that share a scale and a bias: 32, 64 or 128.
    pub group: usize,
    /// `[rows][columns · bits / 8]`: per row a stream of codes, low bits first.
    pub codes: &'a [u8],
    /// `[rows, columns / group]`
    pub scales: &'a [f32],
    /// `[rows, columns / group]`
    pub biases: &'a [f32],
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("weights of {0} bits (there are kernels for 4, 5 and 8)")]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TileFormat {
    Affine(Layout),
    Dense(Float),
}

/// Where things are in a tile of quantised weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) bits: Bits,
    /// The type of the scales and biases: the smallest that holds each of them exactly.
    pub(super) scales: Float,
    pub(super) chunks_per_group: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    Four,
    Five,
    Eight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    F16,
    Bf16,
    F32,
}

/// The weights of 16 rows.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) format: TileFormat,
    pub(super) bytes: &'a [u8],
}

impl Weights {
    pub fn affine(affine: Affine) -> Result<Weights, Error> {
        let bits = Bits::new(affine.bits)?;
        affine.check()?;
        let scales = Float::smallest_for(&[affine.scales, affine.biases]);
        let layout = Layout { bits, scales, chunks_per_group: affine.group / CHUNK };
        let groups = affine.columns / affine.group;
        let tile_bytes = groups * layout.group_bytes();
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

    /// One row's values. Of quantised weights: the product rounded, then the sum, as MLX's
    /// `dequantize` does it.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.rows);
        assert!(out.len() == self.columns);
        let (tile, lane) = (self.tile(index / LANES), index % LANES);
        match tile.format {
            TileFormat::Affine(layout) => {
                let groups = tile.bytes.chunks_exact(layout.group_bytes());
                let outs = out.chunks_exact_mut(layout.chunks_per_group * CHUNK);
                for (group, out) in groups.zip(outs) {
                    let group = layout.group(group);
                    let (scale, bias) = (group.scale(lane), group.bias(lane));
                    for (chunk, out) in out.chunks_exact_mut(CHUNK).enumerate() {
                        let codes = group.codes(chunk);
                        for (column, out) in out.iter_mut().enumerate() {
                            let code = codes[column / 4][lane * 4 + column % 4];
                            *out = scale * f32::from(code) + bias;
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
        let groups = affine.columns / affine.group;
        let code_bytes = affine.group * affine.bits / 8;
        let lane = row % LANES;
        let tile = self.tile_mut(row / LANES);
        for (group, out) in tile.chunks_exact_mut(layout.group_bytes()).enumerate() {
            let index = row * groups + group;
            layout.scales.write(out, lane, affine.scales[index]);
            layout.scales.write(out, LANES + lane, affine.biases[index]);
            let out = &mut out[layout.scales_bytes()..];
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
    fn check(&self) -> Result<(), Error> {
        let Affine { rows, columns, bits, group, .. } = *self;
        if ![32, 64, 128].contains(&group) {
            return Err(Error::Group(group));
        }
        if !columns.is_multiple_of(group) {
            return Err(Error::Columns { columns, group });
        }
        let shape = (rows, columns);
        // A multiple of 32 columns, so whole bytes.
        let code_bytes = (columns / 8).checked_mul(bits).and_then(|row| row.checked_mul(rows));
        let groups = rows.checked_mul(columns / group);
        check_length("codes", shape, self.codes.len(), code_bytes)?;
        check_length("scales", shape, self.scales.len(), groups)?;
        check_length("biases", shape, self.biases.len(), groups)
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

impl Layout {
    /// The scales and the biases of a group.
    pub(super) fn scales_bytes(self) -> usize {
        2 * LANES * self.scales.bytes()
    }

    pub(super) fn group_bytes(self) -> usize {
        self.scales_bytes() + self.chunks_per_group * self.bits.chunk_bytes()
    }

    /// One group of a tile, for whoever wants single values.
    pub(super) fn group(self, bytes: &[u8]) -> Group<'_> {
        let (scales, codes) = bytes.split_at(self.scales_bytes());
        Group { layout: self, scales, codes }
    }
}

pub(super) struct Group<'a> {
    layout: Layout,
    scales: &'a [u8],
    codes: &'a [u8],
}

impl Group<'_> {
    pub(super) fn scale(&self, lane: usize) -> f32 {
        self.layout.scales.read(self.scales, lane)
    }

    pub(super) fn bias(&self, lane: usize) -> f32 {
        self.layout.scales.read(self.scales, LANES + lane)
    }

    /// The codes of 32 columns of this group.
    pub(super) fn codes(&self, chunk: usize) -> Codes {
        let bits = self.layout.bits;
        bits.unpack(&self.codes[chunk * bits.chunk_bytes()..][..bits.chunk_bytes()])
    }
}

/// A byte per code, `[column / 4][row · 4 + column % 4]`.
pub(super) type Codes = [[u8; 4 * LANES]; CHUNK / 4];

impl Bits {
    fn new(bits: usize) -> Result<Bits, Error> {
        match bits {
            4 => Ok(Bits::Four),
            5 => Ok(Bits::Five),
            8 => Ok(Bits::Eight),
            _ => Err(Error::Bits(bits)),
        }
    }

    /// 32 columns of 16 rows.
    pub(super) const fn chunk_bytes(self) -> usize {
        match self {
            Bits::Four => CHUNK * LANES * 4 / 8,
            Bits::Five => CHUNK * LANES * 5 / 8,
            Bits::Eight => CHUNK * LANES,
        }
    }

    /// The codes of 32 columns from a row of a file.
    fn unpack_stream(self, bytes: &[u8]) -> [u8; CHUNK] {
        match self {
            Bits::Four => std::array::from_fn(|i| bytes[i / 2] >> (4 * (i % 2)) & 15),
            Bits::Eight => std::array::from_fn(|i| bytes[i]),
            Bits::Five => std::array::from_fn(|i| {
                let (byte, shift) = (5 * i / 8, 5 * i % 8);
                // The last code ends with the last byte.
                let next = bytes.get(byte + 1).copied().unwrap_or(0);
                (u16::from_le_bytes([bytes[byte], next]) >> shift) as u8 & 31
            }),
        }
    }

    fn unpack(self, chunk: &[u8]) -> Codes {
        let (registers, _) = chunk.as_chunks::<{ 4 * LANES }>();
        let mut codes = [[0; 4 * LANES]; CHUNK / 4];
        let nibbles = match self {
            Bits::Eight => {
                codes.copy_from_slice(registers);
                return codes;
            }
            Bits::Five => &registers[1..],
            Bits::Four => registers,
        };
        for (both, pair) in nibbles.iter().zip(codes.as_chunks_mut::<2>().0) {
            pair[0] = both.map(|both| both & 15);
            pair[1] = both.map(|both| both >> 4);
        }
        if self == Bits::Five {
            let (fifths, _) = registers[0].as_chunks::<{ 4 * LANES / 8 }>();
            for (fifths, codes) in fifths.iter().zip(&mut codes) {
                for (i, code) in codes.iter_mut().enumerate() {
                    *code |= (fifths[i / 8] >> (i % 8) & 1) << 4;
                }
            }
        }
        codes
    }

    /// The chunk's bytes are zero before.
    fn write(self, chunk: &mut [u8], column: usize, lane: usize, code: u8) {
        let (quad, place) = (column / 4, lane * 4 + column % 4);
        let (byte, shift) = (quad / 2 * 64 + place, quad % 2 * 4);
        match self {
            Bits::Four => chunk[byte] |= code << shift,
            Bits::Five => {
                chunk[quad * 8 + place / 8] |= (code >> 4) << (place % 8);
                chunk[64 + byte] |= (code & 15) << shift;
            }
            Bits::Eight => chunk[quad * 64 + place] = code,
        }
    }
}

impl Float {
    fn smallest_for(values: &[&[f32]]) -> Float {
        let all = |is_exact: fn(f32) -> bool| {
            values.iter().flat_map(|values| *values).all(|&value| is_exact(value))
        };
        if all(|value| f16::from_f32(value).to_f32().to_bits() == value.to_bits()) {
            Float::F16
        } else if all(|value| value.to_bits().trailing_zeros() >= 16) {
            Float::Bf16
        } else {
            Float::F32
        }
    }

    pub(super) const fn bytes(self) -> usize {
        match self {
            Float::F16 | Float::Bf16 => 2,
            Float::F32 => 4,
        }
    }

    /// The element at an index of a slice of this type.
    pub(super) fn read(self, bytes: &[u8], index: usize) -> f32 {
        match self {
            Float::F16 => f16::from_le_bytes(bytes.as_chunks().0[index]).to_f32(),
            Float::Bf16 => bf16::from_le_bytes(bytes.as_chunks().0[index]).to_f32(),
            Float::F32 => f32::from_le_bytes(bytes.as_chunks().0[index]),
        }
    }

    fn write(self, bytes: &mut [u8], index: usize, value: f32) {
        match self {
            Float::F16 => {
                bytes.as_chunks_mut().0[index] = f16::from_f32(value).to_le_bytes();
            }
            Float::Bf16 => {
                bytes.as_chunks_mut().0[index] = bf16::from_f32(value).to_le_bytes();
            }
            Float::F32 => bytes.as_chunks_mut().0[index] = value.to_le_bytes(),
        }
    }
}
