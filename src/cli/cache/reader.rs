//! Finds the model of a save on this machine, to read its tokens as text. Fetches nothing.

use crate::cli::model;
use crate::cli::model::name_model;
use crate::cli::output::{self, Failure, printable};
use crate::cli::{Context, store};
use crate::model::source::{self, ModelName, ResolvedModel};
use crate::model::{KvConfig, ModelFiles};
use crate::text::{self, ChatTemplate, Tokenizer};
use crate::types::{Fingerprint, TextSource, TokenId};

/// A model without its weights.
pub struct Reader {
    pub model: ResolvedModel,
    pub tokenizer: Tokenizer,
    files: ModelFiles,
    source: TextSource,
}

impl Reader {
    pub fn open(name: &str, context: &Context) -> Result<Reader, Failure> {
        let settings = model::settings(&context.data_dir);
        let found = ModelName::parse(name).and_then(|name| source::find_here(&name, &settings));
        let hint = || Some("--model says where it is now".to_owned());
        let model = match found {
            Ok(Some(model)) => model,
            Ok(None) => {
                let name = printable(name);
                let error = anyhow::anyhow!("the model {name} is not on this machine");
                return Err(Failure::with_hint(error, hint()));
            }
            Err(error) => {
                let error = anyhow::Error::new(error).context("cannot find the model of this save");
                return Err(Failure::with_hint(error, hint()));
            }
        };
        let files = model::open(&model)?;
        let source = files.text()?;
        let tokenizer = Tokenizer::new(&source).map_err(|error| name_model(error, &model.path))?;
        Ok(Reader { model, tokenizer, files, source })
    }

    pub fn template(&self) -> Result<ChatTemplate, Failure> {
        model::chat_template(&self.source, &self.model.path, None)
    }

    pub fn text_of(&self, tokens: &[TokenId]) -> String {
        text::text_of(&self.tokenizer, tokens)
    }

    pub fn fingerprint(&self, kv: KvConfig, context: &Context) -> Result<Fingerprint, Failure> {
        Ok(self.files.fingerprint(kv, &store::digests(context))?)
    }

    /// How the KV of a save is stored; none if it is of another model.
    pub fn kv_of(
        &self,
        fingerprint: &Fingerprint,
        context: &Context,
    ) -> Result<Option<KvConfig>, Failure> {
        Ok(self.files.kv_of(fingerprint, &store::digests(context))?)
    }

    /// A model that has taken another's place has other words for the same tokens.
    pub fn warn_unless_of(
        &self,
        fingerprint: &Fingerprint,
        context: &Context,
    ) -> Result<(), Failure> {
        if self.kv_of(fingerprint, context)?.is_none() {
            output::talk(&format!(
                "warning: {} is not the model that this was saved with, so the text may be wrong",
                self.model.path.display()
            ));
        }
        Ok(())
    }
}
