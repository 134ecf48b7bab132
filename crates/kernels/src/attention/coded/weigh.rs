//! The weights of a block's values: each token's part of the softmax times the scale of its codes,
//! as integers of 16 bits.

use super::{magnitude, quantise};
use crate::attention::Span;
use crate::attention::tile::{GROUPS_MAX, Scratch, Tile, visible};
use crate::kv::BLOCK_TOKENS;
use crate::lanes::{LANES, Lanes};

/// The scales and biases of a block's values as `[group][slot]`.
#[repr(C, align(64))]
pub(in crate::attention) struct Parameters {
    scales: [[f32; BLOCK_TOKENS]; GROUPS_MAX],
    biases: [[f32; BLOCK_TOKENS]; GROUPS_MAX],
}

impl Parameters {
    pub(in crate::attention) const NONE: Parameters = Parameters {
        scales: [[0.0; BLOCK_TOKENS]; GROUPS_MAX],
        biases: [[0.0; BLOCK_TOKENS]; GROUPS_MAX],
    };
}

/// Makes the weights of all queries for the slots that any of them sees, 0 where one sees nothing,
/// and leaves the sums of `weight * bias` in the queries' values.
#[inline(always)]
pub(in crate::attention) fn weigh<S: Lanes>(
    lanes: S,
    tile: &mut Tile<'_>,
    block: &[u8],
    seen: Span,
) {
    read_parameters(lanes, tile, block);
    let layout = tile.attention.layout;
    let all = seen.vectors();
    for query in 0..tile.count {
        let span = tile.spans[query];
        for group in 0..layout.groups() {
            let Scratch { scores, products, parameters, .. } = &mut *tile.scratch;
            let vectors = if span.is_empty() { all.start..all.start } else { span.vectors() };
            let parts = scores[query].as_chunks::<LANES>().0;
            let scales = parameters.scales[group].as_chunks::<LANES>().0;
            let biases = parameters.biases[group].as_chunks::<LANES>().0;
            let to = products.as_chunks_mut::<LANES>().0;
            let mut sums = lanes.splat(0.0);
            let mut largest = lanes.splat(0.0);
            for v in vectors.clone() {
                let part = lanes.of(&parts[v]);
                // 0 times a hidden scale could be NaN.
                let scale = visible(lanes, span, v, lanes.of(&scales[v]), 0.0);
                let bias = visible(lanes, span, v, lanes.of(&biases[v]), 0.0);
                let product = lanes.mul(part, scale);
                sums = lanes.fma(part, bias, sums);
                largest = magnitude(lanes, product, largest);
                to[v] = lanes.to_array(product);
            }
            let slots = vectors.start * LANES..vectors.end * LANES;
            let weights = &mut tile.scratch.weights[group][query];
            weights[all.start * LANES..slots.start].fill(0);
            weights[slots.end..all.end * LANES].fill(0);
            let products = &tile.scratch.products[slots.clone()];
            let step = quantise(lanes, products, lanes.largest(largest), &mut weights[slots]);
            tile.scratch.weight_steps[group][query] = step;
            let dimensions = group * layout.group()..(group + 1) * layout.group();
            tile.scratch.values[query][dimensions].fill(lanes.sum(sums));
        }
    }
}

/// Puts the values' scales and biases in the order of slots, per group.
#[inline(always)]
fn read_parameters<S: Lanes>(lanes: S, tile: &mut Tile<'_>, block: &[u8]) {
    let layout = tile.attention.layout;
    let (groups, bytes) = (layout.groups(), layout.parameter_bytes());
    let tensors = layout.values();
    let Parameters { scales, biases } = &mut tile.scratch.parameters;
    for (tensor, to) in [(tensors.scales, scales), (tensors.biases, biases)] {
        let from = block[tensor][tile.attention.kv_head * bytes..][..bytes].as_chunks::<2>().0;
        let mut ordered = [[0; 2]; BLOCK_TOKENS];
        for (group, to) in to[..groups].iter_mut().enumerate() {
            let ordered = match groups {
                1 => from,
                _ => {
                    let of_group = from.iter().skip(group).step_by(groups);
                    ordered.iter_mut().zip(of_group).for_each(|(to, from)| *to = *from);
                    &ordered[..]
                }
            };
            let from = ordered.as_chunks::<LANES>().0;
            for (to, from) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(from) {
                // SAFETY: sixteen f16.
                let x = unsafe { lanes.load_f16(from.as_flattened().as_ptr()) };
                *to = lanes.to_array(x);
            }
        }
    }
}
