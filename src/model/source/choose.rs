//! Which files of a repository or folder make a model. Pure: names in, names out.

use super::Error;
use super::name::is_gguf;

/// Of several GGUF files and no choice, the first of these that is there. Q4_K_M is the usual
/// compromise; the others are what the loader reads, nearest to it in size first.
const PREFERRED: [&str; 9] =
    ["Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0", "BF16"];

/// Small files of a model folder, in the order they are fetched. Weights come last, so that a
/// download that was cut never looks whole.
const SMALL_FILES: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    INDEX,
];

pub(super) const INDEX: &str = "model.safetensors.index.json";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// The files of a model folder, all at its top.
    Folder(Vec<String>),
    /// One file, and the others one could have had if it was not the user who chose.
    Gguf { file: String, others: Vec<String> },
}

/// None if there is no model among these files.
pub(super) fn choose(
    name: &str,
    files: &[String],
    choice: Option<&str>,
) -> Result<Option<Needed>, Error> {
    let mut ggufs: Vec<&String> = files.iter().filter(|file| is_model_gguf(file)).collect();
    ggufs.sort();
    if let Some(choice) = choice {
        return chosen(name, &ggufs, choice).map(Some);
    }
    if let Some(needed) = folder(files) {
        return Ok(Some(needed));
    }
    let whole: Vec<&String> = ggufs.iter().copied().filter(|file| !is_split(file)).collect();
    match (whole.as_slice(), ggufs.first()) {
        ([], None) => Ok(None),
        ([], Some(part)) => Err(split(name, part)),
        ([only], _) => Ok(Some(Needed::Gguf { file: only.to_string(), others: vec![] })),
        (several, _) => preferred(name, several).map(Some),
    }
}

fn chosen(name: &str, ggufs: &[&String], choice: &str) -> Result<Needed, Error> {
    let is_file = |file: &&&String| {
        file.eq_ignore_ascii_case(choice) || base(file).eq_ignore_ascii_case(choice)
    };
    let is_quantisation = |file: &&&String| {
        quantisation(file).is_some_and(|label| label.eq_ignore_ascii_case(choice))
    };
    let found = ggufs.iter().find(is_file).or_else(|| ggufs.iter().find(is_quantisation));
    match found {
        Some(file) if is_split(file) => Err(split(name, file)),
        Some(file) => Ok(Needed::Gguf { file: file.to_string(), others: vec![] }),
        None => Err(Error::NoSuchFile {
            name: name.to_string(),
            choice: choice.to_string(),
            files: ggufs.iter().map(|file| file.to_string()).collect(),
        }),
    }
}

fn preferred(name: &str, ggufs: &[&String]) -> Result<Needed, Error> {
    let names = || ggufs.iter().map(|file| file.to_string());
    for label in PREFERRED {
        let found = ggufs.iter().find(|file| quantisation(file).as_deref() == Some(label));
        if let Some(file) = found {
            let others = names().filter(|other| other != *file).collect();
            return Ok(Needed::Gguf { file: file.to_string(), others });
        }
    }
    Err(Error::Undecided { name: name.to_string(), files: names().collect() })
}

/// A folder needs its configuration and weights. Subfolders hold copies in other formats
/// (`original/`, `onnx/`), other weights are `.bin` and `.pth` doubles of the safetensors.
fn folder(files: &[String]) -> Option<Needed> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let mut weights: Vec<String> = files.iter().filter(|file| is_weights(file)).cloned().collect();
    if weights.is_empty() || !has("config.json") {
        return None;
    }
    // `consolidated.safetensors` doubles what the index or `model.safetensors` names.
    if weights.iter().any(|file| file.starts_with("model")) {
        weights.retain(|file| file.starts_with("model"));
    }
    weights.sort();
    let small = SMALL_FILES.iter().filter(|name| has(name)).map(|name| name.to_string());
    Some(Needed::Folder(small.chain(weights).collect()))
}

fn is_weights(file: &str) -> bool {
    !file.contains('/') && file.ends_with(".safetensors")
}

/// Image projectors and importance matrices are GGUF files too, and no models.
fn is_model_gguf(file: &str) -> bool {
    let base = base(file).to_lowercase();
    is_gguf(&base) && !base.contains("mmproj") && !base.contains("imatrix")
}

fn base(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn split(name: &str, file: &str) -> Error {
    Error::SplitGguf { name: name.to_string(), file: file.to_string() }
}

/// `-00001-of-00003.gguf`
pub(super) fn is_split(file: &str) -> bool {
    shard_count(file).is_some()
}

/// The number of parts that a file's name says it is one of: `model-00001-of-00003.safetensors`.
pub(super) fn shard_count(file: &str) -> Option<usize> {
    let stem = base(file).rsplit_once('.')?.0;
    let (before, count) = stem.rsplit_once("-of-")?;
    let index = before.rsplit_once('-')?.1;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(index) && is_number(count)).then(|| count.parse().ok())?
}

/// `Q4_K_M` of `Qwen3-4B-Q4_K_M.gguf`, `Q4_1` of `SmolLM2.Q4_1.gguf`, in capitals.
pub(super) fn quantisation(file: &str) -> Option<String> {
    let base = base(file).to_uppercase();
    let stem = base.strip_suffix(".GGUF").unwrap_or(&base);
    stem.split(['-', '.']).rev().find_map(|part| {
        let starts = std::iter::once(0).chain(part.match_indices('_').map(|(at, _)| at + 1));
        starts.map(|at| &part[at..]).find(|label| is_label(label)).map(str::to_string)
    })
}

fn is_label(text: &str) -> bool {
    let bits = text.strip_prefix('I').unwrap_or(text).strip_prefix('Q');
    bits.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains('_'))
        || matches!(text, "F16" | "F32" | "BF16" | "FP16" | "FP32" | "MXFP4")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn gguf(names: &[&str], choice: Option<&str>) -> String {
        match choose("org/name", &files(names), choice) {
            Ok(Some(Needed::Gguf { file, .. })) => file,
            other => panic!("{names:?} {choice:?}: {other:?}"),
        }
    }

    #[test]
    fn a_file_name_tells_its_quantisation() {
        for (file, expected) in [
            ("Qwen3-4B-Q4_K_M.gguf", Some("Q4_K_M")),
            ("SmolLM2-135M-Instruct.Q4_1.gguf", Some("Q4_1")),
            ("qwen2.5-0.5b-instruct-q8_0.gguf", Some("Q8_0")),
            ("sub/model_q5_k_s.gguf", Some("Q5_K_S")),
            ("Model-IQ4_XS.gguf", Some("IQ4_XS")),
            ("Qwen3-UD-Q4_K_XL.gguf", Some("Q4_K_XL")),
            ("model-bf16.gguf", Some("BF16")),
            ("big-Q4_K_M-00001-of-00003.gguf", Some("Q4_K_M")),
            ("model.gguf", None),
            ("Q.gguf", None),
        ] {
            assert_eq!(quantisation(file).as_deref(), expected, "{file}");
        }
    }

    #[test]
    fn a_choice_is_a_file_or_a_quantisation_and_never_something_like_it() {
        let names = ["a-Q4_K_M.gguf", "a-Q4_K_S.gguf", "q/a-Q8_0.gguf", "mmproj-a-F16.gguf"];
        assert_eq!(gguf(&names, Some("Q8_0")), "q/a-Q8_0.gguf");
        assert_eq!(gguf(&names, Some("q4_k_s")), "a-Q4_K_S.gguf");
        assert_eq!(gguf(&names, Some("a-Q8_0.gguf")), "q/a-Q8_0.gguf");
        assert_eq!(gguf(&names, None), "a-Q4_K_M.gguf");
        for choice in ["Q4_K", "Q4", "F16", "b.gguf"] {
            match choose("org/name", &files(&names), Some(choice)) {
                Err(Error::NoSuchFile { files, .. }) => assert_eq!(files.len(), 3, "{choice}"),
                other => panic!("{choice}: {other:?}"),
            }
        }
    }

    #[test]
    fn without_a_choice_the_others_are_named_and_the_undecidable_is_refused() {
        let several = files(&["a-Q2_K.gguf", "a-Q6_K.gguf", "a-IQ4_XS.gguf"]);
        let expected = Needed::Gguf {
            file: "a-Q6_K.gguf".into(),
            others: files(&["a-IQ4_XS.gguf", "a-Q2_K.gguf"]),
        };
        assert_eq!(choose("n", &several, None).expect("a choice"), Some(expected));
        let odd = files(&["a-Q2_K.gguf", "a-IQ4_XS.gguf"]);
        assert!(matches!(choose("n", &odd, None), Err(Error::Undecided { .. })));
        assert_eq!(choose("n", &files(&["README.md"]), None).expect("no model"), None);
    }

    #[test]
    fn a_split_gguf_is_refused() {
        let names = files(&["a-Q4_K_M-00001-of-00002.gguf", "a-Q4_K_M-00002-of-00002.gguf"]);
        for choice in [None, Some("Q4_K_M"), Some("a-Q4_K_M-00002-of-00002.gguf")] {
            assert!(matches!(choose("n", &names, choice), Err(Error::SplitGguf { .. })));
        }
    }

    #[test]
    fn a_folder_is_fetched_without_doubles_and_weights_last() {
        let names = files(&[
            "model-00002-of-00002.safetensors",
            "README.md",
            "consolidated.safetensors",
            "original/consolidated.00.pth",
            "onnx/model.safetensors",
            "pytorch_model.bin",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "config.json",
            "chat_template.jinja",
        ]);
        let expected = files(&[
            "config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]);
        assert_eq!(choose("n", &names, None).expect("a folder"), Some(Needed::Folder(expected)));
    }
}
