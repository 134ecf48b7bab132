//! The C API of MLX: bindings made at build time from mlx-c's headers, and from
//! `cpp/custom.h`, which adds an operation that runs a caller's function on the CPU.

#![allow(non_upper_case_globals, non_camel_case_types, non_snake_case, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

/// The version of the MLX library that was found at run time, such as `0.32.2`.
pub fn linked_version() -> String {
    // SAFETY: `mlx_version` takes a string made by `mlx_string_new` and fills it; the data stays
    // valid, and ends with a nul, until the string is freed. It touches no device.
    unsafe {
        let mut string = mlx_string_new();
        let status = mlx_version(&mut string);
        assert_eq!(status, 0, "mlx_version cannot fail");
        let text = std::ffi::CStr::from_ptr(mlx_string_data(string));
        let version = text.to_string_lossy().into_owned();
        mlx_string_free(string);
        version
    }
}
