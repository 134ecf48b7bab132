//! What a kernel in a graph can rely on, tried through MLX itself.

use mlx_custom::{
    CpuKernel, Error, Input, Kernel, OUTPUTS_MAX, OutputSpec, View, ViewMut, cpu_stream,
};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::transforms::{async_eval, eval};
use mlx_rs::{Array, Device, Dtype, Stream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A kernel made of a closure.
struct Do<F>(F);

impl<F> CpuKernel for Do<F>
where
    F: Fn(&[View<'_>], &mut [ViewMut<'_>]) + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        "test"
    }

    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]) {
        self.0(inputs, outputs);
    }
}

fn kernel<F>(run: F) -> Kernel
where
    F: Fn(&[View<'_>], &mut [ViewMut<'_>]) + Send + Sync + 'static,
{
    Kernel::new(Do(run))
}

/// Takes the array as it is.
fn input(array: &Array) -> Input<'_> {
    Input { name: "x", array, shape: array.shape(), dtype: array.dtype() }
}

fn spec(shape: &[i32], dtype: Dtype) -> OutputSpec<'_> {
    OutputSpec { shape, dtype }
}

/// Applies a kernel whose output is like its input.
fn map(kernel: &Kernel, x: &Array) -> Array {
    map_on(kernel, x, &cpu_stream())
}

fn map_on(kernel: &Kernel, x: &Array, stream: &Stream) -> Array {
    kernel.apply_one(&[input(x)], spec(x.shape(), x.dtype()), stream).expect("the kernel fits")
}

fn floats(array: &Array) -> Vec<f32> {
    array.eval().expect("the graph can be evaluated");
    array.as_slice::<f32>().to_vec()
}

fn increment() -> Kernel {
    kernel(|inputs, outputs| {
        for (y, x) in outputs[0].f32_mut().iter_mut().zip(inputs[0].f32()) {
            *y = x + 1.0;
        }
    })
}

/// Its output is its input, in row-major order.
fn copy() -> Kernel {
    kernel(|inputs, outputs| outputs[0].bytes_mut().copy_from_slice(inputs[0].bytes()))
}

fn counting(shape: &[i32]) -> Array {
    let count = shape.iter().product();
    let numbers: Vec<f32> = (0..count).map(|number: i32| number as f32).collect();
    Array::from_slice(&numbers, shape)
}

#[test]
fn a_kernel_adds_and_scales() {
    let add_scaled = kernel(|inputs, outputs| {
        let [a, b] = inputs else { panic!("two inputs") };
        let items = outputs[0].f32_mut().iter_mut().zip(a.f32()).zip(b.f32());
        items.for_each(|((y, a), b)| *y = a + 0.5 * b);
    });
    let a = Array::from_slice(&[1.0_f32, 2.0, 3.0, 4.0], &[2, 2]);
    let b = Array::from_slice(&[10.0_f32, 20.0, 30.0, 40.0], &[2, 2]);
    let output = spec(&[2, 2], Dtype::Float32);
    let sum = add_scaled.apply_one(&[input(&a), input(&b)], output, &cpu_stream());
    let sum = sum.expect("the kernel fits");
    assert_eq!(sum.shape(), [2, 2]);
    assert_eq!(floats(&sum), [6.0, 12.0, 18.0, 24.0]);
}

#[test]
fn a_thousand_kernels_make_one_graph() {
    let increment = increment();
    let mut array = counting(&[4]);
    for _ in 0..1000 {
        array = map(&increment, &array);
    }
    assert_eq!(floats(&array), [1000.0, 1001.0, 1002.0, 1003.0]);
}

#[test]
fn kernels_and_operations_of_mlx_alternate() {
    let increment = increment();
    let mut array = counting(&[3]);
    for _ in 0..100 {
        // MLX computes in place where nobody else has the buffer.
        array = map(&increment, &array).add(&array).expect("the shapes fit");
        array = map(&increment, &array.multiply(Array::from_f32(0.5)).expect("a scalar fits"));
    }
    assert_eq!(floats(&array), [150.0, 151.0, 152.0]);
}

#[test]
fn what_depends_on_another_runs_after_it() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut array = counting(&[1]);
    for step in 0..100 {
        array = map(&logging(step, &log), &array);
    }
    assert_eq!(floats(&array), [0.0]);
    assert_eq!(*log.lock().expect("no kernel panicked"), (0..100).collect::<Vec<_>>());
}

#[test]
fn what_depends_on_another_stream_runs_after_it() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let streams = [cpu_stream(), Stream::new_with_device(&Device::cpu())];
    let mut array = counting(&[1]);
    for step in 0..100 {
        array = map_on(&logging(step, &log), &array, &streams[step % 2]);
    }
    assert_eq!(floats(&array), [0.0]);
    assert_eq!(*log.lock().expect("no kernel panicked"), (0..100).collect::<Vec<_>>());
}

#[test]
fn what_was_begun_with_async_eval_runs_in_order() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut array = counting(&[1]);
    for step in 0..100 {
        array = map(&logging(step, &log), &array);
        if step % 10 == 9 {
            async_eval([&array]).expect("the graph can be evaluated");
        }
    }
    assert_eq!(floats(&array), [0.0]);
    assert_eq!(*log.lock().expect("no kernel panicked"), (0..100).collect::<Vec<_>>());
}

fn logging(step: usize, log: &Arc<Mutex<Vec<usize>>>) -> Kernel {
    let log = Arc::clone(log);
    kernel(move |inputs, outputs| {
        outputs[0].f32_mut().copy_from_slice(inputs[0].f32());
        log.lock().expect("no kernel panicked").push(step);
    })
}

#[test]
fn nothing_runs_before_it_is_evaluated_and_then_once() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let array = map(
        &kernel(move |_, _| {
            counter.fetch_add(1, Ordering::Relaxed);
        }),
        &counting(&[1]),
    );
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    eval([&array, &array]).expect("the graph can be evaluated");
    assert_eq!(floats(&array), [0.0], "an output is zero until it is written");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[test]
fn a_kernel_runs_on_a_thread_of_its_stream() {
    let (sender, receiver) = channel();
    let whoami = kernel(move |_, _| {
        sender.send(thread::current().id()).expect("the test waits");
    });
    let streams = [cpu_stream(), cpu_stream(), Stream::new_with_device(&Device::cpu())];
    let [first, second, third] = streams.map(|stream| {
        floats(&map_on(&whoami, &counting(&[1]), &stream));
        receiver.recv_timeout(LONG).expect("the kernel has run")
    });
    assert_eq!(first, second);
    assert_ne!(first, third);
    assert_ne!(first, thread::current().id());
}

#[test]
fn a_kernel_sees_any_layout_in_row_major_order() {
    let x = counting(&[4, 6]);
    let cube = counting(&[2, 3, 4]);
    let layouts = [
        x.transpose().expect("a matrix"),
        x.index((1..3, ..)),
        x.index((.., 2..5)),
        x.index((1..3, 2..5)).transpose().expect("a matrix"),
        cube.transpose_axes(&[1, 0, 2]).expect("three axes"),
        cube.transpose_axes(&[2, 0, 1]).expect("three axes"),
        mlx_rs::ops::broadcast_to(counting(&[1, 6]), &[4, 6]).expect("one row becomes four"),
        mlx_rs::ops::broadcast_to(Array::from_f32(7.0), &[2, 3]).expect("a scalar"),
        x.index((1.., 3)),
        x.index((3, 5)),
    ];
    for layout in layouts {
        let expected = layout.contiguous().expect("any array can be");
        assert_eq!(floats(&map(&copy(), &layout)), floats(&expected), "{:?}", layout.shape());
    }
}

#[test]
fn a_strided_input_may_have_items_of_any_size() {
    for dtype in [Dtype::Bool, Dtype::Uint8, Dtype::Float16, Dtype::Float32, Dtype::Int64] {
        let x = counting(&[4, 6]).as_dtype(dtype).expect("numbers convert");
        let x = x.transpose().expect("a matrix");
        let copied = map(&copy(), &x).as_dtype(Dtype::Float32).expect("numbers convert");
        let expected = x.as_dtype(Dtype::Float32).and_then(|x| x.contiguous());
        assert_eq!(floats(&copied), floats(&expected.expect("numbers convert")), "{dtype:?}");
    }
}

#[test]
fn an_input_that_begins_between_words_is_aligned() {
    let bytes: Vec<u8> = [0].into_iter().chain(1.5_f32.to_ne_bytes()).chain([0; 3]).collect();
    let bytes = Array::from_slice(&bytes, &[8]).index(1..5);
    let x = bytes.view_dtype(Dtype::Float32).expect("four bytes are a float");
    let read = kernel(|inputs, outputs| outputs[0].f32_mut()[0] = inputs[0].f32()[0]);
    assert_eq!(floats(&map(&read, &x)), [1.5]);
}

#[test]
fn outputs_may_differ_in_dtype_and_shape() {
    let split = kernel(|inputs, outputs| {
        let [whole, rest, is_whole] = outputs else { panic!("three outputs") };
        assert_eq!(whole.shape(), [2, 2]);
        for (index, x) in inputs[0].f32().iter().enumerate() {
            whole.u32_mut()[index] = *x as u32;
            rest.f16_mut()[index] = half::f16::from_f32(x.fract());
            is_whole.bytes_mut()[0] |= u8::from(x.fract() == 0.0);
        }
    });
    let x = Array::from_slice(&[1.5_f32, 2.25, 3.0, 4.75], &[4]);
    let specs = [spec(&[2, 2], Dtype::Uint32), spec(&[4], Dtype::Float16), spec(&[], Dtype::Bool)];
    let outputs = split.apply(&[input(&x)], &specs, &cpu_stream()).expect("the kernel fits");
    eval(&outputs).expect("the graph can be evaluated");
    assert_eq!(outputs[0].as_slice::<u32>(), [1, 2, 3, 4]);
    let rest: Vec<f32> = outputs[1].as_slice::<half::f16>().iter().map(|x| x.to_f32()).collect();
    assert_eq!(rest, [0.5, 0.25, 0.0, 0.75]);
    assert_eq!(outputs[2].as_slice::<bool>(), [true]);
}

#[test]
fn one_of_several_outputs_is_enough_to_run_it() {
    let two = kernel(|_, outputs| outputs[1].f32_mut().fill(2.0));
    let specs = [spec(&[1 << 16], Dtype::Float32), spec(&[2], Dtype::Float32)];
    let mut outputs = two.apply(&[], &specs, &cpu_stream()).expect("the kernel fits");
    let second = outputs.pop().expect("two outputs");
    drop(outputs);
    assert_eq!(floats(&second), [2.0, 2.0]);
}

#[test]
fn a_kernel_is_dropped_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let count = || drops.load(Ordering::SeqCst);

    let array = map(&counted(&drops), &counting(&[1]));
    assert_eq!(count(), 0, "the graph has it");
    array.eval().expect("the graph can be evaluated");
    assert_eq!(count(), 1, "evaluated");
    drop(array);
    assert_eq!(count(), 1, "and not again");

    drop(map(&counted(&drops), &counting(&[1])));
    assert_eq!(count(), 2, "never evaluated");

    let specs = [spec(&[1], Dtype::Float32), spec(&[1], Dtype::Int32)];
    drop(counted(&drops).apply(&[], &specs, &cpu_stream()).expect("the kernel fits"));
    assert_eq!(count(), 3, "several outputs, never evaluated");

    counted(&drops).apply(&[], &[], &cpu_stream()).expect_err("no outputs");
    assert_eq!(count(), 4, "never in a graph");

    let shared = counted(&drops);
    let arrays = [map(&shared, &counting(&[1])), map(&shared, &counting(&[1]))];
    eval(&arrays).expect("the graph can be evaluated");
    assert_eq!(count(), 4, "the handle has it");
    drop(shared);
    assert_eq!(count(), 5, "with its last owner");
}

/// A kernel that counts when it is dropped.
fn counted(drops: &Arc<AtomicUsize>) -> Kernel {
    struct OnDrop(Arc<AtomicUsize>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let on_drop = OnDrop(Arc::clone(drops));
    kernel(move |_, _| {
        let _owned = &on_drop;
    })
}

#[test]
fn threads_evaluate_side_by_side() {
    const THREADS: usize = 4;
    let increment = increment();
    // Each kernel waits for the others, so they pass only if all are running at once.
    let barrier = Arc::new(Barrier::new(THREADS));
    let meet = {
        let barrier = Arc::clone(&barrier);
        kernel(move |inputs, outputs| {
            barrier.wait();
            outputs[0].f32_mut().copy_from_slice(inputs[0].f32());
        })
    };
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (increment, meet) = (increment.clone(), meet.clone());
            scope.spawn(move || {
                let stream = Stream::new_with_device(&Device::cpu());
                let mut array = Array::from_slice(&[number as f32], &[1]);
                array = map_on(&meet, &array, &stream);
                for _ in 0..200 {
                    array = map_on(&increment, &array, &stream);
                }
                assert_eq!(floats(&array), [number as f32 + 200.0]);
            });
        }
    });
}

#[test]
fn a_graph_can_be_evaluated_only_where_its_stream_was_made() {
    let array = map(&increment(), &counting(&[1]));
    let evaluation = thread::spawn(move || {
        array.eval().expect_err("the stream is another thread's").what().to_owned()
    });
    let message = evaluation.join().expect("no panic");
    assert!(message.contains("in current thread"), "{message}");
}

#[test]
fn a_wrong_shape_or_dtype_is_an_error_at_once() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let never = kernel(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let x = counting(&[2, 3]);
    let output = spec(&[1], Dtype::Float32);
    let error = |input: Input<'_>, outputs: &[OutputSpec<'_>]| {
        let result = never.apply(&[input], outputs, &cpu_stream());
        result.expect_err("refused").to_string()
    };

    let wrong = Input { name: "weights", shape: &[3, 2], ..input(&x) };
    assert_eq!(error(wrong, &[output]), "test: weights must have shape [3, 2], found [2, 3]");
    let wrong = Input { name: "weights", dtype: Dtype::Uint8, ..input(&x) };
    assert_eq!(error(wrong, &[output]), "test: weights must be Uint8, found Float32");
    assert_eq!(error(input(&x), &[]), "test: 0 outputs are not possible");
    let many = vec![output; OUTPUTS_MAX + 1];
    assert_eq!(error(input(&x), &many), "test: 65 outputs are not possible");
    for shape in [&[2, -1][..], &[i32::MAX; 3]] {
        let message = error(input(&x), &[output, spec(shape, Dtype::Float32)]);
        assert_eq!(message, format!("test: output 1 cannot have shape {shape:?}"));
    }
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    assert_eq!(never.take_panic(), None);
}

#[test]
fn a_panic_fails_the_evaluation() {
    let broken = kernel(|_, outputs| {
        outputs[0].f32_mut()[0] = 1.0;
        panic!("no such block: {}", 7);
    });
    let outputs = [spec(&[2], Dtype::Float32), spec(&[2], Dtype::Uint32)];
    let outputs = broken.apply(&[], &outputs, &cpu_stream()).expect("the kernel fits");
    let error = eval(&outputs).expect_err("the kernel panics");
    assert!(error.what().contains("test panicked: no such block: 7"), "{error}");
    assert_eq!(broken.take_panic().as_deref(), Some("test panicked: no such block: 7"));
    assert_eq!(broken.take_panic(), None);
    // Whoever reads on all the same does not take it for a result.
    assert!(floats(&outputs[0]).iter().all(|x| x.is_nan()));
    assert_eq!(outputs[1].as_slice::<u32>(), [0, 0]);

    // The stream has forgotten it.
    assert_eq!(floats(&map(&increment(), &counting(&[2]))), [1.0, 2.0]);
}

#[test]
fn a_panic_under_async_eval_is_reported_by_whoever_waits() {
    let broken = kernel(|inputs, _| {
        inputs[0].u32();
    });
    let array = map(&broken, &counting(&[2]));
    let after = map(&increment(), &array);
    async_eval([&after]).expect("the graph can be evaluated");
    let error = after.eval().expect_err("the kernel panics");
    assert!(error.what().contains("the array has another dtype"), "{error}");
    assert!(broken.take_panic().is_some());
    assert_eq!(floats(&map(&increment(), &counting(&[2]))), [1.0, 2.0]);
}

#[test]
fn arrays_may_be_empty() {
    let sizes = kernel(|inputs, outputs| {
        assert_eq!(inputs[0].shape(), [0, 3]);
        assert!(inputs[0].f32().is_empty());
        assert!(outputs[0].f32_mut().is_empty());
        outputs[1].f32_mut()[0] = 1.0;
    });
    let leaf = Array::from_slice::<f32>(&[], &[0, 3]);
    let slice = counting(&[2, 3]).index((2.., ..));
    let transposed = Array::from_slice::<f32>(&[], &[3, 0]).transpose().expect("a matrix");
    for empty in [leaf, slice, transposed] {
        let outputs = [spec(&[0], Dtype::Float32), spec(&[], Dtype::Float32)];
        let outputs = sizes.apply(&[input(&empty)], &outputs, &cpu_stream());
        let outputs = outputs.expect("the kernel fits");
        assert_eq!(floats(&outputs[1]), [1.0]);
        outputs[0].eval().expect("it has been");
        assert_eq!(outputs[0].shape(), [0]);
    }
}

#[test]
fn an_output_that_nobody_waits_for_is_still_written_safely() {
    let (gate, opens) = channel();
    let (done, is_done) = channel();
    let array = map(&gated(opens, done), &counting(&[1 << 20]));
    // Returns while the kernel has yet to begin, or this would never end.
    async_eval([&array]).expect("the graph can be evaluated");
    drop(array);
    // Would be given the buffer if it had been freed.
    let other = Array::zeros::<f32>(&[1 << 20]).expect("a size that fits");
    gate.send(()).expect("the kernel waits");
    is_done.recv_timeout(LONG).expect("the kernel has run");
    assert!(floats(&other).iter().all(|x| *x == 0.0));
}

/// A kernel that begins when told to, and tells when it ends.
fn gated(opens: Receiver<()>, done: Sender<()>) -> Kernel {
    let opens = Mutex::new(opens);
    kernel(move |_, outputs| {
        let opens = opens.lock().expect("no kernel panicked");
        opens.recv_timeout(LONG).expect("the test opens the gate");
        outputs[0].f32_mut().fill(9.0);
        done.send(()).expect("the test waits");
    })
}

#[test]
fn errors_can_be_compared() {
    let error = increment().apply(&[], &[], &cpu_stream()).expect_err("no outputs");
    assert_eq!(error, Error::OutputCount { kernel: "test", count: 0 });
}
