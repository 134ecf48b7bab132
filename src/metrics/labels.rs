//! The values that labels can have. All of them: there is no other way to make one.

/// A label with its values.
pub trait Label: Copy + 'static {
    const NAME: &'static str;
    /// In the order of [`Label::index`].
    const ALL: &'static [Self];

    fn index(self) -> usize;
    fn word(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $type:ident, $name:literal, { $($(#[$of:meta])* $value:ident => $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$of])* $value,)+
        }

        impl Label for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$($type::$value,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn word(self) -> &'static str {
                match self {
                    $($type::$value => $word,)+
                }
            }
        }
    };
}

label! {
    /// Why a request has no more tokens, in vLLM's words.
    Finished, "finished_reason", {
        Stop => "stop",
        Length => "length",
        /// The client went away.
        Abort => "abort",
        /// It was cut, refused by the model, or had waited for too long.
        Error => "error",
    }
}

label! {
    /// Where an agent's memory is.
    Tier, "tier", {
        Hot => "hot",
        Warm => "warm",
    }
}

label! {
    /// Why a prompt could not go on from all that its agent remembers.
    Miss, "cause", {
        /// There was nothing that begins as it does.
        New => "new",
        /// What is in the store could not be read or trusted.
        Unreadable => "unreadable",
        // The others are what probably made the prompt differ.
        Date => "date",
        Time => "time",
        Nonce => "nonce",
        ToolJson => "tool_json",
        Thinking => "thinking",
        SystemChanged => "system_changed",
        SystemMoved => "system_moved",
        OtherModel => "other_model",
        OtherTokens => "other_tokens",
        Message => "message",
        Unknown => "unknown",
    }
}

label! {
    /// What a block of the pool is.
    Block, "state", {
        Free => "free",
        Used => "used",
        /// Of those used, what idle agents hold and could be had at once.
        Evictable => "evictable",
    }
}

label! {
    /// Whose limit a refused request was over.
    Limit, "limit", {
        Agent => "agent",
        Global => "global",
        Key => "key",
        Tokens => "tokens",
        FailedKeys => "failed_keys",
    }
}

label! {
    /// How a connection came in.
    Door, "door", {
        Main => "main",
        Spare => "spare",
    }
}

label! {
    /// A request's method; those that HTTP does not name are one.
    Method, "method", {
        Get => "GET",
        Head => "HEAD",
        Post => "POST",
        Put => "PUT",
        Patch => "PATCH",
        Delete => "DELETE",
        Options => "OPTIONS",
        Other => "OTHER",
    }
}
