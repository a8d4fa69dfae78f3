#compdef pvferry

autoload -U is-at-least

_pvferry() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_pvferry_commands" \
"*::: :->pvferry" \
&& ret=0
    case $state in
    (pvferry)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:pvferry-command-$line[1]:"
        case $line[1] in
            (copy)
_arguments "${_arguments_options[@]}" : \
'--max-delete=[Stop deleting after N entries and exit 25]:N:_default' \
'*--exclude=[Exclude matching files (rsync patterns). The first matching rule wins; excluded files are not deleted either]:GLOB:_default' \
'*--include=[Include matching files, even if a later --exclude matches them]:GLOB:_default' \
'*--exclude-from=[Read --exclude patterns from FILE, one per line ('\''-'\''\: standard input)]:FILE:_default' \
'*--include-from=[Read --include patterns from FILE, one per line ('\''-'\''\: standard input)]:FILE:_default' \
'*-f+[Add a rule in rsync'\''s form\: '\''+ PATTERN'\'' includes, '\''- PATTERN'\'' excludes, '\''!'\'' clears all rules before it]:RULE:_default' \
'*--filter=[Add a rule in rsync'\''s form\: '\''+ PATTERN'\'' includes, '\''- PATTERN'\'' excludes, '\''!'\'' clears all rules before it]:RULE:_default' \
'--bwlimit=[Limit the send rate, e.g. 500K, 20M, 1.5G per second (default unit\: KiB; KB and MB count in thousands; 0\: no limit)]:RATE:_default' \
'--compress=[Compress the data that is sent\: auto (if a sample shows that it helps), never, or zstd (always)]:WHEN:(auto never zstd)' \
'--streams=[Number of parallel connections (helps on high-latency links)]:N:_default' \
'--timeout=[Fail after SECONDS without traffic from the peer]:SECONDS:_default' \
'--progress=[Progress output\: bar, or one JSON object per second (auto\: bar on a terminal, json in a pod, else none; without a value\: bar)]:HOW:(auto bar json none)' \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-c[Compare file content instead of size and modification time]' \
'--checksum[Compare file content instead of size and modification time]' \
'--verify[After the transfer, re-read both sides and compare digests]' \
'--atomic[Write changed files to a temporary file and rename it (needs extra space); default is to patch large files in place]' \
'(--verify)--no-owner[Do not preserve owner and group]' \
'--allow-empty-source[Allow an empty source (refused by default\: usually a missing mount)]' \
'-n[Show what would be done, change nothing]' \
'--dry-run[Show what would be done, change nothing]' \
'--delete[Delete files at the destination that are not in the source]' \
'(--compress)-z[Same as --compress=zstd]' \
'-i[List every change as it is made]' \
'--itemize[List every change as it is made]' \
'*-v[Same as --itemize; -vv adds debug logs]' \
'*--verbose[Same as --itemize; -vv adds debug logs]' \
'(--progress)-P[Same as --progress=bar]' \
'--json[Print the result as one JSON object]' \
'--help[Print help]' \
'*-a[]' \
'*--archive[]' \
'*-r[]' \
'*--recursive[]' \
'*-l[]' \
'*--links[]' \
'*-p[]' \
'*--perms[]' \
'*-t[]' \
'*--times[]' \
'*-g[]' \
'*--group[]' \
'*-o[]' \
'*--owner[]' \
'*-D[]' \
'*--specials[]' \
'*-H[]' \
'*--hard-links[]' \
'*-A[]' \
'*--acls[]' \
'*-X[]' \
'*--xattrs[]' \
'*-S[]' \
'*--sparse[]' \
'*-x[]' \
'*--one-file-system[]' \
'*--numeric-ids[]' \
'*--partial[]' \
'*-h[]' \
'*--human-readable[]' \
':source -- Source\: directory whose content is copied into DST (with or without a final slash), or block device:_files' \
':destination -- Destination directory or block device:_files' \
&& ret=0
;;
(sync)
_arguments "${_arguments_options[@]}" : \
'--volume=[Volume at the server that receives the content]:NAME:_default' \
'--via=[Tunnel to send through\: loopback ADDR\:PORT or unix\:PATH]:ADDR:_default' \
'--connect=[Server to connect to directly over TLS\: HOST\:PORT]:HOST:PORT:_default' \
'--identity=[Directory with ca.crt, tls.crt and tls.key, for --connect]:DIR:_files' \
'--server-name=[TLS server name (SNI) \[default\: host of --connect\]]:NAME:_default' \
'--marker-dir=[On exit, write the result to DIR/VOLUME.done (the completion marker)]:DIR:_files' \
'--termination-log=[Write the termination message to FILE \[default\: /dev/termination-log if it exists\]]:FILE:_files' \
'--wait=[Fail if the tunnel, the server or the volume is not ready after SECONDS]:SECONDS:_default' \
'--attempts=[Maximum number of attempts\: reconnect and resume after a connection is lost]:N:_default' \
'--max-delete=[Stop deleting after N entries and exit 25]:N:_default' \
'*--exclude=[Exclude matching files (rsync patterns). The first matching rule wins; excluded files are not deleted either]:GLOB:_default' \
'*--include=[Include matching files, even if a later --exclude matches them]:GLOB:_default' \
'*--exclude-from=[Read --exclude patterns from FILE, one per line ('\''-'\''\: standard input)]:FILE:_default' \
'*--include-from=[Read --include patterns from FILE, one per line ('\''-'\''\: standard input)]:FILE:_default' \
'*-f+[Add a rule in rsync'\''s form\: '\''+ PATTERN'\'' includes, '\''- PATTERN'\'' excludes, '\''!'\'' clears all rules before it]:RULE:_default' \
'*--filter=[Add a rule in rsync'\''s form\: '\''+ PATTERN'\'' includes, '\''- PATTERN'\'' excludes, '\''!'\'' clears all rules before it]:RULE:_default' \
'--bwlimit=[Limit the send rate, e.g. 500K, 20M, 1.5G per second (default unit\: KiB; KB and MB count in thousands; 0\: no limit)]:RATE:_default' \
'--compress=[Compress the data that is sent\: auto (if a sample shows that it helps), never, or zstd (always)]:WHEN:(auto never zstd)' \
'--streams=[Number of parallel connections (helps on high-latency links)]:N:_default' \
'--timeout=[Fail after SECONDS without traffic from the peer]:SECONDS:_default' \
'--progress=[Progress output\: bar, or one JSON object per second (auto\: bar on a terminal, json in a pod, else none; without a value\: bar)]:HOW:(auto bar json none)' \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-c[Compare file content instead of size and modification time]' \
'--checksum[Compare file content instead of size and modification time]' \
'--verify[After the transfer, re-read both sides and compare digests]' \
'--atomic[Write changed files to a temporary file and rename it (needs extra space); default is to patch large files in place]' \
'(--verify)--no-owner[Do not preserve owner and group]' \
'--allow-empty-source[Allow an empty source (refused by default\: usually a missing mount)]' \
'-n[Show what would be done, change nothing]' \
'--dry-run[Show what would be done, change nothing]' \
'--delete[Delete files at the destination that are not in the source]' \
'(--compress)-z[Same as --compress=zstd]' \
'-i[List every change as it is made]' \
'--itemize[List every change as it is made]' \
'*-v[Same as --itemize; -vv adds debug logs]' \
'*--verbose[Same as --itemize; -vv adds debug logs]' \
'(--progress)-P[Same as --progress=bar]' \
'--json[Print the result as one JSON object]' \
'--help[Print help]' \
'*-a[]' \
'*--archive[]' \
'*-r[]' \
'*--recursive[]' \
'*-l[]' \
'*--links[]' \
'*-p[]' \
'*--perms[]' \
'*-t[]' \
'*--times[]' \
'*-g[]' \
'*--group[]' \
'*-o[]' \
'*--owner[]' \
'*-D[]' \
'*--specials[]' \
'*-H[]' \
'*--hard-links[]' \
'*-A[]' \
'*--acls[]' \
'*-X[]' \
'*--xattrs[]' \
'*-S[]' \
'*--sparse[]' \
'*-x[]' \
'*--one-file-system[]' \
'*--numeric-ids[]' \
'*--partial[]' \
'*-h[]' \
'*--human-readable[]' \
':source -- Source\: directory whose content is sent, or block device:_files' \
&& ret=0
;;
(tunnel)
_arguments "${_arguments_options[@]}" : \
'--listen=[Listen address for plaintext\: loopback ADDR\:PORT or unix\:PATH]:ADDR:_default' \
'*--volume=[Listen on DIR/tunnel.sock for volume NAME only, with the identity in the subdirectory NAME of --identity. Its completion marker is expected in DIR. Can be repeated, with a different DIR for each volume]:NAME=DIR:_default' \
'--connect=[TLS server to forward to\: HOST\:PORT]:HOST:PORT:_default' \
'--identity=[Directory with ca.crt, tls.crt and tls.key (with --volume\: one such subdirectory per volume); reloaded when they rotate]:DIR:_files' \
'--server-name=[TLS server name (SNI) \[default\: host of --connect\]]:NAME:_default' \
'--exit-when=[Exit 0 once N completion markers exist in --marker-dir (or in the directories of --volume)]:N:_default' \
'--marker-dir=[Directory of the completion markers, shared with the sync containers. Remove markers of earlier runs first]:DIR:_files' \
'--idle=[With --exit-when\: exit 30 after SECONDS without a connection]:SECONDS:_default' \
'--termination-log=[On failure, write the termination message to FILE \[default\: /dev/termination-log if it exists\]]:FILE:_files' \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(serve)
_arguments "${_arguments_options[@]}" : \
'--listen=[Listen address for TLS\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'--identity=[Directory with ca.crt, tls.crt and tls.key; reloaded when they rotate]:DIR:_files' \
'*--volume=[Name of a volume and the directory or block device that holds it; can be repeated]:NAME=PATH:_default' \
'*--allow-delete=[Allow sync --delete for all volumes, or for volume NAME (refused by default)]::NAME:_default' \
'*--max-delete=[Allow at most N deletions per run in each volume, or in volume NAME; if sync sets a limit too, the lower one applies]:[NAME=]N:_default' \
'*--allow-empty-source=[Allow sync --allow-empty-source for all volumes, or for volume NAME (refused by default)]::NAME:_default' \
'*--no-delta=[Do not reveal hashes of existing files to the source, for all volumes or for volume NAME; changed files are received whole]::NAME:_default' \
'--exit-when=[Exit after N volumes have been received]:N:_default' \
'--termination-log=[Write the termination message to FILE \[default\: /dev/termination-log if it exists\]]:FILE:_files' \
'--timeout=[End a session after SECONDS without traffic from the peer]:SECONDS:_default' \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(digest)
_arguments "${_arguments_options[@]}" : \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'--json[Print one JSON object with counts]' \
'-h[Print help]' \
'--help[Print help]' \
':path -- Directory or block device:_files' \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'--json[Print the result as one JSON object]' \
'-h[Print help]' \
'--help[Print help]' \
':source -- Source directory or block device:_files' \
':destination -- Destination directory or block device:_files' \
&& ret=0
;;
(pki)
_arguments "${_arguments_options[@]}" : \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
":: :_pvferry__subcmd__pki_commands" \
"*::: :->pki" \
&& ret=0

    case $state in
    (pki)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:pvferry-pki-command-$line[1]:"
        case $line[1] in
            (init)
_arguments "${_arguments_options[@]}" : \
'--migration=[ID of the migration; source and destination must use the same]:UID:_default' \
'--hours=[Validity in hours]:HOURS:_default' \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
':directory -- Directory to create ca.crt, ca.key, source/ and destination/ in:_files' \
&& ret=0
;;
(issue)
_arguments "${_arguments_options[@]}" : \
'--role=[Role of the identity\: source (sync, tunnel) or destination (serve)]:ROLE:(source destination)' \
'--volume=[Restrict a source identity to this volume]:NAME:_default' \
'--out=[Directory to write ca.crt, tls.crt and tls.key to]:OUT:_files' \
'--hours=[Validity in hours]:HOURS:_default' \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
':directory -- Directory created by `pvferry pki init`:_files' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_pvferry__subcmd__pki__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:pvferry-pki-help-command-$line[1]:"
        case $line[1] in
            (init)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(issue)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(completions)
_arguments "${_arguments_options[@]}" : \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
':shell -- Shell to generate the script for:(bash elvish fish powershell zsh)' \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
'--log-format=[Log format on standard error]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz at this address\: ADDR\:PORT, or \:PORT for all addresses]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_pvferry__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:pvferry-help-command-$line[1]:"
        case $line[1] in
            (copy)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(sync)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(tunnel)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(serve)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(digest)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(pki)
_arguments "${_arguments_options[@]}" : \
":: :_pvferry__subcmd__help__subcmd__pki_commands" \
"*::: :->pki" \
&& ret=0

    case $state in
    (pki)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:pvferry-help-pki-command-$line[1]:"
        case $line[1] in
            (init)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(issue)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(completions)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_pvferry_commands] )) ||
_pvferry_commands() {
    local commands; commands=(
'copy:Copy a directory or block device locally' \
'sync:Send a volume (runs in the source pod)' \
'tunnel:Forward local plaintext connections to a server over mutual TLS' \
'serve:Receive volumes (runs in the destination pod)' \
'digest:Print a digest of a directory tree (names, metadata, content) or block device' \
'verify:Compare two directory trees or block devices and list every difference' \
'pki:Create keys and certificates for a migration' \
'completions:Print a completion script' \
'man:Print the manual page' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'pvferry commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__completions_commands] )) ||
_pvferry__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry completions commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__copy_commands] )) ||
_pvferry__subcmd__copy_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry copy commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__digest_commands] )) ||
_pvferry__subcmd__digest_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry digest commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help_commands] )) ||
_pvferry__subcmd__help_commands() {
    local commands; commands=(
'copy:Copy a directory or block device locally' \
'sync:Send a volume (runs in the source pod)' \
'tunnel:Forward local plaintext connections to a server over mutual TLS' \
'serve:Receive volumes (runs in the destination pod)' \
'digest:Print a digest of a directory tree (names, metadata, content) or block device' \
'verify:Compare two directory trees or block devices and list every difference' \
'pki:Create keys and certificates for a migration' \
'completions:Print a completion script' \
'man:Print the manual page' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'pvferry help commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__completions_commands] )) ||
_pvferry__subcmd__help__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help completions commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__copy_commands] )) ||
_pvferry__subcmd__help__subcmd__copy_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help copy commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__digest_commands] )) ||
_pvferry__subcmd__help__subcmd__digest_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help digest commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__help_commands] )) ||
_pvferry__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help help commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__man_commands] )) ||
_pvferry__subcmd__help__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help man commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__pki_commands] )) ||
_pvferry__subcmd__help__subcmd__pki_commands() {
    local commands; commands=(
'init:Create a certificate authority and one identity per role' \
'issue:Issue an identity with an existing authority\: for rotation, or for one volume' \
    )
    _describe -t commands 'pvferry help pki commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__pki__subcmd__init_commands] )) ||
_pvferry__subcmd__help__subcmd__pki__subcmd__init_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help pki init commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__pki__subcmd__issue_commands] )) ||
_pvferry__subcmd__help__subcmd__pki__subcmd__issue_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help pki issue commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__serve_commands] )) ||
_pvferry__subcmd__help__subcmd__serve_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help serve commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__sync_commands] )) ||
_pvferry__subcmd__help__subcmd__sync_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help sync commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__tunnel_commands] )) ||
_pvferry__subcmd__help__subcmd__tunnel_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help tunnel commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__help__subcmd__verify_commands] )) ||
_pvferry__subcmd__help__subcmd__verify_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry help verify commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__man_commands] )) ||
_pvferry__subcmd__man_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry man commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__pki_commands] )) ||
_pvferry__subcmd__pki_commands() {
    local commands; commands=(
'init:Create a certificate authority and one identity per role' \
'issue:Issue an identity with an existing authority\: for rotation, or for one volume' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'pvferry pki commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__pki__subcmd__help_commands] )) ||
_pvferry__subcmd__pki__subcmd__help_commands() {
    local commands; commands=(
'init:Create a certificate authority and one identity per role' \
'issue:Issue an identity with an existing authority\: for rotation, or for one volume' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'pvferry pki help commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__pki__subcmd__help__subcmd__help_commands] )) ||
_pvferry__subcmd__pki__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry pki help help commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__pki__subcmd__help__subcmd__init_commands] )) ||
_pvferry__subcmd__pki__subcmd__help__subcmd__init_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry pki help init commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__pki__subcmd__help__subcmd__issue_commands] )) ||
_pvferry__subcmd__pki__subcmd__help__subcmd__issue_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry pki help issue commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__pki__subcmd__init_commands] )) ||
_pvferry__subcmd__pki__subcmd__init_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry pki init commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__pki__subcmd__issue_commands] )) ||
_pvferry__subcmd__pki__subcmd__issue_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry pki issue commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__serve_commands] )) ||
_pvferry__subcmd__serve_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry serve commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__sync_commands] )) ||
_pvferry__subcmd__sync_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry sync commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__tunnel_commands] )) ||
_pvferry__subcmd__tunnel_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry tunnel commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__verify_commands] )) ||
_pvferry__subcmd__verify_commands() {
    local commands; commands=()
    _describe -t commands 'pvferry verify commands' commands "$@"
}

if [ "$funcstack[1]" = "_pvferry" ]; then
    _pvferry "$@"
else
    compdef _pvferry pvferry
fi
