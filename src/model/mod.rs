//! The model: loads weights and computes. The only room that names MLX.

/// The version of the MLX library that this process runs with.
pub fn mlx_version() -> String {
    mlx_sys::linked_version()
}

#[cfg(test)]
mod tests {
    use mlx_rs::{Array, Dtype};

    #[test]
    fn mlx_computes_in_every_float_type() {
        for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
            let ones = Array::ones::<f32>(&[2, 3]).expect("shape is fine");
            let ones = ones.as_dtype(dtype).expect("dtype is known");
            let sum = (&ones + &ones).sum(None).expect("sums");
            let sum = sum.as_dtype(Dtype::Float32).expect("dtype is known");
            assert_eq!(sum.item_exact::<f32>(), 12.0, "{dtype:?}");
        }
    }
}
