# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_semantic_global_optspecs
    string join \n config= data-dir= log-level= log-format= h/help help-all V/version v/verbose
end

function __fish_semantic_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_semantic_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_semantic_using_subcommand
    set -l cmd (__fish_semantic_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c semantic -n "__fish_semantic_needs_command" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_needs_command" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_needs_command" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_needs_command" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_needs_command" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_needs_command" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_needs_command" -s V -l version -d 'Print the version'
complete -c semantic -n "__fish_semantic_needs_command" -s v -l verbose -d 'With --version: also the commit, MLX, the target, the processor and the compiler'
complete -c semantic -n "__fish_semantic_needs_command" -f -a "serve" -d 'Serve agents over HTTP, as OpenAI\'s and Anthropic\'s APIs have it'
complete -c semantic -n "__fish_semantic_needs_command" -f -a "generate" -d 'Answer a prompt on the terminal'
complete -c semantic -n "__fish_semantic_needs_command" -f -a "cache" -d 'Show, keep, copy, move, repair and remove what agents remember'
complete -c semantic -n "__fish_semantic_needs_command" -f -a "bench" -d 'Measure a model on this machine, or write a model to measure with'
complete -c semantic -n "__fish_semantic_needs_command" -f -a "health" -d 'Check this machine, or ask a server for its health'
complete -c semantic -n "__fish_semantic_needs_command" -f -a "pull" -d 'Fetch a model'
complete -c semantic -n "__fish_semantic_needs_command" -f -a "models" -d 'List the models on this machine'
complete -c semantic -n "__fish_semantic_needs_command" -f -a "completions" -d 'Print the completion script of a shell'
complete -c semantic -n "__fish_semantic_using_subcommand serve" -s m -l model -d 'A short name, org/name[@revision][:FILE] on the hub, or a path' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l host -d 'The address to listen on [default: 127.0.0.1]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -s p -l port -d 'The port to listen on; 0 takes a free one [default: 8000]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l allowed-host -d 'A further host name that requests may be addressed to' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l cors-origin -d 'The origin of web pages that may use this server' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l keys-file -d 'The file with hashes of API keys [default: keys.toml in the data folder]' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l no-auth -d 'Ask nobody for a key; only on a loopback address' -r -f -a "true\t''
false\t''"
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l rate-limit-agent -d 'Requests per minute of an agent; 0: no limit [default: 60]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l rate-limit-global -d 'Requests per minute in all; 0: no limit [default: 1000]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l rate-limit-failed-keys -d 'Wrong keys per minute of an address; 0: no limit [default: 20]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l tokens-per-minute -d 'Tokens per minute of a key; 0: no limit [default: 0]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l kv-pool-mb -d 'Memory for the KV of all agents, in MB [default: a quarter of all]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l max-running -d 'Requests that are answered at the same time [default: 64]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l queue-requests -d 'Requests that may wait [default: 2048]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l queue-timeout -d 'How long one may wait, in seconds [default: 120]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l step-ms -d 'A new prompt may hold up answers, in ms [default: 100]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l lame-duck -d 'Go on accepting after SIGTERM, in seconds [default: 0]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l drain-timeout -d 'Then finish running answers, in seconds [default: 30]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l kv-bits -d 'Bits of the KV cache, as 8 or 8/4r [default: the model\'s]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l device -d 'What computes: cpu, portable or auto [default: auto]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l threads -d 'Threads of the CPU kernels [default: all physical cores]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l new-key -d 'Make an API key, print it once, keep its hash, and do not serve' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l print-config -d 'Print the settings as a configuration file, and do not serve'
complete -c semantic -n "__fish_semantic_using_subcommand serve" -s q -l quiet -d 'Say nothing on stderr unless something fails'
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l end-with-stdin -d 'End at once when stdin does: for a program that starts it and may be killed'
complete -c semantic -n "__fish_semantic_using_subcommand serve" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand serve" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand generate" -s m -l model -d 'A short name, org/name[@revision][:FILE] on the hub, or a path' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -s s -l system -d 'The system message' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -s n -l max-tokens -d 'The longest reply, in tokens [default: 512]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -s t -l temperature -d '0 always takes the likeliest token [default: 0]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l top-p -d 'Keep the likeliest tokens that have this probability together [default: 1]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l top-k -d 'Keep this many of the likeliest tokens' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l min-p -d 'Keep tokens this likely relative to the likeliest [default: 0]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l repeat-penalty -d 'Above 1, recent tokens become less likely [default: 1]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l seed -d 'The same seed gives the same reply' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l stop -d 'A text that ends the reply; may be given several times' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l agent -d 'Go on with this agent\'s conversation, and remember this turn' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l namespace -d 'Whose agents these are [default: local]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l fork-from -d 'Begin with a copy of this agent\'s conversation' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l kv-bits -d 'Bits of the KV cache, as 8 or 8/4r [default: the model\'s]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l device -d 'What computes: cpu, portable or auto [default: auto]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l threads -d 'Threads of the CPU kernels [default: all physical cores]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l ephemeral -d 'Go on from the conversation and remember nothing of this turn'
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l read-only -d 'Change nothing on disk, so that a server may run; implies --ephemeral'
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l raw -d 'Continue the prompt as it is, without the model\'s chat template'
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l json -d 'Print one JSON object instead of the text'
complete -c semantic -n "__fish_semantic_using_subcommand generate" -s q -l quiet -d 'Say nothing on stderr unless something fails'
complete -c semantic -n "__fish_semantic_using_subcommand generate" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand generate" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "list" -d 'List agents with what they take'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "show" -d 'Show what an agent has: its saves, its blocks, and on request its text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "evict" -d 'Remove agents from disk'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "verify" -d 'Read every byte and say what is damaged; exit code 1 if something is'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "repair" -d 'Keep the longest good part of what is damaged, and put the rest into quarantine'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "gc" -d 'Remove what no agent needs any more'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "du" -d 'Say how much disk space agents take'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "fork" -d 'Give a new agent the memory of another'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "rollback" -d 'Go back to an older save of an agent'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "pin" -d 'Keep an agent on disk when others need room, up to half of it'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "unpin" -d 'Let an agent go when others need the room'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "ttl" -d 'Say how long after its last turn an agent goes'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "export" -d 'Write an agent to a file, for another machine'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "import" -d 'Take in an agent from such a file'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and not __fish_seen_subcommand_from list show evict verify repair gc du fork rollback pin unpin ttl export import explain" -f -a "explain" -d 'Say why a prompt, or its last conversation, does not go on from what an agent has'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -l all-namespaces -d 'The agents of all namespaces'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from list" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l generation -d 'The save to look into [default: the newest]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -s m -l model -d 'The model whose tokens these are, if it is not where it was [default: the save\'s]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l text -d 'Also print the text of the conversation; needs the model\'s tokenizer'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from show" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l older-than -d 'Those that were not used for so long and are not pinned: 90m, 12h, 30d, 8w' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l to-size -d 'Those that were not used for the longest time and are not pinned, until the rest needs at most so much: 500MB, 10GB' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l all -d 'All agents of the namespace'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -s y -l yes -d 'Do not ask; needed where there is no terminal'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from evict" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from verify" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from verify" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from verify" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from verify" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from verify" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from verify" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from repair" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from repair" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from repair" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from repair" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from repair" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from repair" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from repair" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from gc" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from gc" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from gc" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from gc" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from gc" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from gc" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from gc" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from du" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from du" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from du" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from du" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from du" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from du" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from du" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from fork" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from fork" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from fork" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from fork" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from fork" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from fork" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from fork" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from fork" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from rollback" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from rollback" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from rollback" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from rollback" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from rollback" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from rollback" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from rollback" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from rollback" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from pin" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from pin" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from pin" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from pin" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from pin" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from pin" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from pin" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from pin" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from unpin" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from unpin" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from unpin" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from unpin" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from unpin" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from unpin" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from unpin" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from unpin" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from ttl" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from ttl" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from ttl" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from ttl" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from ttl" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from ttl" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from ttl" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from ttl" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -l force -d 'Replace the file if it is there'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from export" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -l as -d 'Call the agent so [default: as it was called]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -s m -l model -d 'The model that is to go on [default: the one of the file]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from import" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l prompt -d 'The prompt to compare with, as `generate` would send it; `-` reads stdin [default: compare the agent\'s last conversation with the one before]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -s s -l system -d 'The system message before the prompt' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -s m -l model -d 'The model that is to go on [default: the one it was saved with]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l kv-bits -d 'Bits of the KV cache it is to go on with [default: the model\'s]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l namespace -d 'Whose agents these are' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l raw -d 'The prompt is what a chat template made already'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l json -d 'Print one JSON object instead of text'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand cache; and __fish_seen_subcommand_from explain" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l suite -d 'What to measure, repeatable [default: what needs no other programs]' -r -f -a "load\t'time and memory to load the model'
prefill\t'tokens/s of prompts from an empty KV'
decode\t'tokens/s of one sequence at a context'
batch\t'tokens/s of several requests together'
staggered\t'a request that comes while another runs'
queue\t'many more requests than run at a time'
restore\t'the first token of an agent that is back'
store\t'what saving agents costs, and many of them'
baselines\t'what clients of a server wait for, beside what is aimed at'
agents\t'more agents than memory holds, and a kill'
compare\t'ours beside other servers, those of --url'
server\t'how the server conducts itself'
kv-quality\t'perplexity by bits of the KV cache'
kv-speed\t'tokens/s by bits of the KV cache'
fidelity\t'the kernels against plain MLX'"
complete -c semantic -n "__fish_semantic_using_subcommand bench" -s m -l model -d 'A short name, org/name[@revision][:FILE] on the hub, or a path' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l kv-bits -d 'Bits of the KV cache, as 8 or 8/4r [default: the model\'s]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l device -d 'What computes: cpu, portable or auto [default: auto]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l threads -d 'Threads of the CPU kernels [default: all physical cores]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l runs -d 'Timed rounds, after one that is not counted [default: 5, quick: 3]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l prompt-tokens -d 'Prompt lengths of `prefill`, in tokens [default: 128,512,2048,4096]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l contexts -d 'Tokens in the context before `decode` begins [default: 128,2048]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l decode-tokens -d 'Tokens that `decode` and `batch` generate per sequence [default: 64]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l sequences -d 'Sequences that `batch` decodes together [default: 1,2,4,8,16]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l batch-context -d 'Tokens in the context of each sequence before `batch` begins [default: 128]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l restore-tokens -d 'Tokens of the conversations that `restore` brings back [default: 64,512,1024,2048,4096,8000]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l agents -d 'Agents that `store` opens and lists [default: 10000]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l server-percent -d 'How much of their requests `server` and `baselines` send; what `server` promises is about all' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l load-seconds -d 'How long `server` holds the load of 80 % [default: 300, with all suites 60, quick: 3]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l race-agents -d 'Agents in the race of `agents`; there is memory for three [default: 10, quick: 4]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l race-context -d 'What each begins with, in tokens; a quarter is the same for all [default: 4000, quick: 500]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l race-turns -d 'Turns of the race; after half of them the server is killed [default: 60, quick: 8]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l text -d 'The text of `kv-quality`, `fidelity`, `restore` and `store` [default: this project\'s own documents]' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l tokens -d 'Tokens of the text that are used; what `fidelity` promises is about 2048 and more [default: 2048 for kv-quality, 256 for fidelity]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l peer-llama-bench -d 'Also run this llama-bench, and llama-batched-bench beside it' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l peer-server -d 'Let this llama-server take part in `restore` and `agents`' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l peer-model -d 'The GGUF file that the peer runs' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l peer-mlx -d 'Let mlx-lm\'s server, run by this Python, have a short race in `agents`' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l peer-mlx-model -d 'The folder of the model that mlx-lm runs' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l url -d 'Compare with this OpenAI-compatible server only, repeatable' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l url-key -d 'The variable of the environment that has this server\'s API key' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l url-model -d 'Which of this server\'s models to ask [default: the first that it lists]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l make-model -d 'Write a GGUF file with random weights instead: smollm2-135m, llama-3.2-1b or llama-3.1-8b' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l out -d 'The file that --make-model writes' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l quantisation -d 'How --make-model stores the layers\' weights: q4_0 or q4_1; embedding and head are Q8_0' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l seed -d 'The same seed gives the same weights' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l child -d 'Do the part of a suite that this file describes, in a process of its own' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l json -d 'Write the report as JSON; `-` prints it instead of tables' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l html -d 'Write the report as a page that needs nothing else; `-` prints it' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l plot -d 'Draw TTFT by the length of what `restore` brings back, as SVG; `-` prints it' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l from -d 'Measure nothing: show, compare, check or draw the report in this file' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l against -d 'Mark what is worse than in this report, and exit with 1 if anything is' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l tolerance -d 'How much worse a figure may be, beside the old runs\' noise' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l check -d 'Exit with 1 if a target is missed; `--check=all` also if a promise is not kept' -r -f -a "targets\t'What the project has set itself as targets'
all\t'Also what it promises of itself, of which some is a matter of how busy the machine is'"
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l quick -d 'Take a minute: fewer suites, smaller work'
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l force -d 'Let --make-model replace a file'
complete -c semantic -n "__fish_semantic_using_subcommand bench" -s q -l quiet -d 'Say nothing on stderr unless something fails'
complete -c semantic -n "__fish_semantic_using_subcommand bench" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand bench" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand health" -l url -d 'Ask the server there, such as http://localhost:8000, instead of looking at this machine' -r
complete -c semantic -n "__fish_semantic_using_subcommand health" -l probe -d 'What to ask the server' -r -f -a "live\t'Whether it is alive'
ready\t'Whether it takes requests'
startup\t'Whether its model is loaded'"
complete -c semantic -n "__fish_semantic_using_subcommand health" -l timeout -d 'How long to wait for its answer, in seconds' -r
complete -c semantic -n "__fish_semantic_using_subcommand health" -s m -l model -d 'A short name, org/name[@revision][:FILE] on the hub, or a path' -r
complete -c semantic -n "__fish_semantic_using_subcommand health" -l kv-bits -d 'Bits of the KV cache, as 8 or 8/4r [default: the model\'s]' -r
complete -c semantic -n "__fish_semantic_using_subcommand health" -l device -d 'What computes: cpu, portable or auto [default: auto]' -r
complete -c semantic -n "__fish_semantic_using_subcommand health" -l threads -d 'Threads of the CPU kernels [default: all physical cores]' -r
complete -c semantic -n "__fish_semantic_using_subcommand health" -l kv-pool-mb -d 'Memory for the KV of all agents, in MB, as `serve` would be given it' -r
complete -c semantic -n "__fish_semantic_using_subcommand health" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand health" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand health" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand health" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand health" -l json -d 'Print JSON'
complete -c semantic -n "__fish_semantic_using_subcommand health" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand health" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand pull" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand pull" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand pull" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand pull" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand pull" -s q -l quiet -d 'Say nothing on stderr unless something fails'
complete -c semantic -n "__fish_semantic_using_subcommand pull" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand pull" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand models" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand models" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand models" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand models" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand models" -s a -l all -d 'Also list the catalogue\'s models that are not here'
complete -c semantic -n "__fish_semantic_using_subcommand models" -l json -d 'Print JSON'
complete -c semantic -n "__fish_semantic_using_subcommand models" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand models" -l help-all -d 'Print help with every flag and its variable'
complete -c semantic -n "__fish_semantic_using_subcommand completions" -l config -d 'The configuration file, instead of the one in the usual place' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand completions" -l data-dir -d 'The folder for everything the program stores' -r -F
complete -c semantic -n "__fish_semantic_using_subcommand completions" -l log-level -d 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]' -r
complete -c semantic -n "__fish_semantic_using_subcommand completions" -l log-format -d 'How to log it' -r -f -a "auto\t''
json\t''
text\t''"
complete -c semantic -n "__fish_semantic_using_subcommand completions" -s h -l help -d 'Print help on one screen'
complete -c semantic -n "__fish_semantic_using_subcommand completions" -l help-all -d 'Print help with every flag and its variable'
