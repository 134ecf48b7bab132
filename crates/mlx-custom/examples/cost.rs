//! Prints what one kernel in a graph costs, beside an operation of MLX's own.

use mlx_custom::{CpuKernel, Input, Kernel, OutputSpec, View, ViewMut, cpu_stream};
use mlx_rs::{Array, Dtype};
use std::time::Instant;

const CALLS: i32 = 1000;
const ROUNDS: usize = 50;
const SHAPE: &[i32] = &[16];

struct Increment;

impl CpuKernel for Increment {
    fn name(&self) -> &'static str {
        "increment"
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        for (y, x) in outputs[0].f32_mut().iter_mut().zip(inputs[0].f32()) {
            *y = x + 1.0;
        }
    }
}

fn main() {
    let stream = cpu_stream();
    let kernel = Kernel::new(Increment);
    let custom = |array: &Array| {
        let input = Input { name: "x", array, shape: SHAPE, dtype: Dtype::Float32 };
        let output = OutputSpec { shape: SHAPE, dtype: Dtype::Float32 };
        kernel.apply_one(&[input], output, &stream).expect("the shape fits")
    };
    let one = Array::from_f32(1.0);
    let own = |array: &Array| array.add(&one).expect("the shapes fit");
    println!("chains of {CALLS}, best and median of {ROUNDS}, graph building included:");
    report("kernel", custom);
    report("mlx add", own);
}

fn report(name: &str, step: impl Fn(&Array) -> Array) {
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| microseconds_per_call(&step)).collect();
    times.sort_by(f64::total_cmp);
    println!("{name:8} {:5.2} µs {:5.2} µs", times[0], times[ROUNDS / 2]);
}

fn microseconds_per_call(step: impl Fn(&Array) -> Array) -> f64 {
    let start = Instant::now();
    let mut array = Array::zeros::<f32>(SHAPE).expect("a small array");
    for _ in 0..CALLS {
        array = step(&array);
    }
    array.eval().expect("nothing fails");
    let elapsed = start.elapsed();
    assert_eq!(array.as_slice::<f32>()[0], CALLS as f32);
    elapsed.as_secs_f64() * 1e6 / f64::from(CALLS)
}
