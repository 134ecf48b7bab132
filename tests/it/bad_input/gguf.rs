//! GGUF files that are damaged.

use super::*;

#[test]
fn a_damaged_gguf() {
    let absurd = (1u64 << 63).to_le_bytes();
    check_gguf(
        Vec::clear,
        expect![[r#"
        error: model.gguf is not a usable model: the file is empty
    "#]],
    );
    check_gguf(
        |bytes| bytes.truncate(3),
        expect![[r#"
        error: model.gguf is not a usable model: the file ends at byte 3, inside its header
    "#]],
    );
    check_gguf(
        |bytes| bytes.truncate(30),
        expect![[r#"
        error: model.gguf is not a usable model: the file ends at byte 30, inside its header
    "#]],
    );
    check_gguf(
        |bytes| bytes.truncate(bytes.len() / 2),
        expect![[r#"
            error: model.gguf: tensor "blk.0.attn_output.weight": lies outside the file of 126944 bytes; the file is truncated or damaged
        "#]],
    );
    check_gguf(
        |bytes| put(bytes, 0, b"GGML"),
        expect![[r#"
        error: model.gguf is not a usable model: it does not begin with the letters GGUF
    "#]],
    );
    check_gguf(
        |bytes| put(bytes, 4, &[99]),
        expect![[r#"
        error: model.gguf is not a usable model: GGUF version 99 is not supported; supported: 2, 3
    "#]],
    );
    check_gguf(
        |bytes| put(bytes, 8, &absurd),
        expect![[r#"
        error: model.gguf is not a usable model: claims 9223372036854775808 tensors; at most 1048576
    "#]],
    );
    check_gguf(
        |bytes| put(bytes, 16, &absurd),
        expect![[r#"
        error: model.gguf is not a usable model: claims 9223372036854775808 metadata entries; at most 1048576
    "#]],
    );
    check_gguf(
        |bytes| put(bytes, 24, &absurd),
        expect![[r#"
        error: model.gguf is not a usable model: a string of 9223372036854775808 bytes with 253856 bytes of file left
    "#]],
    );
    let array = |bytes: &mut Vec<u8>| {
        let at = after(bytes, "tokenizer.ggml.tokens");
        put(bytes, at + 8, &absurd);
    };
    check_gguf(
        array,
        expect![[r#"
        error: model.gguf is not a usable model: tokenizer.ggml.tokens: an array of 9223372036854775808 elements does not fit the file
    "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "general.architecture", "general.architectura"),
        expect![[r#"
            error: model.gguf is not a usable model: general.architecture is missing
        "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "llama.embedding_length", "llama.embedding_lengtt"),
        expect![[r#"
            error: model.gguf is not a usable model: hidden_size is missing
        "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "blk.1.ffn_up", "blk.1.ffn_zz"),
        expect![[r#"
            error: model.gguf: tensor "blk.1.ffn_up.weight" is missing
        "#]],
    );
    let dimension = |bytes: &mut Vec<u8>, new: u64| {
        let at = after(bytes, "blk.1.ffn_up.weight");
        put(bytes, at + 4, &new.to_le_bytes());
    };
    check_gguf(
        |bytes| dimension(bytes, 32),
        expect![[r#"
            error: model.gguf: tensor "blk.1.ffn_up.weight": has shape [96, 32], the configuration says [96, 64]
        "#]],
    );
    check_gguf(
        |bytes| dimension(bytes, u64::MAX),
        expect![[r#"
        error: model.gguf: tensor "blk.1.ffn_up.weight": absurd shape [96, 18446744073709551615]
    "#]],
    );
    let dimensions = |bytes: &mut Vec<u8>| {
        let at = after(bytes, "blk.1.ffn_up.weight");
        put(bytes, at, &[200]);
    };
    check_gguf(
        dimensions,
        expect![[r#"
        error: model.gguf is not a usable model: tensor "blk.1.ffn_up.weight": has 200 dimensions; at most 4
    "#]],
    );
    let kind = |bytes: &mut Vec<u8>| {
        let at = after(bytes, "blk.1.ffn_up.weight");
        put(bytes, at + 20, &[10]);
    };
    check_gguf(
        kind,
        expect![[r#"
        error: model.gguf: tensor "blk.1.ffn_up.weight" has type Q2_K, which is not supported; supported: F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K
    "#]],
    );
    let architecture = |bytes: &mut Vec<u8>| {
        let at = after(bytes, "general.architecture");
        put(bytes, at + 12, b"gemma");
    };
    check_gguf(
        architecture,
        expect![[r#"
        error: model.gguf: model type "gemma" is not supported; supported: llama, mistral, qwen2, qwen3, gemma3, gemma3_text
    "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "gpt2", "wpm?"),
        expect![[r#"
        error: model.gguf: tokenizer.ggml.model "wpm?" is not supported
    "#]],
    );
    check_gguf(
        |bytes| replace(bytes, "tokenizer.ggml.merges", "tokenizer.ggml.mergez"),
        expect![[r#"
            error: model.gguf: the vocabulary in the GGUF file is not valid: it has no merges
        "#]],
    );
    check_gguf(
        |bytes| *bytes = read(&data("gguf/unsupported.gguf")),
        expect![[r#"
        error: model.gguf: tensor "bad.weight" has type Q2_K, which is not supported; supported: F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K
    "#]],
    );
    check_gguf(
        |bytes| *bytes = read(&data("gguf/types.gguf")),
        expect![[r#"
        error: model.gguf is not a usable model: hidden_size is missing
    "#]],
    );
}
