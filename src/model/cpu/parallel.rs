//! Hands pieces of work to the pool's threads, each piece to one of them.

use std::sync::{Mutex, PoisonError};

use kernels::pool::Pool;

/// Calls `work` once per piece. A single piece, or a single thread, stays with the caller.
pub fn each<T: Send>(pool: &Pool, pieces: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    let mut pieces = pieces.into_iter();
    if pool.threads() == 1 {
        return pieces.for_each(work);
    }
    let (Some(first), second) = (pieces.next(), pieces.next()) else { return };
    let Some(second) = second else { return work(first) };
    // The locks are never waited for: each piece is asked for once.
    let cells: Vec<Mutex<Option<T>>> =
        [first, second].into_iter().chain(pieces).map(|piece| Mutex::new(Some(piece))).collect();
    pool.run(cells.len(), &|index| {
        let piece = cells[index].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(piece) = piece {
            work(piece);
        }
    });
}

/// Rows per piece so that each thread has a few pieces; one piece where a step is so small that
/// handing it over costs more than doing it.
pub fn rows_per_piece(pool: &Pool, rows: usize, row_len: usize) -> usize {
    /// What a thread does in about 4 µs, eight times what handing it over costs.
    const VALUES_MIN: usize = 16 * 1024;
    let pieces = pool.threads() * 4;
    rows.div_ceil(pieces).max(VALUES_MIN.div_ceil(row_len.max(1))).max(1)
}
