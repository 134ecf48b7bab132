//! Rows in the forms that the matrices they are multiplied with want.

use super::Linear;
use crate::isa::Isa;
use crate::matmul::{self, Activations, Block, Input};

/// One set of rows: in most models in one form, in two where some matrices are quantised and some
/// are not.
#[derive(Default)]
pub(super) struct Inputs {
    quantised: Activations,
    floats: Activations,
}

/// Inputs that one phase's tasks set and a later phase's read.
#[derive(Clone, Copy)]
pub(super) struct Filling<'a> {
    quantised: Option<matmul::Filling<'a>>,
    floats: Option<matmul::Filling<'a>>,
}

impl Inputs {
    /// Makes room for rows to be multiplied with these matrices.
    pub(super) fn fill(&mut self, linears: &[&Linear], rows: usize) -> Filling<'_> {
        let columns = linears[0].weights.columns();
        let wants = |input| linears.iter().any(|linear| linear.weights.input() == input);
        Filling {
            quantised: wants(Input::Quantised)
                .then(|| self.quantised.fill(Input::Quantised, (rows, columns))),
            floats: wants(Input::Floats).then(|| self.floats.fill(Input::Floats, (rows, columns))),
        }
    }
}

impl<'a> Filling<'a> {
    /// As [`matmul::Filling::set`].
    ///
    /// # Safety
    /// Nobody else reads or writes these columns of the row meanwhile.
    pub(super) unsafe fn set(&self, isa: Isa, row: usize, chunk: usize, x: &[f32]) {
        for filling in [&self.quantised, &self.floats].into_iter().flatten() {
            // SAFETY: the caller's promise.
            unsafe { filling.set(isa, row, chunk, x) };
        }
    }

    /// # Safety
    /// All of the block's rows have been set, and nobody writes to them meanwhile.
    pub(super) unsafe fn block(&self, linear: &Linear, index: usize) -> Block<'_> {
        // SAFETY: the caller's promise.
        unsafe { self.of(linear).block(index) }
    }

    /// The form that a matrix wants; `fill` was told of it.
    pub(super) fn of(&self, linear: &Linear) -> &matmul::Filling<'a> {
        let filling = match linear.weights.input() {
            Input::Quantised => &self.quantised,
            Input::Floats => &self.floats,
        };
        filling.as_ref().expect("filled for this matrix")
    }
}
