//! Attention of some rows of one sequence over its KV blocks, for one KV head.
//!
//! Each query (a row's query head) attends block by block. Within a block it takes the softmax
//! around the block's own largest score; the blocks' results are then merged in ascending order.
//! So a query's result depends on nothing but itself and the keys it may see: not on the other
//! rows of the call, nor on which thread did which blocks ([`attend_blocks`], [`merge`]).
//!
//! Keys and values of 4 and 8 bits meet integers ([`coded`]): a query's head becomes 16-bit integers
//! of one step, its dot products with a group's codes are exact, and per group `score = fma(scale,
//! dot, score)` and `score = fma(bias, sum of the integers, score)` count in steps. `2^score` times
//! the scale of a token's value becomes a 16-bit integer of one step per block, and the sum of its
//! products with the codes is exact. Those of 16 and 32 bits are multiplied as f32 ([`plain`]), by fma
//! in ascending dimension or token. The sums of `2^score` and of `2^score * bias` are kept in 16
//! lanes (token mod 16) and summed by halves. What lies in slots that a query may not see is never
//! read into a sum, or times 0 where that is exact.
//!
//! Estimate, per core at 3.7 GHz with one fma of 16 f32 or one product of 32 i16 per cycle: 118
//! GFLOP/s for many rows of floats and 237 of codes, less the softmax and conversions, a third of the
//! time of the latter. Measured (`benches/attention.rs`, Zen 4, one thread, SmolLM2-135M's heads):
//! 151 with 8-bit KV, 138 with 4-bit, 93 with 16-bit; one row over 2,048 tokens 1.5, 1.4 and 2.9 ms.

use crate::isa::Isa;
use crate::kv::{BLOCK_TOKENS, HEAD_DIM_MAX, Layout};
use crate::lanes::{self, Kernel, LANES, Lanes};
use crate::math;
use crate::strided::{Rows, RowsMut};

mod ahead;
mod coded;
mod plain;
mod tile;

use tile::{Scratch as TileScratch, Tile};

/// Query heads that share a KV head, at most.
pub const GROUP_HEADS_MAX: usize = 64;

/// What the rows attend to, and how.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub layout: Layout,
    pub kv_head: usize,
    /// Query heads per KV head.
    pub group_heads: usize,
    /// Scores are multiplied by this; usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// A row sees only this many keys, its own included.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    pub blocks: Blocks<'a>,
}

/// The blocks of a sequence, each with a part of `layout.bytes()` for every layer. Found when they
/// are needed: a list of a long sequence's parts would take longer to make than one block to read.
#[derive(Clone, Copy)]
pub struct Blocks<'a> {
    pub cache: &'a [u8],
    /// Where each block begins in the cache, at any alignment. Those that no row sees may be
    /// anywhere.
    pub starts: &'a [usize],
    /// Where the layer's part begins in each.
    pub part: usize,
}

/// Buffers of one thread; nothing in them outlives a call.
pub struct Scratch {
    tile: Box<TileScratch>,
    values: Box<Values>,
}

type Values = [[f32; HEAD_DIM_MAX]; tile::QUERIES_MAX];

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Scratch {
    pub fn new() -> Scratch {
        let values = Box::new([[0.0; HEAD_DIM_MAX]; tile::QUERIES_MAX]);
        Scratch { tile: TileScratch::new(), values }
    }
}

/// Attends from each row to the keys up to its own. `queries` and `out` are `[row][group_heads *
/// head_dim]`, queries already rotated by position; row `r` is at `positions[r]`.
pub fn attend(
    isa: Isa,
    attention: &Attention<'_>,
    positions: &[usize],
    queries: Rows<'_>,
    out: RowsMut<'_>,
    scratch: &mut Scratch,
) {
    attention.check(positions, queries);
    assert_eq!(out.count(), positions.len());
    assert_eq!(out.width(), attention.row_width());
    let Scratch { tile, values } = scratch;
    lanes::run(isa, Attend { attention, positions, queries, out, scratch: tile, values });
}

/// The f32 that [`attend_blocks`] leaves per block.
pub fn partial_len(layout: Layout, group_heads: usize) -> usize {
    group_heads * (layout.head_dim() + 2)
}

/// The part of [`attend`] that belongs to some of the blocks, for one row at `position`:
/// `partials` gets [`partial_len`] values for each block of `blocks`, for [`merge`].
pub fn attend_blocks(
    isa: Isa,
    attention: &Attention<'_>,
    position: usize,
    query: &[f32],
    blocks: std::ops::Range<usize>,
    partials: &mut [f32],
    scratch: &mut Scratch,
) {
    attention.check(&[position], Rows::new(query, query.len(), query.len()));
    assert!(blocks.end <= position / BLOCK_TOKENS + 1);
    assert_eq!(partials.len(), blocks.len() * attention.partial_len());
    let seen = attention.blocks_seen(position);
    if blocks.end <= seen.start {
        let nothing = partials.chunks_exact_mut(attention.layout.head_dim() + 2);
        return nothing.for_each(leave_nothing);
    }
    let scratch = &mut *scratch.tile;
    lanes::run(isa, AttendBlocks { attention, position, query, blocks, partials, scratch });
}

/// Makes one row's result from the partial results of all blocks that it sees,
/// [`Attention::blocks_seen`], in order: the same bits as [`attend`]. Blocks that it does not see
/// may be among them.
pub fn merge(isa: Isa, attention: &Attention<'_>, partials: &[f32], out: &mut [f32]) {
    assert_eq!(out.len(), attention.row_width());
    assert!(partials.len().is_multiple_of(attention.partial_len()));
    lanes::run(isa, Merge { attention, partials, out });
}

impl Attention<'_> {
    /// The blocks with keys that a row at `position` sees.
    pub fn blocks_seen(&self, position: usize) -> std::ops::Range<usize> {
        self.first_key(position) / BLOCK_TOKENS..position / BLOCK_TOKENS + 1
    }

    /// Asserts all that the kernels rely on to stay within the slices.
    fn check(&self, positions: &[usize], queries: Rows<'_>) {
        assert!(self.kv_head < self.layout.kv_heads(), "kv_head {}", self.kv_head);
        assert!(self.group_heads > 0);
        assert!(self.group_heads <= GROUP_HEADS_MAX, "group_heads {}", self.group_heads);
        assert!(self.window != Some(0));
        assert_eq!(queries.count(), positions.len());
        assert_eq!(queries.width(), self.row_width());
        for &position in positions {
            let last = position / BLOCK_TOKENS;
            assert!(last < self.blocks.starts.len(), "position {position} has no block");
        }
    }

    /// The layer's part of a block, if there is one.
    fn block(&self, index: usize) -> Option<&[u8]> {
        let Blocks { cache, starts, part } = self.blocks;
        cache.get(starts.get(index)?.checked_add(part)?..)?.get(..self.layout.bytes())
    }

    fn partial_len(&self) -> usize {
        partial_len(self.layout, self.group_heads)
    }

    fn row_width(&self) -> usize {
        self.group_heads * self.layout.head_dim()
    }

    /// What queries are multiplied by: exponents are of two, but a cap is of what it always was.
    fn query_scale(&self) -> f32 {
        match self.softcap {
            Some(_) => self.scale,
            None => self.scale * std::f32::consts::LOG2_E,
        }
    }

    fn first_key(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The slots of a block that a row sees.
    fn visible(&self, position: usize, block: usize) -> Span {
        let start = block * BLOCK_TOKENS;
        let clamp = |key: usize| key.clamp(start, start + BLOCK_TOKENS) - start;
        let (from, to) = (clamp(self.first_key(position)), clamp(position + 1));
        if from < to { Span { from, to } } else { Span::EMPTY }
    }
}

/// Slots `from .. to` of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: usize,
    to: usize,
}

impl Span {
    const EMPTY: Span = Span { from: 0, to: 0 };

    fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// Those of sixteen slots each that have any of these.
    fn vectors(self) -> std::ops::Range<usize> {
        self.from / LANES..self.to.div_ceil(LANES)
    }
}

/// What a query has gathered from the blocks so far. `sum` and the values are relative to
/// `2^largest`.
#[derive(Clone, Copy)]
struct Softmax {
    largest: f32,
    sum: f32,
}

impl Softmax {
    const NOTHING: Softmax = Softmax { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Adds a block's result to this one, and its `values` to the values so far.
    #[inline(always)]
    fn add<S: Lanes>(&mut self, lanes: S, block: Softmax, values: &[f32], so_far: &mut [f32]) {
        let largest = if block.largest > self.largest { block.largest } else { self.largest };
        let mut both = [0.0; LANES];
        both[0] = self.largest - largest;
        both[1] = block.largest - largest;
        let both = lanes.to_array(math::exp2(lanes, lanes.of(&both)));
        self.largest = largest;
        self.sum = block.sum.mul_add(both[1], self.sum * both[0]);
        let (old, new) = (lanes.splat(both[0]), lanes.splat(both[1]));
        let values = values.as_chunks::<LANES>().0;
        for (to, x) in so_far.as_chunks_mut::<LANES>().0.iter_mut().zip(values) {
            let kept = lanes.mul(lanes.of(to), old);
            *to = lanes.to_array(lanes.fma(lanes.of(x), new, kept));
        }
    }

    #[inline(always)]
    fn finish<S: Lanes>(self, lanes: S, values: &[f32], out: &mut [f32]) {
        let factor = lanes.splat(1.0 / self.sum);
        let values = values.as_chunks::<LANES>().0;
        for (to, x) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(values) {
            *to = lanes.to_array(lanes.mul(lanes.of(x), factor));
        }
    }
}

struct Attend<'a> {
    attention: &'a Attention<'a>,
    positions: &'a [usize],
    queries: Rows<'a>,
    out: RowsMut<'a>,
    scratch: &'a mut TileScratch,
    /// What each query of a tile has gathered so far.
    values: &'a mut Values,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(mut self, lanes: S) {
        let attention = self.attention;
        let (heads, head_dim) = (attention.group_heads, attention.layout.head_dim());
        let mut tiles = tile::Tiles::<S>::new(self.positions.len() * heads);
        let values = self.values;
        while let Some(queries) = tiles.next() {
            let mut tile = Tile::new(attention, self.scratch);
            for query in queries.clone() {
                let (row, head) = (query / heads, query % heads);
                let x = &self.queries.row(row)[head * head_dim..][..head_dim];
                tile.push(lanes, self.positions[row], x);
            }
            let mut so_far = [Softmax::NOTHING; tile::QUERIES_MAX];
            for values in &mut values[..queries.len()] {
                values[..head_dim].fill(0.0);
            }
            for block in tile.blocks() {
                lanes.call(tile::Block { tile: &mut tile, block });
                for index in 0..queries.len() {
                    if let Some((softmax, block_values)) = tile.result(index) {
                        let values = &mut values[index][..head_dim];
                        so_far[index].add(lanes, softmax, block_values, values);
                    }
                }
            }
            for (index, query) in queries.enumerate() {
                let (row, head) = (query / heads, query % heads);
                let out = &mut self.out.row_mut(row)[head * head_dim..][..head_dim];
                so_far[index].finish(lanes, &values[index][..head_dim], out);
            }
        }
    }
}

struct AttendBlocks<'a> {
    attention: &'a Attention<'a>,
    position: usize,
    query: &'a [f32],
    blocks: std::ops::Range<usize>,
    partials: &'a mut [f32],
    scratch: &'a mut TileScratch,
}

impl Kernel for AttendBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let attention = self.attention;
        let head_dim = attention.layout.head_dim();
        let width = head_dim + 2;
        let mut tiles = tile::Tiles::<S>::new(attention.group_heads);
        while let Some(queries) = tiles.next() {
            let mut tile = Tile::new(attention, self.scratch);
            for query in queries.clone() {
                tile.push(lanes, self.position, &self.query[query * head_dim..][..head_dim]);
            }
            let blocks = self.partials.chunks_exact_mut(attention.partial_len());
            for (block, partials) in self.blocks.clone().zip(blocks) {
                let seen = tile.blocks().contains(&block);
                if seen {
                    lanes.call(tile::Block { tile: &mut tile, block });
                }
                for (index, query) in queries.clone().enumerate() {
                    let partial = &mut partials[query * width..][..width];
                    match tile.result(index).filter(|_| seen) {
                        Some((softmax, values)) => {
                            partial[..2].copy_from_slice(&[softmax.largest, softmax.sum]);
                            partial[2..].copy_from_slice(values);
                        }
                        None => leave_nothing(partial),
                    }
                }
            }
        }
    }
}

/// The partial result of a query that sees nothing of a block.
fn leave_nothing(partial: &mut [f32]) {
    partial.fill(0.0);
    partial[0] = f32::NEG_INFINITY;
}

struct Merge<'a> {
    attention: &'a Attention<'a>,
    partials: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Lanes>(self, lanes: S) {
        let head_dim = self.attention.layout.head_dim();
        let width = head_dim + 2;
        for (query, out) in self.out.chunks_exact_mut(head_dim).enumerate() {
            let mut so_far = Softmax::NOTHING;
            let mut values = [0.0; HEAD_DIM_MAX];
            for partials in self.partials.chunks_exact(self.attention.partial_len()) {
                let partial = &partials[query * width..][..width];
                let block = Softmax { largest: partial[0], sum: partial[1] };
                // A block out of the window left nothing.
                if block.sum != 0.0 {
                    so_far.add(lanes, block, &partial[2..], &mut values[..head_dim]);
                }
            }
            so_far.finish(lanes, &values[..head_dim], out);
        }
    }
}

#[cfg(test)]
mod tests;
