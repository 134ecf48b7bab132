//! Blocks outside the pool: what names one, what a save says of one, and its bytes.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::header::Header;
use crate::types::{Fingerprint, KvElement, KvTensor, Namespace};

/// Names a block by everything it depends on: namespace, tokens from the conversation's begin on,
/// model, settings and bytes. Equal names are equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockName(pub(super) [u8; 32]);

/// A block as a save names it: enough to find the file and to know that it is the one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockRef {
    pub name: BlockName,
    /// Of the whole file, under a key of the namespace.
    pub digest: [u8; 32],
    pub tokens: usize,
    pub file_bytes: u64,
}

/// What the store has to know of a model: which blocks fit it, and what they are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvModel {
    pub fingerprint: Fingerprint,
    pub name: String,
    /// Path and release that computes the KV. For people to read; decides nothing.
    pub producer: String,
    /// In the order of a block's bytes.
    pub tensors: Vec<KvTensor>,
}

/// A block that is ready to be written.
pub struct SealedBlock {
    pub block: BlockRef,
    pub(super) namespace: Namespace,
    pub(super) parent: Option<BlockName>,
    pub(super) header: Arc<Header>,
    pub(super) kv: Vec<u8>,
}

/// The verified KV of a block, in the buffer that its whole file was read into.
pub struct KvBytes {
    pub(super) buffer: Vec<u8>,
    pub(super) kv: Range<usize>,
}

impl BlockName {
    pub fn new(bytes: [u8; 32]) -> BlockName {
        BlockName(bytes)
    }
}

impl KvModel {
    /// Bytes of the KV of a block of so many tokens.
    pub fn kv_bytes(&self, tokens: usize) -> usize {
        self.tensors.iter().map(|tensor| tensor.bytes(tokens)).sum()
    }

    /// Whether every float in the KV of a block of so many tokens is a finite number. Codes are
    /// whole numbers and always are; their scales may not be.
    pub fn is_finite(&self, tokens: usize, kv: &[u8]) -> bool {
        let mut rest = kv;
        self.tensors.iter().all(|tensor| {
            let Some((bytes, after)) = rest.split_at_checked(tensor.bytes(tokens)) else {
                return false;
            };
            rest = after;
            is_finite(Some(tensor.element), bytes)
        })
    }
}

/// The same of one tensor; what has no element that is known is not.
pub(super) fn is_finite(element: Option<KvElement>, bytes: &[u8]) -> bool {
    match element {
        Some(KvElement::F16) => all_finite(bytes.as_chunks().0, f16_is_finite),
        Some(KvElement::F32) => all_finite(bytes.as_chunks().0, f32_is_finite),
        Some(KvElement::U8 | KvElement::U64) => true,
        None => false,
    }
}

/// Without an early exit, so that the compiler uses wide registers.
fn all_finite<const N: usize>(values: &[[u8; N]], is_finite: fn([u8; N]) -> bool) -> bool {
    values.iter().fold(true, |all, value| all & is_finite(*value))
}

/// The exponent of infinities and of what is no number is all ones.
fn f16_is_finite(bytes: [u8; 2]) -> bool {
    const EXPONENT: u16 = 0x7c00;
    u16::from_le_bytes(bytes) & EXPONENT != EXPONENT
}

fn f32_is_finite(bytes: [u8; 4]) -> bool {
    f32::from_le_bytes(bytes).is_finite()
}

impl SealedBlock {
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub fn kv(&self) -> &[u8] {
        &self.kv
    }

    /// Gives the KV back.
    pub fn into_kv(self) -> Vec<u8> {
        self.kv
    }
}

impl KvBytes {
    /// The memory, for the next block.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl Deref for KvBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.kv.clone()]
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::KvAxis;

    fn tensor(name: &str, element: KvElement) -> KvTensor {
        KvTensor { name: name.to_owned(), element, shape: vec![KvAxis::Tokens, KvAxis::Fixed(2)] }
    }

    #[test]
    fn one_value_that_is_not_finite_is_found_wherever_it_is() {
        let model = KvModel {
            fingerprint: Fingerprint([0; 32]),
            name: String::new(),
            producer: String::new(),
            tensors: vec![
                tensor("codes", KvElement::U8),
                tensor("scales", KvElement::F16),
                tensor("values", KvElement::F32),
                tensor("state", KvElement::U64),
            ],
        };
        let tokens = 3;
        // All ones is a code and a state, and no float.
        let mut kv = vec![0xff; model.kv_bytes(tokens)];
        let (scales, values, state) = (6, 6 + 12, 6 + 12 + 24);
        kv[scales..state].fill(0);
        // The largest of each.
        kv[scales..scales + 2].copy_from_slice(&0x7bff_u16.to_le_bytes());
        kv[values..values + 4].copy_from_slice(&f32::MAX.to_le_bytes());
        assert!(model.is_finite(tokens, &kv));
        for index in 0..6 {
            for bits in [0x7c00_u16, 0xfc00, 0x7e00, 0x7c01] {
                let mut kv = kv.clone();
                kv[scales + 2 * index..][..2].copy_from_slice(&bits.to_le_bytes());
                assert!(!model.is_finite(tokens, &kv), "scale {index} {bits:x}");
            }
            for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                let mut kv = kv.clone();
                kv[values + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
                assert!(!model.is_finite(tokens, &kv), "value {index} {value}");
            }
        }
        assert!(!model.is_finite(tokens, &kv[..kv.len() - 1]));
    }
}
