//! Puts a kernel into a graph, and runs it when MLX says so.

use crate::error::Error;
use crate::view::{View, ViewMut};
use mlx_rs::{Array, Dtype, Stream, thread_local_default_stream};
use mlx_sys::{mlx_array, semantic_kernel, semantic_output, semantic_view};
use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

/// MLX makes a list of all others for each output, so their number counts squared.
pub const OUTPUTS_MAX: usize = 64;

/// Enough for a sentence; longer messages are cut.
const MESSAGE_BYTES: usize = 512;

/// What to compute.
pub trait CpuKernel: Send + Sync + 'static {
    /// Begins every error message about it.
    fn name(&self) -> &'static str;

    /// Fills the outputs, which are all zero, from the inputs, whose shapes and dtypes are those
    /// checked when the kernel was applied.
    ///
    /// Runs on the thread of an MLX stream, and everything else on that stream waits for it. It
    /// must not call MLX, nor wait for the thread that evaluates, which may be waiting for it. A
    /// panic fails the evaluation and fills the outputs with NaN (integers: zero).
    fn run(&self, inputs: &[View<'_>], outputs: &mut [ViewMut<'_>]);
}

/// An array for a kernel, and what the kernel takes it to be.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// For the error message.
    pub name: &'a str,
    pub array: &'a Array,
    pub shape: &'a [i32],
    pub dtype: Dtype,
}

#[derive(Clone, Copy)]
pub struct OutputSpec<'a> {
    pub shape: &'a [i32],
    pub dtype: Dtype,
}

/// A kernel ready to be applied. Clones share it; graphs own it until they have been evaluated or
/// dropped, and the last owner, on whatever thread, drops it.
#[derive(Clone)]
pub struct Kernel {
    shared: Arc<Shared>,
}

struct Shared {
    kernel: Box<dyn CpuKernel>,
    first_panic: Mutex<Option<String>>,
}

impl Kernel {
    pub fn new(kernel: impl CpuKernel) -> Kernel {
        let shared = Shared { kernel: Box::new(kernel), first_panic: Mutex::new(None) };
        Kernel { shared: Arc::new(shared) }
    }

    /// Adds the kernel to the graph; its outputs are computed when they are evaluated, which has
    /// to happen on the thread that `stream` was made on.
    ///
    /// Inputs need not be contiguous: those that are not are copied first, each time.
    pub fn apply(
        &self,
        inputs: &[Input<'_>],
        outputs: &[OutputSpec<'_>],
        stream: &Stream,
    ) -> Result<Vec<Array>, Error> {
        self.check_inputs(inputs)?;
        self.check_outputs(outputs)?;
        let inputs: Vec<mlx_array> = inputs.iter().map(|input| input.array.as_ptr()).collect();
        let specs: Vec<semantic_output> = outputs.iter().map(|output| output.to_raw()).collect();
        let mut handles = vec![mlx_array { ctx: ptr::null_mut() }; outputs.len()];
        let mut message = [0; MESSAGE_BYTES];
        // SAFETY: the pointers are to `specs.len()` and `inputs.len()` valid items, the inputs'
        // handles are those of living arrays, the shapes in `specs` those of `outputs`, all
        // checked above; the message is as long as said. The payload is an `Arc<Shared>` of which
        // this call gives one count away, and `run` and `drop_shared` take it for one.
        let status = unsafe {
            mlx_sys::semantic_custom(
                handles.as_mut_ptr(),
                specs.as_ptr(),
                specs.len(),
                inputs.as_ptr(),
                inputs.len(),
                semantic_kernel {
                    run: Some(run),
                    drop: Some(drop_shared),
                    payload: Arc::into_raw(Arc::clone(&self.shared)).cast_mut().cast(),
                },
                stream.as_ptr(),
                message.as_mut_ptr(),
                message.len(),
            )
        };
        let to_array = |handle| {
            // SAFETY: `semantic_custom` leaves new handles, or empty ones if it fails, which are
            // the caller's to free. Nobody else has them.
            unsafe { Array::from_ptr(handle) }
        };
        let arrays = handles.into_iter().map(to_array).collect();
        match status {
            0 => Ok(arrays),
            _ => Err(Error::Mlx { kernel: self.name(), message: text(&message) }),
        }
    }

    /// [`Kernel::apply`] for a kernel that has one output.
    pub fn apply_one(
        &self,
        inputs: &[Input<'_>],
        output: OutputSpec<'_>,
        stream: &Stream,
    ) -> Result<Array, Error> {
        let arrays = self.apply(inputs, &[output], stream)?;
        Ok(arrays.into_iter().next().expect("as many arrays as outputs"))
    }

    /// What the kernel said when it first panicked since this was last asked. Settled once the
    /// evaluation has returned, whose error says the same.
    pub fn take_panic(&self) -> Option<String> {
        self.shared.first_panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn name(&self) -> &'static str {
        self.shared.kernel.name()
    }

    fn check_inputs(&self, inputs: &[Input<'_>]) -> Result<(), Error> {
        for input in inputs {
            let dtype = input.array.dtype();
            if dtype != input.dtype {
                return Err(Error::Dtype {
                    kernel: self.name(),
                    input: input.name.to_owned(),
                    expected: input.dtype,
                    found: dtype,
                });
            }
            let shape = input.array.shape();
            if shape != input.shape {
                return Err(Error::Shape {
                    kernel: self.name(),
                    input: input.name.to_owned(),
                    expected: input.shape.to_vec(),
                    found: shape.to_vec(),
                });
            }
        }
        Ok(())
    }

    fn check_outputs(&self, outputs: &[OutputSpec<'_>]) -> Result<(), Error> {
        let (kernel, count) = (self.name(), outputs.len());
        if count == 0 || count > OUTPUTS_MAX {
            return Err(Error::OutputCount { kernel, count });
        }
        for (index, output) in outputs.iter().enumerate() {
            if !is_possible(output.shape) {
                return Err(Error::OutputShape { kernel, index, shape: output.shape.to_vec() });
            }
        }
        Ok(())
    }
}

impl OutputSpec<'_> {
    fn to_raw(self) -> semantic_output {
        semantic_output {
            shape: self.shape.as_ptr(),
            rank: self.shape.len(),
            dtype: self.dtype.into(),
        }
    }
}

/// The stream that MLX's operations on the CPU use on this thread. On macOS, unlike the default
/// stream, which is the GPU's.
pub fn cpu_stream() -> Stream {
    match thread_local_default_stream() {
        Some(stream) if is_on_cpu(&stream) => stream,
        _ => Stream::cpu(),
    }
}

fn is_on_cpu(stream: &Stream) -> bool {
    let mut kind = mlx_sys::mlx_device_type__MLX_GPU;
    // SAFETY: `mlx_device_new` makes an empty handle for the next call to fill, which the last
    // frees; the stream is borrowed for as long.
    unsafe {
        let mut device = mlx_sys::mlx_device_new();
        if mlx_sys::mlx_stream_get_device(&mut device, stream.as_ptr()) == 0 {
            mlx_sys::mlx_device_get_type(&mut kind, device);
        }
        mlx_sys::mlx_device_free(device);
    }
    kind == mlx_sys::mlx_device_type__MLX_CPU
}

/// No size is negative, and the bytes of the widest items can be counted in an `isize`.
fn is_possible(shape: &[i32]) -> bool {
    const ITEM_BYTES_MAX: usize = 8;
    let mut bytes = ITEM_BYTES_MAX;
    for &size in shape {
        let Some(product) = usize::try_from(size).ok().and_then(|size| bytes.checked_mul(size))
        else {
            return false;
        };
        bytes = product;
    }
    isize::try_from(bytes).is_ok()
}

/// What MLX calls, see `custom.h`.
///
/// # Safety
///
/// `payload` is of [`Kernel::apply`], and the views fulfil what `custom.h` says for as long as the
/// call lasts. `message` points to `capacity` bytes.
unsafe extern "C" fn run(
    payload: *mut c_void,
    inputs: *const semantic_view,
    input_count: usize,
    outputs: *mut semantic_view,
    output_count: usize,
    message: *mut c_char,
    capacity: usize,
) -> c_int {
    // SAFETY: `apply` made it of an `Arc<Shared>`, of which the task that calls this owns a count.
    let shared = unsafe { &*payload.cast::<Shared>() };
    // SAFETY: `Call` in `custom.cpp` owns a share of every buffer, so that MLX neither frees nor
    // reuses one, and of the shapes.
    let inputs = unsafe { View::from_raw(inputs, input_count) };
    // SAFETY: the same; `Call` has just allocated and zeroed each output's buffer, which whatever
    // else MLX does with it waits for this call.
    let outputs = unsafe { ViewMut::from_raw(outputs, output_count) };
    // What a panic leaves behind is seen by nobody but the kernel, whose own matter it is: the
    // outputs are overwritten.
    let outcome = catch_unwind(AssertUnwindSafe(|| shared.kernel.run(inputs, outputs)));
    let Err(panic) = outcome else {
        return 0;
    };
    for output in outputs {
        output.poison();
    }
    let sentence = format!("{} panicked: {}", shared.kernel.name(), describe(panic.as_ref()));
    forget_quietly(panic);
    // SAFETY: the caller's promise; `Call::run` in `custom.cpp` has the room on its stack.
    unsafe { write_message(&sentence, message, capacity) };
    let mut first = shared.first_panic.lock().unwrap_or_else(PoisonError::into_inner);
    first.get_or_insert(sentence);
    1
}

/// # Safety
///
/// `payload` is of [`Kernel::apply`], and this is the one call for it.
unsafe extern "C" fn drop_shared(payload: *mut c_void) {
    // SAFETY: the count that `apply` gave away.
    let shared = unsafe { Arc::from_raw(payload.cast_const().cast::<Shared>()) };
    // A kernel's own `drop` must not unwind into MLX either.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(shared))) {
        forget_quietly(panic);
    }
}

fn describe(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "it gave no text"
    }
}

/// Drops what a panic carried, which may be anything, even something that panics when dropped.
fn forget_quietly(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        mem::forget(again);
    }
}

/// # Safety
///
/// `message` points to `capacity` bytes that may be written.
unsafe fn write_message(sentence: &str, message: *mut c_char, capacity: usize) {
    let Some(room) = capacity.checked_sub(1) else {
        return;
    };
    let length = sentence.floor_char_boundary(room);
    // SAFETY: `length` and the nul after it are at most `capacity`, which the caller vouches for.
    unsafe {
        ptr::copy_nonoverlapping(sentence.as_ptr().cast(), message, length);
        *message.add(length) = 0;
    }
}

fn text(message: &[c_char; MESSAGE_BYTES]) -> String {
    // SAFETY: C++ ended it with a nul, or left the zeros that it was made of.
    let text = unsafe { CStr::from_ptr(message.as_ptr()) };
    text.to_string_lossy().into_owned()
}
