//! Rows of one head inside a `[row][head][width]` array, which several threads may fill at once.

use std::marker::PhantomData;

/// Rows of `width` values, `stride` apart.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// The first row starts at the start of `data`; the last one may end with it.
    pub fn new(data: &'a [f32], stride: usize, width: usize) -> Rows<'a> {
        assert!(width > 0);
        assert!(width <= stride);
        Rows { data, stride, width }
    }

    pub fn count(self) -> usize {
        (self.data.len() + self.stride - self.width) / self.stride
    }

    pub fn width(self) -> usize {
        self.width
    }

    pub fn row(self, index: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..self.width]
    }
}

/// Rows of `width` values, `stride` apart, to be written; what lies between them is not touched.
pub struct RowsMut<'a> {
    data: *mut f32,
    count: usize,
    stride: usize,
    width: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `RowsMut` is the only way to its rows, as a `&mut [f32]` would be.
unsafe impl Send for RowsMut<'_> {}

impl<'a> RowsMut<'a> {
    /// All of `[row][width]`.
    pub fn new(data: &'a mut [f32], width: usize) -> RowsMut<'a> {
        RowsMut::split(data, width, width).next().expect("one head")
    }

    /// `[row][head][width]` as one `RowsMut` per head; `stride` is `heads * width`.
    pub fn split(
        data: &'a mut [f32],
        stride: usize,
        width: usize,
    ) -> impl Iterator<Item = RowsMut<'a>> {
        assert!(width > 0);
        assert!(stride >= width);
        assert!(stride.is_multiple_of(width));
        assert!(data.len().is_multiple_of(stride));
        let count = data.len() / stride;
        let start = data.as_mut_ptr();
        (0..stride / width).map(move |head| RowsMut {
            // The heads' rows are disjoint, and all lie within `data`, which is borrowed for `'a`.
            data: start.wrapping_add(head * width),
            count,
            stride,
            width,
            borrow: PhantomData,
        })
    }

    /// The first `rows` rows, and the others.
    pub fn split_at(self, rows: usize) -> (RowsMut<'a>, RowsMut<'a>) {
        assert!(rows <= self.count);
        let rest = RowsMut {
            data: self.data.wrapping_add(rows * self.stride),
            count: self.count - rows,
            ..self
        };
        (RowsMut { count: rows, ..self }, rest)
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.count);
        // SAFETY: row `index` lies within the borrowed slice (`split` made `count` from its
        // length), no other `RowsMut` has it, and `&mut self` lends one row at a time.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(index * self.stride), self.width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_tiles_of_rows_are_written_where_they_belong() {
        let mut data = vec![0.0; 4 * 3 * 2];
        for (head, rows) in RowsMut::split(&mut data, 6, 2).enumerate() {
            let (first, rest) = rows.split_at(1);
            for (start, mut rows) in [(0, first), (1, rest)] {
                for row in 0..rows.count() {
                    rows.row_mut(row).fill((10 * (start + row) + head) as f32);
                }
            }
        }
        let expected: Vec<f32> = (0..24).map(|i| (10 * (i / 6) + i % 6 / 2) as f32).collect();
        assert_eq!(data, expected);
        let rows = Rows::new(&data[2..], 6, 2);
        assert_eq!(rows.count(), 4);
        assert_eq!(rows.row(3), [31.0, 31.0]);
    }
}
