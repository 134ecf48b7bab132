//! What a user can do about an error of another room, which knows what is wrong and not from where
//! it was called.

use crate::{config, engine, model, text};

pub const MEND_SETTINGS: &str = "mend it in the configuration file, or name another with --config";
const OTHER_MODEL: &str = "fetch it again if its files may be damaged, or take another model: \
                           `semantic models --all` lists some";
const READABLE: &str =
    "it has to be there and readable for this user; or give another model with --model";
const TEMPLATE: &str = "a chat_template.jinja beside the model takes the place of its own";

/// Of the first cause that has one.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(of_cause)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<config::Error>() {
        return of_configuration(error);
    }
    if let Some(error) = cause.downcast_ref::<model::Error>() {
        return of_model(error);
    }
    if let Some(error) = cause.downcast_ref::<text::Error>() {
        return of_text(error);
    }
    cause.downcast_ref::<engine::Error>().and_then(of_engine)
}

fn of_configuration(error: &config::Error) -> Option<&'static str> {
    use config::Error as E;
    match error {
        E::Read { .. } | E::Invalid { .. } => Some(MEND_SETTINGS),
        E::Unprintable { .. } | E::NoHome => None,
    }
}

fn of_model(error: &model::Error) -> Option<&'static str> {
    use model::Error as E;
    match error {
        E::Read { .. } => Some(READABLE),
        E::Write { .. } => Some("look at the disk and at who may use the folder"),
        E::Invalid { .. }
        | E::UnknownArchitecture { .. }
        | E::MissingTensor { .. }
        | E::Tensor { .. }
        | E::TensorType { .. } => Some(OTHER_MODEL),
        E::NoKernel(_) | E::Setting(_) | E::Batch(_) | E::Mlx(_) => None,
    }
}

fn of_text(error: &text::Error) -> Option<&'static str> {
    use text::Error as E;
    match error {
        E::BrokenFile { .. } | E::BrokenVocabulary { .. } | E::Unsupported { .. } => {
            Some(OTHER_MODEL)
        }
        E::TemplateBroken { .. }
        | E::TemplateFailed { .. }
        | E::TemplateRaised { .. }
        | E::TemplateOutOfFuel { .. }
        | E::TemplateTooLarge { .. } => Some(TEMPLATE),
        E::Encode { .. } | E::NoTemplate | E::NoTurn => None,
    }
}

fn of_engine(error: &engine::Error) -> Option<&'static str> {
    use engine::Error as E;
    match error {
        E::PromptTooLong { .. } => Some("shorten it, or take a model with a longer context"),
        E::LargerThanPool(_) => Some("shorten it, or give fewer --kv-bits"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_hint_is_found_below_what_was_said_about_it() {
        let path = PathBuf::from("model.gguf");
        let error = anyhow::Error::new(model::Error::Read { path, reason: "no".to_owned() });
        assert_eq!(hint(&error.context("cannot find the model")), Some(READABLE));
        assert_eq!(hint(&anyhow::anyhow!("something else")), None);
        assert_eq!(hint(&anyhow::Error::new(text::Error::NoTurn)), None);
    }
}
