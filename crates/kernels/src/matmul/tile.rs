//! Where things are in a tile: the weights of 16 rows, one contiguous range of bytes.
//!
//! A tile of quantised weights has for each group of columns a header that says what a code is
//! worth, and then the codes of each 32 columns in 8 quads of `[row][4]`:
//! - 4 bits: 64 bytes for two quads, the first in the low nibbles;
//! - 5 bits: the same, before them 64 bytes with the fifth bits: 64 bits per quad;
//! - 6 bits: the same, before them 64 bytes for four quads each with the upper two bits, the first
//!   quad in the lowest;
//! - 8 bits: 64 bytes per quad.
//!
//! A tile of dense weights is `[column][row]`, with columns filled up to a multiple of 32.

use half::{bf16, f16};

use super::{CHUNK, LANES};

/// The weights of 16 rows.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) format: TileFormat,
    pub(super) bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TileFormat {
    Affine(Layout),
    Dense(Float),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) bits: Bits,
    pub(super) header: Header,
    pub(super) chunks_per_group: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    Four,
    Five,
    Six,
    Eight,
}

/// What a group begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// 16 scales and, if they are stored, 16 biases, of the smallest type that holds each exactly.
    Plain { float: Float, bias: Bias },
    /// Of 256 columns: `d[16]` and `dmin[16]` in f16, and for each chunk `scale[16]` and
    /// `minimum[16]` in u8. The scale is `d · scale`, the bias `-dmin · minimum`.
    TwoLevel,
    /// Of 256 columns: `d[16]` in f16, 32 unused bytes (so that codes begin with a cache line), and
    /// for each half chunk `scale[16]` in i8. The scale is `d · scale`, the bias centres the codes.
    TwoLevelHalves,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    Stored,
    /// It is `-zero · scale` everywhere, with the zero of the codes' width.
    Centred,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    F16,
    Bf16,
    F32,
}

/// Where the bytes of the first chunk are in a header of two levels, and how many a chunk has.
pub(super) const SECOND_LEVEL: usize = 64;
pub(super) const SECOND_LEVEL_BYTES: usize = 2 * LANES;

impl Layout {
    pub(super) fn columns(self) -> usize {
        self.chunks_per_group * CHUNK
    }

    pub(super) fn header_bytes(self) -> usize {
        match self.header {
            Header::Plain { float, bias: Bias::Stored } => 2 * LANES * float.bytes(),
            Header::Plain { float, bias: Bias::Centred } => LANES * float.bytes(),
            Header::TwoLevel | Header::TwoLevelHalves => {
                SECOND_LEVEL + self.chunks_per_group * SECOND_LEVEL_BYTES
            }
        }
    }

    pub(super) fn group_bytes(self) -> usize {
        self.header_bytes() + self.chunks_per_group * self.bits.chunk_bytes()
    }

    /// One group of a tile, for whoever wants single values.
    pub(super) fn group(self, bytes: &[u8]) -> Group<'_> {
        let (header, codes) = bytes.split_at(self.header_bytes());
        Group { layout: self, header, codes }
    }
}

pub(super) struct Group<'a> {
    layout: Layout,
    header: &'a [u8],
    codes: &'a [u8],
}

impl Group<'_> {
    /// What codes are multiplied with in 16 columns: a half of a chunk.
    pub(super) fn scale(&self, chunk: usize, half: usize, lane: usize) -> f32 {
        match self.layout.header {
            Header::Plain { float, .. } => float.read(self.header, lane),
            Header::TwoLevel => self.half_float(lane) * f32::from(self.second(chunk)[lane]),
            Header::TwoLevelHalves => {
                let scale = self.second(chunk)[half * LANES + lane] as i8;
                self.half_float(lane) * f32::from(scale)
            }
        }
    }

    /// What is added then, where it is for the whole chunk.
    pub(super) fn bias(&self, chunk: usize, lane: usize) -> f32 {
        match self.layout.header {
            Header::Plain { float, bias: Bias::Stored } => float.read(self.header, LANES + lane),
            Header::Plain { bias: Bias::Centred, .. } | Header::TwoLevelHalves => {
                -self.layout.bits.zero() * self.scale(chunk, 0, lane)
            }
            Header::TwoLevel => {
                -self.half_float(LANES + lane) * f32::from(self.second(chunk)[LANES + lane])
            }
        }
    }

    /// What a code means.
    pub(super) fn value(&self, chunk: usize, column: usize, lane: usize, code: f32) -> f32 {
        let scale = self.scale(chunk, column / (CHUNK / 2), lane);
        match self.layout.header {
            Header::Plain { .. } | Header::TwoLevel => scale * code + self.bias(chunk, lane),
            Header::TwoLevelHalves => scale * (code - self.layout.bits.zero()),
        }
    }

    /// The codes of 32 columns of this group.
    pub(super) fn codes(&self, chunk: usize) -> Codes {
        let bits = self.layout.bits;
        bits.unpack(&self.codes[chunk * bits.chunk_bytes()..][..bits.chunk_bytes()])
    }

    fn half_float(&self, index: usize) -> f32 {
        Float::F16.read(self.header, index)
    }

    fn second(&self, chunk: usize) -> &[u8] {
        &self.header[SECOND_LEVEL + chunk * SECOND_LEVEL_BYTES..][..SECOND_LEVEL_BYTES]
    }
}

/// A byte per code, `[column / 4][row · 4 + column % 4]`.
pub(super) type Codes = [[u8; 4 * LANES]; CHUNK / 4];

impl Bits {
    /// 32 columns of 16 rows.
    pub(super) const fn chunk_bytes(self) -> usize {
        CHUNK * LANES * self.count() / 8
    }

    pub(super) const fn count(self) -> usize {
        match self {
            Bits::Four => 4,
            Bits::Five => 5,
            Bits::Six => 6,
            Bits::Eight => 8,
        }
    }

    /// The code that means nothing where codes are centred: a half of their range.
    pub(super) const fn zero(self) -> f32 {
        (1 << (self.count() - 1)) as f32
    }

    /// The codes of 32 columns from a row of a file: a stream of bits, low ones first.
    pub(super) fn unpack_stream(self, bytes: &[u8]) -> [u8; CHUNK] {
        match self {
            Bits::Four => unpack_stream::<4>(bytes),
            Bits::Five => unpack_stream::<5>(bytes),
            Bits::Six => unpack_stream::<6>(bytes),
            Bits::Eight => unpack_stream::<8>(bytes),
        }
    }

    fn unpack(self, chunk: &[u8]) -> Codes {
        std::array::from_fn(|quad| {
            std::array::from_fn(|place| {
                let nibble = |nibbles: &[u8]| nibbles[quad / 2 * 64 + place] >> (quad % 2 * 4) & 15;
                match self {
                    Bits::Four => nibble(chunk),
                    Bits::Five => {
                        let fifth = chunk[quad * 8 + place / 8] >> (place % 8) & 1;
                        nibble(&chunk[64..]) | fifth << 4
                    }
                    Bits::Six => {
                        let upper = chunk[quad / 4 * 64 + place] >> (quad % 4 * 2) & 3;
                        nibble(&chunk[128..]) | upper << 4
                    }
                    Bits::Eight => chunk[quad * 64 + place],
                }
            })
        })
    }

    /// The chunk's bytes are zero before.
    pub(super) fn write(self, chunk: &mut [u8], column: usize, lane: usize, code: u8) {
        let (quad, place) = (column / 4, lane * 4 + column % 4);
        let (byte, low) = (quad / 2 * 64 + place, (code & 15) << (quad % 2 * 4));
        match self {
            Bits::Four => chunk[byte] |= low,
            Bits::Five => {
                chunk[quad * 8 + place / 8] |= (code >> 4) << (place % 8);
                chunk[64 + byte] |= low;
            }
            Bits::Six => {
                chunk[quad / 4 * 64 + place] |= (code >> 4) << (quad % 4 * 2);
                chunk[128 + byte] |= low;
            }
            Bits::Eight => chunk[quad * 64 + place] = code,
        }
    }
}

fn unpack_stream<const BITS: usize>(bytes: &[u8]) -> [u8; CHUNK] {
    std::array::from_fn(|i| {
        let (byte, shift) = (BITS * i / 8, BITS * i % 8);
        // The last code ends with the last byte.
        let next = bytes.get(byte + 1).copied().unwrap_or(0);
        (u16::from_le_bytes([bytes[byte], next]) >> shift & ((1 << BITS) - 1)) as u8
    })
}

impl Float {
    pub(super) fn smallest_for(values: &[&[f32]]) -> Float {
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

    pub(super) fn write(self, bytes: &mut [u8], index: usize, value: f32) {
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
