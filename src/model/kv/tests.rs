//! The pool from inside: where its buffers are, and how large a token is.

use super::*;

impl Kv {
    /// The address of every buffer of the pool.
    pub fn addresses(&self) -> Vec<usize> {
        let address = |array: &Array| match array.dtype() {
            Dtype::Uint32 => array.as_slice::<u32>().as_ptr() as usize,
            Dtype::Float16 => array.as_slice::<half::f16>().as_ptr() as usize,
            _ => array.as_slice::<f32>().as_ptr() as usize,
        };
        self.parts().flat_map(|part| part.arrays.all()).map(address).collect()
    }
}

fn pool(setting: &str) -> Kv {
    Kv::new(setting.parse().unwrap(), 2, 3, 64, 4).unwrap()
}

/// Writes two tokens that lie apart, and evaluates.
fn append(kv: &mut Kv) {
    let x = Array::from_iter((0..2 * 3 * 64).map(|i| i as f32), &[2, 3, 64]);
    let runs = [Run { slot: 7, token: 0, len: 1 }, Run { slot: 700, token: 1, len: 1 }];
    for layer in 0..2 {
        kv.append(layer, &runs, &x, &x).unwrap();
    }
    kv.evaluate(&[]).unwrap();
}

#[test]
fn appending_and_importing_happen_in_place() {
    for setting in ["32", "16", "8", "4", "8/4r"] {
        let mut kv = pool(setting);
        let before = kv.addresses();
        append(&mut kv);
        let bytes = kv.export(BlockId(0), 9).unwrap();
        kv.import(BlockId(3), 9, &bytes).unwrap();
        append(&mut kv);
        assert_eq!(kv.addresses(), before, "{setting}");
    }
}

/// What the test above guards against, so that we know it would see it.
#[test]
fn a_second_handle_makes_appending_copy_that_array() {
    let mut kv = pool("16");
    let before = kv.addresses();
    let second = kv.layers[0].key.arrays.all()[0].clone();
    append(&mut kv);
    drop(second);
    let after = kv.addresses();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1..], before[1..]);
}

#[test]
fn a_token_of_smollm2_takes_what_the_design_says() {
    // 30 layers, three KV heads of 64.
    let token_bytes = |setting: &str| {
        let kv = Kv::new(setting.parse().unwrap(), 30, 3, 64, 1).unwrap();
        kv.layer_specs().iter().map(|layer| layer.key_bytes + layer.value_bytes).sum::<usize>()
    };
    assert_eq!(["16", "8", "8/4", "4"].map(token_bytes), [23_040, 12_240, 9_360, 6_480]);
}

#[test]
fn neighbouring_blocks_are_one_run() {
    let blocks = [2, 3, 0, 1].map(BlockId);
    let run = |slot, token, len| Run { slot, token, len };
    assert_eq!(runs(&blocks, 0, 1024, 0), [run(512, 0, 512), run(0, 512, 512)]);
    assert_eq!(runs(&blocks, 250, 530, 10), [run(762, 10, 262), run(0, 272, 18)]);
}
