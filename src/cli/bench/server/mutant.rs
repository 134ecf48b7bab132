//! Bodies of requests that are nearly right: the same ones for the same seed.

use serde_json::{Value as Json, json};

/// Bytes that matter to JSON, and some that no text has.
const NOISE: &[u8] = b"{}[]\",:0123456789-+.eE\\utfnl \n\x00\x7f\xff\xc3";
/// Values that are valid JSON, or nearly, and that no field takes.
const ODD: &[&str] = &[
    "null",
    "-1",
    "1e309",
    "-0.0",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "true",
    "[[[[]]]]",
    "\"\\ud800\"",
    "NaN",
    "1.5",
    "[null]",
    "{\"a\":{}}",
    "\"\\u0000\"",
    "[7,8]",
];

/// A request with a mistake or several, as a grammar and as bytes.
pub fn mutant(dice: &mut Dice, whole: &Json) -> Vec<u8> {
    let mut body = whole.clone();
    for _ in 0..dice.below(4) {
        mutate(dice, &mut body);
    }
    let odd = ODD[dice.below(ODD.len())];
    let mut bytes = body.to_string().replace("\"MARK\"", odd).into_bytes();
    for _ in 0..dice.below(3) {
        let at = dice.below(bytes.len());
        match dice.below(4) {
            0 => bytes[at] = NOISE[dice.below(NOISE.len())],
            1 => bytes.insert(at, NOISE[dice.below(NOISE.len())]),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => bytes.truncate(at + 1),
        }
    }
    bytes
}

/// Changes something at any depth.
fn mutate(dice: &mut Dice, value: &mut Json) {
    let is_deeper = dice.below(3) > 0;
    match value {
        Json::Object(fields) if !fields.is_empty() => {
            let place = dice.below(fields.len());
            let Some(name) = fields.keys().nth(place).cloned() else { return };
            match dice.below(3) {
                _ if is_deeper => mutate(dice, &mut fields[&name]),
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert(format!("{name}x"), json!(1))),
                _ => fields[&name] = json!("MARK"),
            }
        }
        Json::Array(items) if !items.is_empty() => {
            let place = dice.below(items.len());
            match dice.below(3) {
                _ if is_deeper => mutate(dice, &mut items[place]),
                0 => drop(items.remove(place)),
                1 => items.push(items[place].clone()),
                _ => items[place] = json!("MARK"),
            }
        }
        value => *value = json!("MARK"),
    }
}

/// SplitMix64 (Steele et al., 2014).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}
