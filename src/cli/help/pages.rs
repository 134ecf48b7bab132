//! What each command's help is made of besides its flags. Pure.

/// The help of one command.
pub struct Page {
    /// As it is typed after the program's name.
    pub path: &'static str,
    /// Two to four.
    pub examples: &'static [&'static str],
    /// Flags by heading; those of no group come first, as options.
    pub groups: &'static [(&'static str, &'static [&'static str])],
    /// Lists of flags that only `--help-all` and the man page show.
    pub rare: &'static [&'static [&'static str]],
}

/// How large the work of `bench` is.
const BENCH_SIZES: &[&str] = &[
    "prompt_tokens",
    "contexts",
    "decode_tokens",
    "sequences",
    "batch_context",
    "restore_tokens",
    "agents",
    "server_percent",
    "load_seconds",
    "race_agents",
    "race_context",
    "race_turns",
    "text",
    "tokens",
];
/// The files that `bench` writes to be measured with.
const BENCH_MODELS: &[&str] = &["make_model", "out", "quantisation", "seed", "force"];

pub const PAGES: &[Page] = &[
    Page {
        path: "",
        examples: &[
            "semantic generate --agent ada \"My name is Ada.\"",
            "semantic generate --agent ada \"What is my name?\"",
            "semantic serve --no-auth",
        ],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "serve",
        examples: &[
            "semantic serve --model qwen3-4b --kv-pool-mb 8000",
            "semantic serve --host 0.0.0.0 --allowed-host llm.example.org --lame-duck 5",
        ],
        groups: &[
            ("Model", &["model", "kv_bits", "device", "threads", "kv_pool_mb"]),
            ("Address", &["host", "port", "allowed_host", "cors_origin"]),
            ("Keys", &["new_key", "keys_file", "no_auth"]),
            (
                "Limits",
                &[
                    "rate_limit_agent",
                    "rate_limit_global",
                    "rate_limit_failed_keys",
                    "tokens_per_minute",
                    "max_running",
                    "queue_requests",
                    "queue_timeout",
                    "step_ms",
                    "lame_duck",
                    "drain_timeout",
                ],
            ),
        ],
        rare: &[&["rate_limit_failed_keys"]],
    },
    Page {
        path: "generate",
        examples: &[
            "semantic generate --agent planner \"Plan three days in Vienna.\"",
            "semantic generate --agent planner2 --fork-from planner \"And if it rains?\"",
            "git diff | semantic generate --system \"Write a commit message.\" -",
        ],
        groups: &[
            ("Memory", &["agent", "namespace", "fork_from", "ephemeral", "read_only"]),
            ("Model", &["model", "kv_bits", "device", "threads"]),
            (
                "Sampling",
                &[
                    "max_tokens",
                    "temperature",
                    "top_p",
                    "top_k",
                    "min_p",
                    "repeat_penalty",
                    "seed",
                    "stop",
                ],
            ),
        ],
        rare: &[],
    },
    Page {
        path: "cache",
        examples: &["semantic cache list", "semantic cache show planner", "semantic cache verify"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache list",
        examples: &["semantic cache list", "semantic cache list --all-namespaces --json"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache show",
        examples: &["semantic cache show planner", "semantic cache show planner --text"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache evict",
        examples: &[
            "semantic cache evict planner reviewer",
            "semantic cache evict --older-than 30d",
            "semantic cache evict --to-size 10GB --yes",
        ],
        groups: &[("Which", &["all", "older_than", "to_size"])],
        rare: &[],
    },
    Page {
        path: "cache verify",
        examples: &["semantic cache verify", "semantic cache verify --json"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache repair",
        examples: &["semantic cache repair", "semantic cache repair --json"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache gc",
        examples: &["semantic cache gc", "semantic cache gc --json"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache du",
        examples: &["semantic cache du", "semantic cache du --json"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache fork",
        examples: &[
            "semantic cache fork planner planner2",
            "semantic cache fork planner planner2 --namespace team",
        ],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache rollback",
        examples: &["semantic cache rollback planner", "semantic cache rollback planner 7"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache pin",
        examples: &["semantic cache pin planner", "semantic cache pin planner --namespace team"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache unpin",
        examples: &[
            "semantic cache unpin planner",
            "semantic cache unpin planner --namespace team",
        ],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache ttl",
        examples: &["semantic cache ttl planner 30d", "semantic cache ttl planner never"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache export",
        examples: &[
            "semantic cache export planner planner.agent",
            "semantic cache export planner backup/planner.agent --force",
        ],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache import",
        examples: &[
            "semantic cache import planner.agent",
            "semantic cache import planner.agent --as planner2 --namespace team",
        ],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "cache explain",
        examples: &[
            "semantic cache explain planner",
            "semantic cache explain planner --prompt \"And if it rains?\"",
        ],
        groups: &[("Compare with", &["prompt", "system", "raw", "model", "kv_bits"])],
        rare: &[],
    },
    Page {
        path: "bench",
        examples: &[
            "semantic bench --quick --check",
            "semantic bench --html report.html --json report.json",
            "semantic bench --suite restore --suite store --against report.json",
            "semantic bench --make-model llama-3.2-1b --out 1b.gguf",
        ],
        groups: &[
            ("Report", &["json", "html", "plot", "from", "against", "tolerance", "check"]),
            ("Model", &["model", "kv_bits", "device", "threads"]),
            (
                "Others beside it",
                &[
                    "url",
                    "url_key",
                    "url_model",
                    "peer_llama_bench",
                    "peer_server",
                    "peer_model",
                    "peer_mlx",
                    "peer_mlx_model",
                ],
            ),
            ("Sizes", BENCH_SIZES),
            ("Random models", BENCH_MODELS),
        ],
        rare: &[
            BENCH_SIZES,
            BENCH_MODELS,
            &["plot", "url_key", "url_model", "peer_mlx", "peer_mlx_model"],
        ],
    },
    Page {
        path: "health",
        examples: &[
            "semantic health",
            "semantic health --model qwen3-4b --kv-pool-mb 8000",
            "semantic health --url http://localhost:8000 --probe live",
        ],
        groups: &[
            ("A server", &["url", "probe", "timeout"]),
            ("This machine", &["model", "kv_bits", "device", "threads", "kv_pool_mb"]),
        ],
        rare: &[],
    },
    Page {
        path: "pull",
        examples: &[
            "semantic pull qwen3-4b",
            "semantic pull bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_0",
        ],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "models",
        examples: &["semantic models", "semantic models --all --json"],
        groups: &[],
        rare: &[],
    },
    Page {
        path: "completions",
        examples: &[
            "semantic completions bash > ~/.local/share/bash-completion/completions/semantic",
            "semantic completions fish > ~/.config/fish/completions/semantic.fish",
        ],
        groups: &[],
        rare: &[],
    },
];
