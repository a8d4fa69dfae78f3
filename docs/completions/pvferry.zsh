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
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
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
'--max-delete=[Remove no more than N entries; exit with 25 when there would be more]:N:_default' \
'*--exclude=[Leave out what matches, on both sides; the first --exclude or --include that matches decides]:GLOB:_default' \
'*--include=[Keep what matches]:GLOB:_default' \
'--bwlimit=[Send at most RATE bytes a second\: a number with K, M or G; KiB where it has none]:RATE:_default' \
'--compress=[Compress what is sent]:WHEN:((auto\:"Where a sample shows that it pays"
never\:"Never"
zstd\:"Always, with Zstandard"))' \
'--streams=[Use N connections side by side; worth it on long links]:N:_default' \
'--progress=[Show progress as a bar, or as one JSON object a second]:HOW:(auto bar json none)' \
'--timeout=[Give up after SECONDS without a sign of life from the other end]:SECONDS:_default' \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'--delete[Remove what the source does not have]' \
'-c[Compare content, not size and modification time]' \
'--checksum[Compare content, not size and modification time]' \
'--verify[Afterwards read both trees again and compare their digests]' \
'--atomic[Build every file beside and rename it; never patch one in place]' \
'-n[Change nothing; print what would be done]' \
'--dry-run[Change nothing; print what would be done]' \
'-i[Print every change as it is made]' \
'--itemize[Print every change as it is made]' \
'--json[End with one JSON object on standard output]' \
'--allow-empty-source[An empty source is meant; without this it is taken for a wrong mount and refused]' \
'(--verify)--no-owner[Keep owner and group as the destination gives them]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':source -- Directory whose content is copied, or block device:_files' \
':destination -- Directory that becomes like it, or block device:_files' \
&& ret=0
;;
(sync)
_arguments "${_arguments_options[@]}" : \
'--volume=[Name of the volume at the server]:NAME:_default' \
'--via=[Tunnel of this pod\: loopback ADDR\:PORT or unix\:PATH]:ADDR:_default' \
'--connect=[Server, reached by TLS from this process\: HOST\:PORT]:HOST:PORT:_default' \
'--identity=[Directory with ca.crt, tls.crt and tls.key, for --connect]:DIR:_files' \
'--server-name=[Name to ask the server for (SNI), where it is not the host of --connect]:NAME:_default' \
'--marker-dir=[Leave a completion marker, VOLUME.done, in DIR when it ends, well or badly]:DIR:_files' \
'--termination-log=[Write the termination message here \[default\: /dev/termination-log where there is one\]]:FILE:_files' \
'--wait=[How long to wait for the tunnel, the server and the volume, in seconds]:SECONDS:_default' \
'--attempts=[How often to begin again after a connection is lost, within this run]:N:_default' \
'--max-delete=[Remove no more than N entries; exit with 25 when there would be more]:N:_default' \
'*--exclude=[Leave out what matches, on both sides; the first --exclude or --include that matches decides]:GLOB:_default' \
'*--include=[Keep what matches]:GLOB:_default' \
'--bwlimit=[Send at most RATE bytes a second\: a number with K, M or G; KiB where it has none]:RATE:_default' \
'--compress=[Compress what is sent]:WHEN:((auto\:"Where a sample shows that it pays"
never\:"Never"
zstd\:"Always, with Zstandard"))' \
'--streams=[Use N connections side by side; worth it on long links]:N:_default' \
'--progress=[Show progress as a bar, or as one JSON object a second]:HOW:(auto bar json none)' \
'--timeout=[Give up after SECONDS without a sign of life from the other end]:SECONDS:_default' \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'--delete[Remove what the source does not have]' \
'-c[Compare content, not size and modification time]' \
'--checksum[Compare content, not size and modification time]' \
'--verify[Afterwards read both trees again and compare their digests]' \
'--atomic[Build every file beside and rename it; never patch one in place]' \
'-n[Change nothing; print what would be done]' \
'--dry-run[Change nothing; print what would be done]' \
'-i[Print every change as it is made]' \
'--itemize[Print every change as it is made]' \
'--json[End with one JSON object on standard output]' \
'--allow-empty-source[An empty source is meant; without this it is taken for a wrong mount and refused]' \
'(--verify)--no-owner[Keep owner and group as the destination gives them]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':source -- Directory whose content is sent, or block device:_files' \
&& ret=0
;;
(tunnel)
_arguments "${_arguments_options[@]}" : \
'--listen=[Listen address for plaintext, for every volume that the identity permits\: loopback ADDR\:PORT, or unix\:PATH]:ADDR:_default' \
'*--volume=[Listen on DIR/tunnel.sock for volume NAME and no other, with the identity in the subdirectory NAME of --identity; its completion marker is expected in DIR. May be given several times, each with its own DIR]:NAME=DIR:_default' \
'--connect=[The TLS server\: HOST\:PORT]:HOST:PORT:_default' \
'--identity=[Directory with ca.crt, tls.crt and tls.key, or with --volume one subdirectory with them for each volume; read again when they rotate]:DIR:_files' \
'--server-name=[Name to ask the server for (SNI), where it is not the host of --connect]:NAME:_default' \
'--exit-when=[Exit 0 once N completion markers exist, in --marker-dir or in the directories of --volume]:N:_default' \
'--marker-dir=[Directory of the completion markers, shared with the sync containers; must hold none of an earlier run]:DIR:_files' \
'--idle=[With --exit-when\: leave with 30 after SECONDS without any connection]:SECONDS:_default' \
'--termination-log=[Write the termination message here if it fails \[default\: /dev/termination-log where there is one\]]:FILE:_files' \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(serve)
_arguments "${_arguments_options[@]}" : \
'--listen=[Where TLS connections are taken\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'--identity=[Directory with ca.crt, tls.crt and tls.key; read again when they rotate]:DIR:_files' \
'*--volume=[A volume by its name, and where it is mounted; may be given several times]:NAME=PATH:_default' \
'*--allow-delete=[Let a source delete files with sync --delete\: in every volume, or in NAME. Refused by default]::NAME:_default' \
'*--max-delete=[Let a source delete at most N entries in each run, in every volume or in NAME; the lower limit of both ends holds]:[NAME=]N:_default' \
'*--allow-empty-source=[Accept sync --allow-empty-source\: for every volume, or for NAME. Refused by default]::NAME:_default' \
'*--no-delta=[Send no hash or other answer about the content of existing files\: in every volume, or in NAME. Changed files are received whole]::NAME:_default' \
'--exit-when=[Leave when N volumes have been received to their end]:N:_default' \
'--termination-log=[Write the termination message here \[default\: /dev/termination-log where there is one\]]:FILE:_files' \
'--timeout=[Give up on a session after SECONDS without a sign of life from the other end]:SECONDS:_default' \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(digest)
_arguments "${_arguments_options[@]}" : \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'--json[Print one JSON object with counts]' \
'-h[Print help]' \
'--help[Print help]' \
':path -- Directory or block device:_files' \
&& ret=0
;;
(verify)
_arguments "${_arguments_options[@]}" : \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
':a -- One directory or block device:_files' \
':b -- The other:_files' \
&& ret=0
;;
(pki)
_arguments "${_arguments_options[@]}" : \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
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
'--migration=[The id of the migration, which both ends must share]:UID:_default' \
'--hours=[Validity in hours]:HOURS:_default' \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
':directory -- Where ca.crt, ca.key, source/ and destination/ go:_files' \
&& ret=0
;;
(issue)
_arguments "${_arguments_options[@]}" : \
'--role=[For which end]:ROLE:((source\:"The end that sends"
destination\:"The end that receives"))' \
'--volume=[A source that may reach this volume only]:NAME:_default' \
'--out=[Where ca.crt, tls.crt and tls.key go]:OUT:_files' \
'--hours=[Validity in hours]:HOURS:_default' \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':directory -- The directory that `init` made:_files' \
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
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
'-h[Print help]' \
'--help[Print help]' \
':shell -- Which shell to complete in:(bash elvish fish powershell zsh)' \
&& ret=0
;;
(man)
_arguments "${_arguments_options[@]}" : \
'--log-format=[How logs on standard error look]:FORMAT:(text json)' \
'--metrics=[Serve Prometheus metrics, /healthz and /readyz here\: ADDR\:PORT, or \:PORT for every address]:ADDR:_default' \
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
'copy:Copy a directory or block device on this machine, over TLS on loopback with throw-away keys' \
'sync:Send a volume\: the container of the Source Transfer Pod that holds it' \
'tunnel:Carry plaintext of this pod over mutual TLS to a server' \
'serve:Receive volumes\: the container of the Destination Transfer Pod' \
'digest:Print one digest of a tree or block device\: names, metadata and content' \
'verify:Name every difference between two trees or block devices' \
'pki:Make the keys and certificates of a migration' \
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
'copy:Copy a directory or block device on this machine, over TLS on loopback with throw-away keys' \
'sync:Send a volume\: the container of the Source Transfer Pod that holds it' \
'tunnel:Carry plaintext of this pod over mutual TLS to a server' \
'serve:Receive volumes\: the container of the Destination Transfer Pod' \
'digest:Print one digest of a tree or block device\: names, metadata and content' \
'verify:Name every difference between two trees or block devices' \
'pki:Make the keys and certificates of a migration' \
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
'init:Make a certificate authority, and one identity for each role' \
'issue:Issue an identity by an authority that \`init\` made, for rotation or for one volume' \
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
'init:Make a certificate authority, and one identity for each role' \
'issue:Issue an identity by an authority that \`init\` made, for rotation or for one volume' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'pvferry pki commands' commands "$@"
}
(( $+functions[_pvferry__subcmd__pki__subcmd__help_commands] )) ||
_pvferry__subcmd__pki__subcmd__help_commands() {
    local commands; commands=(
'init:Make a certificate authority, and one identity for each role' \
'issue:Issue an identity by an authority that \`init\` made, for rotation or for one volume' \
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
