
using namespace System.Management.Automation
using namespace System.Management.Automation.Language

Register-ArgumentCompleter -Native -CommandName 'semantic' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    $commandElements = $commandAst.CommandElements
    $command = @(
        'semantic'
        for ($i = 1; $i -lt $commandElements.Count; $i++) {
            $element = $commandElements[$i]
            if ($element -isnot [StringConstantExpressionAst] -or
                $element.StringConstantType -ne [StringConstantType]::BareWord -or
                $element.Value.StartsWith('-') -or
                $element.Value -eq $wordToComplete) {
                break
        }
        $element.Value
    }) -join ';'

    $completions = @(switch ($command) {
        'semantic' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print the version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print the version')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'With --version: also the commit, MLX, the target, the processor and the compiler')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'With --version: also the commit, MLX, the target, the processor and the compiler')
            [CompletionResult]::new('serve', 'serve', [CompletionResultType]::ParameterValue, 'Serve agents over HTTP, as OpenAI''s and Anthropic''s APIs have it')
            [CompletionResult]::new('generate', 'generate', [CompletionResultType]::ParameterValue, 'Answer a prompt on the terminal')
            [CompletionResult]::new('cache', 'cache', [CompletionResultType]::ParameterValue, 'Show, keep, copy, move, repair and remove what agents remember')
            [CompletionResult]::new('bench', 'bench', [CompletionResultType]::ParameterValue, 'Measure a model on this machine, or write a model to measure with')
            [CompletionResult]::new('health', 'health', [CompletionResultType]::ParameterValue, 'Check this machine, or ask a server for its health')
            [CompletionResult]::new('pull', 'pull', [CompletionResultType]::ParameterValue, 'Fetch a model')
            [CompletionResult]::new('models', 'models', [CompletionResultType]::ParameterValue, 'List the models on this machine')
            [CompletionResult]::new('completions', 'completions', [CompletionResultType]::ParameterValue, 'Print the completion script of a shell')
            break
        }
        'semantic;serve' {
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'A short name, org/name[@revision][:FILE] on the hub, or a path')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'A short name, org/name[@revision][:FILE] on the hub, or a path')
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'The address to listen on [default: 127.0.0.1]')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'The port to listen on; 0 takes a free one [default: 8000]')
            [CompletionResult]::new('--port', '--port', [CompletionResultType]::ParameterName, 'The port to listen on; 0 takes a free one [default: 8000]')
            [CompletionResult]::new('--allowed-host', '--allowed-host', [CompletionResultType]::ParameterName, 'A further host name that requests may be addressed to')
            [CompletionResult]::new('--cors-origin', '--cors-origin', [CompletionResultType]::ParameterName, 'The origin of web pages that may use this server')
            [CompletionResult]::new('--keys-file', '--keys-file', [CompletionResultType]::ParameterName, 'The file with hashes of API keys [default: keys.toml in the data folder]')
            [CompletionResult]::new('--no-auth', '--no-auth', [CompletionResultType]::ParameterName, 'Ask nobody for a key; only on a loopback address')
            [CompletionResult]::new('--rate-limit-agent', '--rate-limit-agent', [CompletionResultType]::ParameterName, 'Requests per minute of an agent; 0: no limit [default: 60]')
            [CompletionResult]::new('--rate-limit-global', '--rate-limit-global', [CompletionResultType]::ParameterName, 'Requests per minute in all; 0: no limit [default: 1000]')
            [CompletionResult]::new('--rate-limit-failed-keys', '--rate-limit-failed-keys', [CompletionResultType]::ParameterName, 'Wrong keys per minute of an address; 0: no limit [default: 20]')
            [CompletionResult]::new('--tokens-per-minute', '--tokens-per-minute', [CompletionResultType]::ParameterName, 'Tokens per minute of a key; 0: no limit [default: 0]')
            [CompletionResult]::new('--kv-pool-mb', '--kv-pool-mb', [CompletionResultType]::ParameterName, 'Memory for the KV of all agents, in MB [default: a quarter of all]')
            [CompletionResult]::new('--max-running', '--max-running', [CompletionResultType]::ParameterName, 'Requests that are answered at the same time [default: 64]')
            [CompletionResult]::new('--queue-requests', '--queue-requests', [CompletionResultType]::ParameterName, 'Requests that may wait [default: 2048]')
            [CompletionResult]::new('--queue-timeout', '--queue-timeout', [CompletionResultType]::ParameterName, 'How long one may wait, in seconds [default: 120]')
            [CompletionResult]::new('--step-ms', '--step-ms', [CompletionResultType]::ParameterName, 'A new prompt may hold up answers, in ms [default: 100]')
            [CompletionResult]::new('--lame-duck', '--lame-duck', [CompletionResultType]::ParameterName, 'Go on accepting after SIGTERM, in seconds [default: 0]')
            [CompletionResult]::new('--drain-timeout', '--drain-timeout', [CompletionResultType]::ParameterName, 'Then finish running answers, in seconds [default: 30]')
            [CompletionResult]::new('--kv-bits', '--kv-bits', [CompletionResultType]::ParameterName, 'Bits of the KV cache, as 8 or 8/4r [default: the model''s]')
            [CompletionResult]::new('--device', '--device', [CompletionResultType]::ParameterName, 'What computes: cpu, portable or auto [default: auto]')
            [CompletionResult]::new('--threads', '--threads', [CompletionResultType]::ParameterName, 'Threads of the CPU kernels [default: all physical cores]')
            [CompletionResult]::new('--new-key', '--new-key', [CompletionResultType]::ParameterName, 'Make an API key, print it once, keep its hash, and do not serve')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--print-config', '--print-config', [CompletionResultType]::ParameterName, 'Print the settings as a configuration file, and do not serve')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on stderr unless something fails')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on stderr unless something fails')
            [CompletionResult]::new('--end-with-stdin', '--end-with-stdin', [CompletionResultType]::ParameterName, 'End at once when stdin does: for a program that starts it and may be killed')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;generate' {
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'A short name, org/name[@revision][:FILE] on the hub, or a path')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'A short name, org/name[@revision][:FILE] on the hub, or a path')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'The system message')
            [CompletionResult]::new('--system', '--system', [CompletionResultType]::ParameterName, 'The system message')
            [CompletionResult]::new('-n', '-n', [CompletionResultType]::ParameterName, 'The longest reply, in tokens [default: 512]')
            [CompletionResult]::new('--max-tokens', '--max-tokens', [CompletionResultType]::ParameterName, 'The longest reply, in tokens [default: 512]')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, '0 always takes the likeliest token [default: 0]')
            [CompletionResult]::new('--temperature', '--temperature', [CompletionResultType]::ParameterName, '0 always takes the likeliest token [default: 0]')
            [CompletionResult]::new('--top-p', '--top-p', [CompletionResultType]::ParameterName, 'Keep the likeliest tokens that have this probability together [default: 1]')
            [CompletionResult]::new('--top-k', '--top-k', [CompletionResultType]::ParameterName, 'Keep this many of the likeliest tokens')
            [CompletionResult]::new('--min-p', '--min-p', [CompletionResultType]::ParameterName, 'Keep tokens this likely relative to the likeliest [default: 0]')
            [CompletionResult]::new('--repeat-penalty', '--repeat-penalty', [CompletionResultType]::ParameterName, 'Above 1, recent tokens become less likely [default: 1]')
            [CompletionResult]::new('--seed', '--seed', [CompletionResultType]::ParameterName, 'The same seed gives the same reply')
            [CompletionResult]::new('--stop', '--stop', [CompletionResultType]::ParameterName, 'A text that ends the reply; may be given several times')
            [CompletionResult]::new('--agent', '--agent', [CompletionResultType]::ParameterName, 'Go on with this agent''s conversation, and remember this turn')
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are [default: local]')
            [CompletionResult]::new('--fork-from', '--fork-from', [CompletionResultType]::ParameterName, 'Begin with a copy of this agent''s conversation')
            [CompletionResult]::new('--kv-bits', '--kv-bits', [CompletionResultType]::ParameterName, 'Bits of the KV cache, as 8 or 8/4r [default: the model''s]')
            [CompletionResult]::new('--device', '--device', [CompletionResultType]::ParameterName, 'What computes: cpu, portable or auto [default: auto]')
            [CompletionResult]::new('--threads', '--threads', [CompletionResultType]::ParameterName, 'Threads of the CPU kernels [default: all physical cores]')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--ephemeral', '--ephemeral', [CompletionResultType]::ParameterName, 'Go on from the conversation and remember nothing of this turn')
            [CompletionResult]::new('--read-only', '--read-only', [CompletionResultType]::ParameterName, 'Change nothing on disk, so that a server may run; implies --ephemeral')
            [CompletionResult]::new('--raw', '--raw', [CompletionResultType]::ParameterName, 'Continue the prompt as it is, without the model''s chat template')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of the text')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on stderr unless something fails')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on stderr unless something fails')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            [CompletionResult]::new('list', 'list', [CompletionResultType]::ParameterValue, 'List agents with what they take')
            [CompletionResult]::new('show', 'show', [CompletionResultType]::ParameterValue, 'Show what an agent has: its saves, its blocks, and on request its text')
            [CompletionResult]::new('evict', 'evict', [CompletionResultType]::ParameterValue, 'Remove agents from disk')
            [CompletionResult]::new('verify', 'verify', [CompletionResultType]::ParameterValue, 'Read every byte and say what is damaged; exit code 1 if something is')
            [CompletionResult]::new('repair', 'repair', [CompletionResultType]::ParameterValue, 'Keep the longest good part of what is damaged, and put the rest into quarantine')
            [CompletionResult]::new('gc', 'gc', [CompletionResultType]::ParameterValue, 'Remove what no agent needs any more')
            [CompletionResult]::new('du', 'du', [CompletionResultType]::ParameterValue, 'Say how much disk space agents take')
            [CompletionResult]::new('fork', 'fork', [CompletionResultType]::ParameterValue, 'Give a new agent the memory of another')
            [CompletionResult]::new('rollback', 'rollback', [CompletionResultType]::ParameterValue, 'Go back to an older save of an agent')
            [CompletionResult]::new('pin', 'pin', [CompletionResultType]::ParameterValue, 'Keep an agent on disk when others need room, up to half of it')
            [CompletionResult]::new('unpin', 'unpin', [CompletionResultType]::ParameterValue, 'Let an agent go when others need the room')
            [CompletionResult]::new('ttl', 'ttl', [CompletionResultType]::ParameterValue, 'Say how long after its last turn an agent goes')
            [CompletionResult]::new('export', 'export', [CompletionResultType]::ParameterValue, 'Write an agent to a file, for another machine')
            [CompletionResult]::new('import', 'import', [CompletionResultType]::ParameterValue, 'Take in an agent from such a file')
            [CompletionResult]::new('explain', 'explain', [CompletionResultType]::ParameterValue, 'Say why a prompt, or its last conversation, does not go on from what an agent has')
            break
        }
        'semantic;cache;list' {
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--all-namespaces', '--all-namespaces', [CompletionResultType]::ParameterName, 'The agents of all namespaces')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;show' {
            [CompletionResult]::new('--generation', '--generation', [CompletionResultType]::ParameterName, 'The save to look into [default: the newest]')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'The model whose tokens these are, if it is not where it was [default: the save''s]')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'The model whose tokens these are, if it is not where it was [default: the save''s]')
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--text', '--text', [CompletionResultType]::ParameterName, 'Also print the text of the conversation; needs the model''s tokenizer')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;evict' {
            [CompletionResult]::new('--older-than', '--older-than', [CompletionResultType]::ParameterName, 'Those that were not used for so long and are not pinned: 90m, 12h, 30d, 8w')
            [CompletionResult]::new('--to-size', '--to-size', [CompletionResultType]::ParameterName, 'Those that were not used for the longest time and are not pinned, until the rest needs at most so much: 500MB, 10GB')
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--all', '--all', [CompletionResultType]::ParameterName, 'All agents of the namespace')
            [CompletionResult]::new('-y', '-y', [CompletionResultType]::ParameterName, 'Do not ask; needed where there is no terminal')
            [CompletionResult]::new('--yes', '--yes', [CompletionResultType]::ParameterName, 'Do not ask; needed where there is no terminal')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;verify' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;repair' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;gc' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;du' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;fork' {
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;rollback' {
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;pin' {
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;unpin' {
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;ttl' {
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;export' {
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--force', '--force', [CompletionResultType]::ParameterName, 'Replace the file if it is there')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;import' {
            [CompletionResult]::new('--as', '--as', [CompletionResultType]::ParameterName, 'Call the agent so [default: as it was called]')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'The model that is to go on [default: the one of the file]')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'The model that is to go on [default: the one of the file]')
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;cache;explain' {
            [CompletionResult]::new('--prompt', '--prompt', [CompletionResultType]::ParameterName, 'The prompt to compare with, as `generate` would send it; `-` reads stdin [default: compare the agent''s last conversation with the one before]')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'The system message before the prompt')
            [CompletionResult]::new('--system', '--system', [CompletionResultType]::ParameterName, 'The system message before the prompt')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'The model that is to go on [default: the one it was saved with]')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'The model that is to go on [default: the one it was saved with]')
            [CompletionResult]::new('--kv-bits', '--kv-bits', [CompletionResultType]::ParameterName, 'Bits of the KV cache it is to go on with [default: the model''s]')
            [CompletionResult]::new('--namespace', '--namespace', [CompletionResultType]::ParameterName, 'Whose agents these are')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--raw', '--raw', [CompletionResultType]::ParameterName, 'The prompt is what a chat template made already')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print one JSON object instead of text')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;bench' {
            [CompletionResult]::new('--suite', '--suite', [CompletionResultType]::ParameterName, 'What to measure, repeatable [default: what needs no other programs]')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'A short name, org/name[@revision][:FILE] on the hub, or a path')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'A short name, org/name[@revision][:FILE] on the hub, or a path')
            [CompletionResult]::new('--kv-bits', '--kv-bits', [CompletionResultType]::ParameterName, 'Bits of the KV cache, as 8 or 8/4r [default: the model''s]')
            [CompletionResult]::new('--device', '--device', [CompletionResultType]::ParameterName, 'What computes: cpu, portable or auto [default: auto]')
            [CompletionResult]::new('--threads', '--threads', [CompletionResultType]::ParameterName, 'Threads of the CPU kernels [default: all physical cores]')
            [CompletionResult]::new('--runs', '--runs', [CompletionResultType]::ParameterName, 'Timed rounds, after one that is not counted [default: 5, quick: 3]')
            [CompletionResult]::new('--prompt-tokens', '--prompt-tokens', [CompletionResultType]::ParameterName, 'Prompt lengths of `prefill`, in tokens [default: 128,512,2048,4096]')
            [CompletionResult]::new('--contexts', '--contexts', [CompletionResultType]::ParameterName, 'Tokens in the context before `decode` begins [default: 128,2048]')
            [CompletionResult]::new('--decode-tokens', '--decode-tokens', [CompletionResultType]::ParameterName, 'Tokens that `decode` and `batch` generate per sequence [default: 64]')
            [CompletionResult]::new('--sequences', '--sequences', [CompletionResultType]::ParameterName, 'Sequences that `batch` decodes together [default: 1,2,4,8,16]')
            [CompletionResult]::new('--batch-context', '--batch-context', [CompletionResultType]::ParameterName, 'Tokens in the context of each sequence before `batch` begins [default: 128]')
            [CompletionResult]::new('--restore-tokens', '--restore-tokens', [CompletionResultType]::ParameterName, 'Tokens of the conversations that `restore` brings back [default: 64,512,1024,2048,4096,8000]')
            [CompletionResult]::new('--agents', '--agents', [CompletionResultType]::ParameterName, 'Agents that `store` opens and lists [default: 10000]')
            [CompletionResult]::new('--server-percent', '--server-percent', [CompletionResultType]::ParameterName, 'How much of their requests `server` and `baselines` send; what `server` promises is about all')
            [CompletionResult]::new('--load-seconds', '--load-seconds', [CompletionResultType]::ParameterName, 'How long `server` holds the load of 80 % [default: 300, with all suites 60, quick: 3]')
            [CompletionResult]::new('--race-agents', '--race-agents', [CompletionResultType]::ParameterName, 'Agents in the race of `agents`; there is memory for three [default: 10, quick: 4]')
            [CompletionResult]::new('--race-context', '--race-context', [CompletionResultType]::ParameterName, 'What each begins with, in tokens; a quarter is the same for all [default: 4000, quick: 500]')
            [CompletionResult]::new('--race-turns', '--race-turns', [CompletionResultType]::ParameterName, 'Turns of the race; after half of them the server is killed [default: 60, quick: 8]')
            [CompletionResult]::new('--text', '--text', [CompletionResultType]::ParameterName, 'The text of `kv-quality`, `fidelity`, `restore` and `store` [default: this project''s own documents]')
            [CompletionResult]::new('--tokens', '--tokens', [CompletionResultType]::ParameterName, 'Tokens of the text that are used; what `fidelity` promises is about 2048 and more [default: 2048 for kv-quality, 256 for fidelity]')
            [CompletionResult]::new('--peer-llama-bench', '--peer-llama-bench', [CompletionResultType]::ParameterName, 'Also run this llama-bench, and llama-batched-bench beside it')
            [CompletionResult]::new('--peer-server', '--peer-server', [CompletionResultType]::ParameterName, 'Let this llama-server take part in `restore` and `agents`')
            [CompletionResult]::new('--peer-model', '--peer-model', [CompletionResultType]::ParameterName, 'The GGUF file that the peer runs')
            [CompletionResult]::new('--peer-mlx', '--peer-mlx', [CompletionResultType]::ParameterName, 'Let mlx-lm''s server, run by this Python, have a short race in `agents`')
            [CompletionResult]::new('--peer-mlx-model', '--peer-mlx-model', [CompletionResultType]::ParameterName, 'The folder of the model that mlx-lm runs')
            [CompletionResult]::new('--url', '--url', [CompletionResultType]::ParameterName, 'Compare with this OpenAI-compatible server only, repeatable')
            [CompletionResult]::new('--url-key', '--url-key', [CompletionResultType]::ParameterName, 'The variable of the environment that has this server''s API key')
            [CompletionResult]::new('--url-model', '--url-model', [CompletionResultType]::ParameterName, 'Which of this server''s models to ask [default: the first that it lists]')
            [CompletionResult]::new('--make-model', '--make-model', [CompletionResultType]::ParameterName, 'Write a GGUF file with random weights instead: smollm2-135m, llama-3.2-1b or llama-3.1-8b')
            [CompletionResult]::new('--out', '--out', [CompletionResultType]::ParameterName, 'The file that --make-model writes')
            [CompletionResult]::new('--quantisation', '--quantisation', [CompletionResultType]::ParameterName, 'How --make-model stores the layers'' weights: q4_0 or q4_1; embedding and head are Q8_0')
            [CompletionResult]::new('--seed', '--seed', [CompletionResultType]::ParameterName, 'The same seed gives the same weights')
            [CompletionResult]::new('--child', '--child', [CompletionResultType]::ParameterName, 'Do the part of a suite that this file describes, in a process of its own')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Write the report as JSON; `-` prints it instead of tables')
            [CompletionResult]::new('--html', '--html', [CompletionResultType]::ParameterName, 'Write the report as a page that needs nothing else; `-` prints it')
            [CompletionResult]::new('--plot', '--plot', [CompletionResultType]::ParameterName, 'Draw TTFT by the length of what `restore` brings back, as SVG; `-` prints it')
            [CompletionResult]::new('--from', '--from', [CompletionResultType]::ParameterName, 'Measure nothing: show, compare, check or draw the report in this file')
            [CompletionResult]::new('--against', '--against', [CompletionResultType]::ParameterName, 'Mark what is worse than in this report, and exit with 1 if anything is')
            [CompletionResult]::new('--tolerance', '--tolerance', [CompletionResultType]::ParameterName, 'How much worse a figure may be, beside the old runs'' noise')
            [CompletionResult]::new('--check', '--check', [CompletionResultType]::ParameterName, 'Exit with 1 if a target is missed; `--check=all` also if a promise is not kept')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--quick', '--quick', [CompletionResultType]::ParameterName, 'Take a minute: fewer suites, smaller work')
            [CompletionResult]::new('--force', '--force', [CompletionResultType]::ParameterName, 'Let --make-model replace a file')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on stderr unless something fails')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on stderr unless something fails')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;health' {
            [CompletionResult]::new('--url', '--url', [CompletionResultType]::ParameterName, 'Ask the server there, such as http://localhost:8000, instead of looking at this machine')
            [CompletionResult]::new('--probe', '--probe', [CompletionResultType]::ParameterName, 'What to ask the server')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'How long to wait for its answer, in seconds')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'A short name, org/name[@revision][:FILE] on the hub, or a path')
            [CompletionResult]::new('--model', '--model', [CompletionResultType]::ParameterName, 'A short name, org/name[@revision][:FILE] on the hub, or a path')
            [CompletionResult]::new('--kv-bits', '--kv-bits', [CompletionResultType]::ParameterName, 'Bits of the KV cache, as 8 or 8/4r [default: the model''s]')
            [CompletionResult]::new('--device', '--device', [CompletionResultType]::ParameterName, 'What computes: cpu, portable or auto [default: auto]')
            [CompletionResult]::new('--threads', '--threads', [CompletionResultType]::ParameterName, 'Threads of the CPU kernels [default: all physical cores]')
            [CompletionResult]::new('--kv-pool-mb', '--kv-pool-mb', [CompletionResultType]::ParameterName, 'Memory for the KV of all agents, in MB, as `serve` would be given it')
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;pull' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Say nothing on stderr unless something fails')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Say nothing on stderr unless something fails')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;models' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('-a', '-a', [CompletionResultType]::ParameterName, 'Also list the catalogue''s models that are not here')
            [CompletionResult]::new('--all', '--all', [CompletionResultType]::ParameterName, 'Also list the catalogue''s models that are not here')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
        'semantic;completions' {
            [CompletionResult]::new('--config', '--config', [CompletionResultType]::ParameterName, 'The configuration file, instead of the one in the usual place')
            [CompletionResult]::new('--data-dir', '--data-dir', [CompletionResultType]::ParameterName, 'The folder for everything the program stores')
            [CompletionResult]::new('--log-level', '--log-level', [CompletionResultType]::ParameterName, 'What to log on stderr: error, warn, info, debug or trace, also per module [default: info for `serve` without --quiet, else warn]')
            [CompletionResult]::new('--log-format', '--log-format', [CompletionResultType]::ParameterName, 'How to log it')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help on one screen')
            [CompletionResult]::new('--help-all', '--help-all', [CompletionResultType]::ParameterName, 'Print help with every flag and its variable')
            break
        }
    })

    $completions.Where{ $_.CompletionText -like "$wordToComplete*" } |
        Sort-Object -Property ListItemText
}
