//! What a user may write after `--model`. Pure but for the one question whether a path exists.

use super::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// A model's name as the user gave it, sorted by where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// A `.gguf` file or a model folder.
    Path(PathBuf),
    /// A repository on the Hugging Face hub.
    Hub(HubName),
    /// A name of the catalogue, not yet looked up.
    Short(String),
}

/// `org/name[@revision][:QUANT or FILE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    pub org: String,
    pub name: String,
    /// A branch, tag or commit; `main` if none.
    pub revision: Option<String>,
    /// Which of several GGUF files: a file's name, or a quantisation as in `Q8_0`.
    pub choice: Option<String>,
}

impl ModelName {
    /// A thing that exists is a path, and so is what can only be meant as one.
    pub fn parse(text: &str) -> Result<ModelName, Error> {
        Self::parse_with(text, Path::exists)
    }

    fn parse_with(text: &str, exists: impl Fn(&Path) -> bool) -> Result<ModelName, Error> {
        let bad = |reason| Error::BadName { name: text.to_string(), reason };
        let path = Path::new(text);
        let is_explicit = ["/", "./", "../", "~"].iter().any(|start| text.starts_with(start));
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.contains('\0') {
            return Err(bad("it contains a zero byte"));
        }
        if is_explicit || text == "." || text == ".." || exists(path) {
            return Ok(ModelName::Path(path.into()));
        }
        if let Some(hub) = HubName::parse(text) {
            // `models/llama.gguf` is a file that is missing, not a repository of that name.
            let is_file = hub.choice.is_none() && is_gguf(text);
            return Ok(if is_file { ModelName::Path(path.into()) } else { ModelName::Hub(hub) });
        }
        if is_gguf(text) {
            return Ok(ModelName::Path(path.into()));
        }
        if is_word(text) {
            return Ok(ModelName::Short(text.to_string()));
        }
        Err(bad("no such path, and neither org/name[@revision][:QUANT or FILE] nor a short name"))
    }
}

impl HubName {
    fn parse(text: &str) -> Option<HubName> {
        let (rest, choice) = split_optional(text, ':')?;
        let (repo, revision) = split_optional(rest, '@')?;
        let (org, name) = repo.split_once('/')?;
        let is_valid = is_word(org)
            && is_word(name)
            && revision.is_none_or(is_safe_path)
            && choice.is_none_or(is_safe_path);
        is_valid.then(|| HubName {
            org: org.to_string(),
            name: name.to_string(),
            revision: revision.map(str::to_string),
            choice: choice.map(str::to_string),
        })
    }

    /// `org/name`, as the hub calls it.
    pub fn repo(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }

    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The same repository and revision, with this choice of file.
    pub(super) fn with_choice(&self, choice: &str) -> HubName {
        HubName { choice: Some(choice.to_string()), ..self.clone() }
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.choice {
            Some(choice) => write!(f, ":{choice}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelName::Path(path) => path.display().fmt(f),
            ModelName::Hub(hub) => hub.fmt(f),
            ModelName::Short(name) => f.write_str(name),
        }
    }
}

pub(super) fn is_gguf(name: &str) -> bool {
    name.len() > 5 && name.as_bytes()[name.len() - 5..].eq_ignore_ascii_case(b".gguf")
}

/// What the hub allows in an owner's or a repository's name; never a path of its own.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && text.chars().any(|c| c.is_ascii_alphanumeric())
        && !text.starts_with(['.', '-'])
}

/// A relative path that stays where it is put: names from the command line and from the hub
/// become file names and parts of a URL.
pub(super) fn is_safe_path(text: &str) -> bool {
    !text.is_empty()
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !text.contains(|c: char| c.is_control() || c.is_whitespace() || "\\?#%".contains(c))
}

/// `a` or `a<mark>b`; nothing if what follows the mark is empty.
fn split_optional(text: &str, mark: char) -> Option<(&str, Option<&str>)> {
    match text.split_once(mark) {
        None => Some((text, None)),
        Some((_, "")) => None,
        Some((before, after)) => Some((before, Some(after))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<ModelName, Error> {
        ModelName::parse_with(text, |path| path == Path::new("here/model"))
    }

    fn hub(org: &str, name: &str, revision: Option<&str>, choice: Option<&str>) -> ModelName {
        ModelName::Hub(HubName {
            org: org.into(),
            name: name.into(),
            revision: revision.map(str::to_string),
            choice: choice.map(str::to_string),
        })
    }

    #[test]
    fn a_name_says_where_to_look() {
        let path = |text: &str| ModelName::Path(text.into());
        for (text, expected) in [
            ("smollm2-135m", ModelName::Short("smollm2-135m".into())),
            ("org/name", hub("org", "name", None, None)),
            ("org/name@v1.0", hub("org", "name", Some("v1.0"), None)),
            ("org/name@refs/pr/1:Q8_0", hub("org", "name", Some("refs/pr/1"), Some("Q8_0"))),
            ("org/name:Q4/a.gguf", hub("org", "name", None, Some("Q4/a.gguf"))),
            ("here/model", path("here/model")),
            ("./model", path("./model")),
            ("../model", path("../model")),
            ("/model", path("/model")),
            ("~/model", path("~/model")),
            ("model.gguf", path("model.gguf")),
            ("models/a.GGUF", path("models/a.GGUF")),
            ("a b/c d.gguf", path("a b/c d.gguf")),
        ] {
            assert_eq!(parse(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for text in ["", "a/b/c", "org/", "/".repeat(0).as_str(), "org/name@", "org/name:", "a b"] {
            assert!(matches!(parse(text), Err(Error::BadName { .. })), "{text:?}");
        }
        for text in ["org/name:../../etc/passwd", "org/name@../x", "org/name:/etc/passwd", "-x/y"] {
            assert!(matches!(parse(text), Err(Error::BadName { .. })), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_hub_name_reads_back_as_it_was_written(
            org in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,8}",
            name in "[a-zA-Z0-9][a-zA-Z0-9_-]{0,8}",
            revision in proptest::option::of("[a-z0-9]{1,8}"),
            choice in proptest::option::of("[A-Z0-9_]{1,8}"),
        ) {
            let expected = hub(&org, &name, revision.as_deref(), choice.as_deref());
            prop_assert_eq!(parse(&expected.to_string()).expect("a valid name"), expected);
        }

        #[test]
        fn a_hub_name_never_leaves_its_folder(text in "[a-z./@:\\\\]{1,20}") {
            if let Ok(ModelName::Hub(hub)) = parse(&text) {
                for part in [Some(hub.org), Some(hub.name), hub.revision, hub.choice] {
                    let part = part.unwrap_or("-".into());
                    prop_assert!(!part.starts_with('/') && part.split('/').all(|p| p != ".."));
                }
            }
        }
    }
}
