//! What a kernel sees of its arrays while it runs: shape, dtype and items in row-major order.

use half::{bf16, f16};
use mlx_rs::Dtype;
use mlx_sys::semantic_view;
use std::marker::PhantomData;
use std::{ptr, slice};

/// An input.
// The layout is C's, so that an array of theirs is an array of ours.
#[repr(transparent)]
pub struct View<'a> {
    raw: semantic_view,
    items: PhantomData<&'a [u8]>,
}

/// An output. All its items are zero when the kernel begins.
#[repr(transparent)]
pub struct ViewMut<'a> {
    raw: semantic_view,
    items: PhantomData<&'a mut [u8]>,
}

/// A type that the items of an array can be read as.
///
/// # Safety
///
/// The type has the size of an item of `DTYPE`, needs no more than that for its alignment, and
/// every pattern of bits is a value of it. (Not so `bool`: MLX's are whatever byte was put there.)
pub unsafe trait Element: Copy + 'static {
    const DTYPE: Dtype;
    /// What the outputs of a kernel that panicked are filled with: not a number, or zero.
    const POISON: Self;
}

macro_rules! elements {
    ($($name:ident, $name_mut:ident, $dtype:ident, $poison:expr;)*) => {
        $(
            // SAFETY: a primitive number as wide as MLX's dtype of the same name.
            unsafe impl Element for $name {
                const DTYPE: Dtype = Dtype::$dtype;
                const POISON: Self = $poison;
            }
        )*

        impl<'a> View<'a> {
            $(
                #[track_caller]
                pub fn $name(&self) -> &'a [$name] {
                    self.items()
                }
            )*
        }

        impl ViewMut<'_> {
            $(
                #[track_caller]
                pub fn $name_mut(&mut self) -> &mut [$name] {
                    self.items_mut()
                }
            )*

            pub(crate) fn poison(&mut self) {
                match self.dtype() {
                    $(Dtype::$dtype => self.items_mut::<$name>().fill($poison),)*
                    Dtype::Bool | Dtype::Complex64 => self.bytes_mut().fill(0),
                }
            }
        }
    };
}

elements! {
    f16, f16_mut, Float16, f16::NAN;
    bf16, bf16_mut, Bfloat16, bf16::NAN;
    f32, f32_mut, Float32, f32::NAN;
    f64, f64_mut, Float64, f64::NAN;
    i8, i8_mut, Int8, 0;
    i16, i16_mut, Int16, 0;
    i32, i32_mut, Int32, 0;
    i64, i64_mut, Int64, 0;
    u8, u8_mut, Uint8, 0;
    u16, u16_mut, Uint16, 0;
    u32, u32_mut, Uint32, 0;
    u64, u64_mut, Uint64, 0;
}

impl<'a> View<'a> {
    /// # Safety
    ///
    /// `first` points to `count` views, or `count` is zero; each fulfils what `custom.h` says of
    /// an input, and nothing writes to its items, for as long as `'a`.
    pub(crate) unsafe fn from_raw(first: *const semantic_view, count: usize) -> &'a [View<'a>] {
        if count == 0 {
            return &[];
        }
        // SAFETY: the caller's promise; `View` has the layout of `semantic_view`.
        unsafe { slice::from_raw_parts(first.cast(), count) }
    }

    pub fn shape(&self) -> &'a [i32] {
        // SAFETY: `from_raw` was promised a shape that lives for `'a`.
        unsafe { shape(&self.raw) }
    }

    pub fn dtype(&self) -> Dtype {
        dtype(&self.raw)
    }

    /// The items as they lie in memory, of any dtype.
    pub fn bytes(&self) -> &'a [u8] {
        let first = start(&self.raw).cast_const();
        // SAFETY: `from_raw` was promised so many bytes, which nothing writes to for `'a`.
        unsafe { slice::from_raw_parts(first, self.raw.bytes) }
    }

    /// The items.
    ///
    /// # Panics
    ///
    /// If they are of another dtype.
    #[track_caller]
    pub fn items<T: Element>(&self) -> &'a [T] {
        let (first, count) = items::<T>(&self.raw);
        // SAFETY: as for `bytes`; `items` has checked dtype and alignment, and an `Element` may
        // have any bits.
        unsafe { slice::from_raw_parts(first.cast_const(), count) }
    }
}

impl<'a> ViewMut<'a> {
    /// # Safety
    ///
    /// `first` points to `count` views, or `count` is zero; each fulfils what `custom.h` says of
    /// an output, and nothing else reads or writes the views or their items, for as long as `'a`.
    pub(crate) unsafe fn from_raw(
        first: *mut semantic_view,
        count: usize,
    ) -> &'a mut [ViewMut<'a>] {
        if count == 0 {
            return &mut [];
        }
        // SAFETY: the caller's promise; `ViewMut` has the layout of `semantic_view`.
        unsafe { slice::from_raw_parts_mut(first.cast(), count) }
    }

    pub fn shape(&self) -> &'a [i32] {
        // SAFETY: `from_raw` was promised a shape that lives for `'a`.
        unsafe { shape(&self.raw) }
    }

    pub fn dtype(&self) -> Dtype {
        dtype(&self.raw)
    }

    /// The items as they lie in memory, of any dtype.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let first = start(&self.raw);
        // SAFETY: `from_raw` was promised so many bytes, all initialised, for this view alone, of
        // which `&mut self` is the only user.
        unsafe { slice::from_raw_parts_mut(first, self.raw.bytes) }
    }

    /// The items.
    ///
    /// # Panics
    ///
    /// If they are of another dtype.
    #[track_caller]
    pub fn items_mut<T: Element>(&mut self) -> &mut [T] {
        let (first, count) = items::<T>(&self.raw);
        // SAFETY: as for `bytes_mut`; `items` has checked dtype and alignment, and an `Element`
        // may have any bits.
        unsafe { slice::from_raw_parts_mut(first, count) }
    }
}

/// # Safety
///
/// The view's shape lives for `'a`.
unsafe fn shape<'a>(raw: &semantic_view) -> &'a [i32] {
    if raw.rank == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; `rank` counts the sizes (`Call::add_view` in `custom.cpp`).
    unsafe { slice::from_raw_parts(raw.shape, raw.rank) }
}

fn dtype(raw: &semantic_view) -> Dtype {
    Dtype::try_from(raw.dtype).expect("mlx-rs knows every dtype of mlx-c")
}

/// Where the bytes begin; a place that may be pointed to if there are none.
fn start(raw: &semantic_view) -> *mut u8 {
    if raw.bytes == 0 { ptr::dangling_mut() } else { raw.data.cast() }
}

#[track_caller]
fn items<T: Element>(raw: &semantic_view) -> (*mut T, usize) {
    assert_eq!(dtype(raw), T::DTYPE, "the array has another dtype");
    if raw.bytes == 0 {
        return (ptr::dangling_mut(), 0);
    }
    let first: *mut T = raw.data.cast();
    assert!(first.is_aligned(), "custom.cpp copies what is not aligned");
    (first, raw.bytes / size_of::<T>())
}
