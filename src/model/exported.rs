//! The order of a block's bytes outside a model, which both paths agree on: the kernels' own, so
//! that their full blocks are copied as they are.
//!
//! Layer by layer K, then V; of each the codes, then the scales, then the biases, cut to the tokens
//! that are there. K is dimension-major, `[head][dimension][token]`, V is `[head][token][dimension]`;
//! `crates/kernels/src/kv.rs` has the table. Plain MLX keeps `[token][head][dimension]`.

use super::Error;
use super::kv::{KvBits, KvConfig, KvPart, Layout};
use crate::types::{KvAxis, KvElement, KvTensor};

/// The tensors of a block of a model with so many layers and KV heads.
pub fn tensors(
    kv: KvConfig,
    layers: usize,
    heads: usize,
    head_dim: usize,
) -> Result<Vec<KvTensor>, Error> {
    let mut all = Vec::new();
    for layer in 0..layers {
        for (which, part) in [(Part::Key, kv.key), (Part::Value, kv.value)] {
            all.extend(part_tensors(layer, which, part, (heads, head_dim))?);
        }
    }
    Ok(all)
}

fn part_tensors(
    layer: usize,
    which: Part,
    part: KvPart,
    (heads, head_dim): (usize, usize),
) -> Result<Vec<KvTensor>, Error> {
    let tensor = |suffix: &str, element, width| {
        let (heads, width) = (KvAxis::Fixed(heads), KvAxis::Fixed(width));
        let (name, shape) = match which {
            Part::Key => ("key", [heads, width, KvAxis::Tokens]),
            Part::Value => ("value", [heads, KvAxis::Tokens, width]),
        };
        KvTensor { name: format!("layer.{layer}.{name}{suffix}"), element, shape: shape.to_vec() }
    };
    let groups = Layout::new(part, heads, head_dim)?.groups();
    let codes = match part.bits {
        KvBits::Sixteen => return Ok(vec![tensor("", KvElement::F16, head_dim)]),
        KvBits::ThirtyTwo => return Ok(vec![tensor("", KvElement::F32, head_dim)]),
        // A byte holds the codes of two dimensions.
        KvBits::Four => tensor(".codes", KvElement::U8, head_dim / 2),
        KvBits::Eight => tensor(".codes", KvElement::U8, head_dim),
    };
    let parameters = |suffix| tensor(suffix, KvElement::F16, groups);
    Ok(vec![codes, parameters(".scales"), parameters(".biases")])
}

/// K or V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Key,
    Value,
}

/// One tensor of a part: `width` elements of `element` bytes per token and head.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    pub part: Part,
    pub tokens: usize,
    pub heads: usize,
    pub width: usize,
    pub element: usize,
}

/// Codes of 4 bits, whose bytes hold two dimensions each: in K neighbours, in V one of each half.
pub fn has_halves(part: Part, bits: KvBits) -> bool {
    part == Part::Value && bits == KvBits::Four
}

impl Tensor {
    /// From `[token][head][width]` to the order of this module.
    pub fn export(&self, native: &[u8]) -> Vec<u8> {
        let mut out = vec![0; native.len()];
        self.each(|from, to| {
            out[to..to + self.element].copy_from_slice(&native[from..][..self.element])
        });
        out
    }

    /// The inverse of [`Tensor::export`].
    pub fn import(&self, exported: &[u8]) -> Vec<u8> {
        let mut out = vec![0; exported.len()];
        self.each(|to, from| {
            out[to..to + self.element].copy_from_slice(&exported[from..][..self.element])
        });
        out
    }

    /// Where each element is in the native order, and where here.
    fn each(&self, mut element: impl FnMut(usize, usize)) {
        let Tensor { part, tokens, heads, width, element: bytes } = *self;
        for token in 0..tokens {
            for head in 0..heads {
                for index in 0..width {
                    let native = (token * heads + head) * width + index;
                    let here = match part {
                        Part::Key => (head * width + index) * tokens + token,
                        Part::Value => (head * tokens + token) * width + index,
                    };
                    element(native * bytes, here * bytes);
                }
            }
        }
    }
}

/// From bytes of neighbouring dimensions to bytes of dimensions half a row apart.
pub fn to_halves(row: &mut [u8]) {
    let codes: Vec<u8> = row.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
    let (low, high) = codes.split_at(row.len());
    for (byte, (low, high)) in row.iter_mut().zip(low.iter().zip(high)) {
        *byte = low | high << 4;
    }
}

/// The inverse of [`to_halves`].
pub fn from_halves(row: &mut [u8]) {
    let codes: Vec<u8> =
        row.iter().map(|byte| byte & 15).chain(row.iter().map(|byte| byte >> 4)).collect();
    for (byte, pair) in row.iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = pair[0] | pair[1] << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_dimension_major_and_values_head_major() {
        // Two tokens, two heads, three dimensions, named token · 100 + head · 10 + dimension.
        let native: Vec<u8> = (0..2)
            .flat_map(|token| {
                (0..2).flat_map(move |head| (0..3).map(move |d| token * 100 + head * 10 + d))
            })
            .collect();
        let tensor = |part| Tensor { part, tokens: 2, heads: 2, width: 3, element: 1 };
        let keys = tensor(Part::Key).export(&native);
        assert_eq!(keys, [0, 100, 1, 101, 2, 102, 10, 110, 11, 111, 12, 112]);
        assert_eq!(tensor(Part::Key).import(&keys), native);
        let values = tensor(Part::Value).export(&native);
        assert_eq!(values, [0, 1, 2, 100, 101, 102, 10, 11, 12, 110, 111, 112]);
        assert_eq!(tensor(Part::Value).import(&values), native);
    }

    #[test]
    fn halves_are_there_and_back() {
        // Codes 0 to 7 in order.
        let neighbours = [0x10, 0x32, 0x54, 0x76];
        let mut row = neighbours;
        to_halves(&mut row);
        assert_eq!(row, [0x40, 0x51, 0x62, 0x73]);
        from_halves(&mut row);
        assert_eq!(row, neighbours);
    }
}
