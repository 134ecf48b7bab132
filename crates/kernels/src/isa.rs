//! What this CPU can do, found out once at run time.

use std::sync::OnceLock;

/// The instruction set a kernel is written for. A value other than [`Isa::Scalar`] can only be had
/// from [`Isa::available`], so holding one proves that this CPU has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI, and what [`Level::Avx2`] has.
    Avx512,
}

impl Isa {
    /// The plain Rust version, which runs everywhere.
    pub const SCALAR: Isa = Isa(Level::Scalar);

    /// All that this CPU can run, slowest first.
    pub fn available() -> &'static [Isa] {
        static ALL: OnceLock<Vec<Isa>> = OnceLock::new();
        ALL.get_or_init(|| {
            let mut all = vec![Isa::SCALAR];
            #[cfg(target_arch = "x86_64")]
            {
                let avx2 = is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c");
                let avx512 = is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni");
                if avx2 {
                    all.push(Isa(Level::Avx2));
                }
                if avx2 && avx512 {
                    all.push(Isa(Level::Avx512));
                }
            }
            all
        })
    }

    /// The fastest that this CPU can run.
    pub fn best() -> Isa {
        *Isa::available().last().expect("the scalar version is always there")
    }

    pub fn level(self) -> Level {
        self.0
    }
}
