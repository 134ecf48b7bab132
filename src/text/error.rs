//! What can be wrong with a model's text files, and with rendering them.

/// Why a tokenizer or a chat template cannot be used. Nothing here comes from a client's text,
/// except [`Error::TemplateRaised`], where the template refuses a conversation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{file} is not valid: {reason}")]
    BrokenFile { file: &'static str, reason: String },

    #[error("the vocabulary in the GGUF file is not valid: {reason}")]
    BrokenVocabulary { reason: String },

    #[error("{what} \"{name}\" is not supported")]
    Unsupported { what: &'static str, name: String },

    #[error("cannot split text into tokens: {reason}")]
    Encode { reason: String },

    #[error("the model has no chat template")]
    NoTemplate,

    #[error("the chat template does not compile, line {line}: {reason}")]
    TemplateBroken { line: usize, reason: String },

    #[error("the chat template failed, line {line}: {reason}")]
    TemplateFailed { line: usize, reason: String },

    #[error("the chat template refuses this conversation: {message} (line {line})")]
    TemplateRaised { line: usize, message: String },

    #[error("the chat template was stopped after {steps} steps, line {line}: it may loop for ever")]
    TemplateOutOfFuel { line: usize, steps: u64 },

    #[error("the chat template does not show an earlier reply, so that no turn can follow it")]
    NoTurn,

    #[error("the chat template wrote more than {bytes_max} bytes")]
    TemplateTooLarge { bytes_max: usize },
}

impl Error {
    pub(super) fn broken_vocabulary(reason: impl Into<String>) -> Error {
        Error::BrokenVocabulary { reason: reason.into() }
    }
}
