//! What was counted since the start, as plain numbers, and what the memory of agents saved.

/// Of all requests together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// That were looked up, and those of which something was in the pool, or in the store.
    pub prompts: u64,
    pub prompts_hot: u64,
    pub prompts_warm: u64,
    pub prompt_tokens: u64,
    /// Of these, those that were not computed again, and of those the ones from the store.
    pub reused_tokens: u64,
    pub restored_tokens: u64,
    pub generation_tokens: u64,
    /// Reading them took so long.
    pub restore_s: f64,
    /// Tokens of steps that read prompts and did nothing else, and what those steps took.
    pub prefill_step_tokens: u64,
    pub prefill_step_s: f64,
}

impl Totals {
    /// What computing a token of a prompt takes; none if nothing measured it.
    pub fn seconds_per_prompt_token(&self) -> Option<f64> {
        match self.prefill_step_tokens {
            0 => None,
            tokens => Some(self.prefill_step_s / tokens as f64),
        }
    }

    /// What computing the reused tokens would have taken, less what bringing them back did. Below
    /// zero if that took longer.
    pub fn seconds_saved(&self) -> Option<f64> {
        let per_token = self.seconds_per_prompt_token()?;
        Some(self.reused_tokens as f64 * per_token - self.restore_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_what_was_measured_less_what_restoring_took() {
        let measured = Totals {
            reused_tokens: 3000,
            restore_s: 0.5,
            prefill_step_tokens: 2000,
            prefill_step_s: 4.0,
            ..Totals::default()
        };
        assert_eq!(measured.seconds_per_prompt_token(), Some(0.002));
        assert_eq!(measured.seconds_saved(), Some(5.5));
        // A disk that is slower than the model saves less than nothing.
        assert_eq!(Totals { restore_s: 7.0, ..measured }.seconds_saved(), Some(-1.0));
        // Without a measurement there is nothing to tell, whatever was reused.
        let unmeasured = Totals { prefill_step_tokens: 0, prefill_step_s: 0.0, ..measured };
        assert_eq!(unmeasured.seconds_per_prompt_token(), None);
        assert_eq!(unmeasured.seconds_saved(), None);
    }
}
