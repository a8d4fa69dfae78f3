# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pvferry_global_optspecs
    string join \n log-format= metrics= h/help V/version
end

function __fish_pvferry_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pvferry_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pvferry_using_subcommand
    set -l cmd (__fish_pvferry_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pvferry -n "__fish_pvferry_needs_command" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_needs_command" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_needs_command" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_needs_command" -s V -l version -d 'Print version'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "copy" -d 'Copy a directory or block device on this machine, over TLS on loopback with throw-away keys'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "sync" -d 'Send a volume: the container of the Source Transfer Pod that holds it'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "tunnel" -d 'Carry plaintext of this pod over mutual TLS to a server'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "serve" -d 'Receive volumes: the container of the Destination Transfer Pod'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "digest" -d 'Print one digest of a tree or block device: names, metadata and content'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "verify" -d 'Name every difference between two trees or block devices'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "pki" -d 'Make the keys and certificates of a migration'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "completions" -d 'Print a completion script'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "man" -d 'Print the manual page'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l max-delete -d 'Remove no more than N entries; exit with 25 when there would be more' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l exclude -d 'Leave out what matches, on both sides; the first --exclude or --include that matches decides' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l include -d 'Keep what matches' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l bwlimit -d 'Send at most RATE bytes a second: a number with K, M or G; KiB where it has none' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l compress -d 'Compress what is sent' -r -f -a "auto\t'Where a sample shows that it pays'
never\t'Never'
zstd\t'Always, with Zstandard'"
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l streams -d 'Use N connections side by side; worth it on long links' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l progress -d 'Show progress as a bar, or as one JSON object a second' -r -f -a "auto\t''
bar\t''
json\t''
none\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l timeout -d 'Give up after SECONDS without a sign of life from the other end' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l delete -d 'Remove what the source does not have'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s c -l checksum -d 'Compare content, not size and modification time'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l verify -d 'Afterwards read both trees again and compare their digests'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l atomic -d 'Build every file beside and rename it; never patch one in place'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s n -l dry-run -d 'Change nothing; print what would be done'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s i -l itemize -d 'Print every change as it is made'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l json -d 'End with one JSON object on standard output'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l allow-empty-source -d 'An empty source is meant; without this it is taken for a wrong mount and refused'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l no-owner -d 'Keep owner and group as the destination gives them'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l volume -d 'Name of the volume at the server' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l via -d 'Tunnel of this pod: loopback ADDR:PORT or unix:PATH' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l connect -d 'Server, reached by TLS from this process: HOST:PORT' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l identity -d 'Directory with ca.crt, tls.crt and tls.key, for --connect' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l server-name -d 'Name to ask the server for (SNI), where it is not the host of --connect' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l marker-dir -d 'Leave a completion marker, VOLUME.done, in DIR when it ends, well or badly' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l termination-log -d 'Write the termination message here [default: /dev/termination-log where there is one]' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l wait -d 'How long to wait for the tunnel, the server and the volume, in seconds' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l attempts -d 'How often to begin again after a connection is lost, within this run' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l max-delete -d 'Remove no more than N entries; exit with 25 when there would be more' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l exclude -d 'Leave out what matches, on both sides; the first --exclude or --include that matches decides' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l include -d 'Keep what matches' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l bwlimit -d 'Send at most RATE bytes a second: a number with K, M or G; KiB where it has none' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l compress -d 'Compress what is sent' -r -f -a "auto\t'Where a sample shows that it pays'
never\t'Never'
zstd\t'Always, with Zstandard'"
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l streams -d 'Use N connections side by side; worth it on long links' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l progress -d 'Show progress as a bar, or as one JSON object a second' -r -f -a "auto\t''
bar\t''
json\t''
none\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l timeout -d 'Give up after SECONDS without a sign of life from the other end' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l delete -d 'Remove what the source does not have'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s c -l checksum -d 'Compare content, not size and modification time'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l verify -d 'Afterwards read both trees again and compare their digests'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l atomic -d 'Build every file beside and rename it; never patch one in place'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s n -l dry-run -d 'Change nothing; print what would be done'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s i -l itemize -d 'Print every change as it is made'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l json -d 'End with one JSON object on standard output'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l allow-empty-source -d 'An empty source is meant; without this it is taken for a wrong mount and refused'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l no-owner -d 'Keep owner and group as the destination gives them'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l listen -d 'Listen address for plaintext, for every volume that the identity permits: loopback ADDR:PORT, or unix:PATH' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l volume -d 'Listen on DIR/tunnel.sock for volume NAME and no other, with the identity in the subdirectory NAME of --identity; its completion marker is expected in DIR. May be given several times, each with its own DIR' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l connect -d 'The TLS server: HOST:PORT' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l identity -d 'Directory with ca.crt, tls.crt and tls.key, or with --volume one subdirectory with them for each volume; read again when they rotate' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l server-name -d 'Name to ask the server for (SNI), where it is not the host of --connect' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l exit-when -d 'Exit 0 once N completion markers exist, in --marker-dir or in the directories of --volume' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l marker-dir -d 'Directory of the completion markers, shared with the sync containers; must hold none of an earlier run' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l idle -d 'With --exit-when: leave with 30 after SECONDS without any connection' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l termination-log -d 'Write the termination message here if it fails [default: /dev/termination-log where there is one]' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l listen -d 'Where TLS connections are taken: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l identity -d 'Directory with ca.crt, tls.crt and tls.key; read again when they rotate' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l volume -d 'A volume by its name, and where it is mounted; may be given several times' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l allow-delete -d 'Let a source delete files with sync --delete: in every volume, or in NAME. Refused by default' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l max-delete -d 'Let a source delete at most N entries in each run, in every volume or in NAME; the lower limit of both ends holds' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l allow-empty-source -d 'Accept sync --allow-empty-source: for every volume, or for NAME. Refused by default' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l no-delta -d 'Send no hash or other answer about the content of existing files: in every volume, or in NAME. Changed files are received whole' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l exit-when -d 'Leave when N volumes have been received to their end' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l termination-log -d 'Write the termination message here [default: /dev/termination-log where there is one]' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l timeout -d 'Give up on a session after SECONDS without a sign of life from the other end' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand digest" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand digest" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand digest" -l json -d 'Print one JSON object with counts'
complete -c pvferry -n "__fish_pvferry_using_subcommand digest" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand verify" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand verify" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand verify" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -f -a "init" -d 'Make a certificate authority, and one identity for each role'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -f -a "issue" -d 'Issue an identity by an authority that `init` made, for rotation or for one volume'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -l migration -d 'The id of the migration, which both ends must share' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -l hours -d 'Validity in hours' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l role -d 'For which end' -r -f -a "source\t'The end that sends'
destination\t'The end that receives'"
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l volume -d 'A source that may reach this volume only' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l out -d 'Where ca.crt, tls.crt and tls.key go' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l hours -d 'Validity in hours' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "init" -d 'Make a certificate authority, and one identity for each role'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "issue" -d 'Issue an identity by an authority that `init` made, for rotation or for one volume'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pvferry -n "__fish_pvferry_using_subcommand completions" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand completions" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand completions" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand man" -l log-format -d 'How logs on standard error look' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand man" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz here: ADDR:PORT, or :PORT for every address' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand man" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "copy" -d 'Copy a directory or block device on this machine, over TLS on loopback with throw-away keys'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "sync" -d 'Send a volume: the container of the Source Transfer Pod that holds it'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "tunnel" -d 'Carry plaintext of this pod over mutual TLS to a server'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "serve" -d 'Receive volumes: the container of the Destination Transfer Pod'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "digest" -d 'Print one digest of a tree or block device: names, metadata and content'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "verify" -d 'Name every difference between two trees or block devices'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "pki" -d 'Make the keys and certificates of a migration'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "completions" -d 'Print a completion script'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "man" -d 'Print the manual page'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "init" -d 'Make a certificate authority, and one identity for each role'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "issue" -d 'Issue an identity by an authority that `init` made, for rotation or for one volume'
