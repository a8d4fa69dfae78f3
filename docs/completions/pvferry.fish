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

complete -c pvferry -n "__fish_pvferry_needs_command" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_needs_command" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_needs_command" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_needs_command" -s V -l version -d 'Print version'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "copy" -d 'Copy a directory or block device locally'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "sync" -d 'Send a volume (runs in the source pod)'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "tunnel" -d 'Forward local plaintext connections to a server over mutual TLS'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "serve" -d 'Receive volumes (runs in the destination pod)'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "digest" -d 'Print a digest of a directory tree (names, metadata, content) or block device'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "verify" -d 'Compare two directory trees or block devices and list every difference'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "pki" -d 'Create keys and certificates for a migration'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "completions" -d 'Print a completion script'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "man" -d 'Print the manual page'
complete -c pvferry -n "__fish_pvferry_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l max-delete -d 'Stop deleting after N entries and exit 25' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l exclude -d 'Exclude matching files (rsync patterns). The first matching rule wins; excluded files are not deleted either' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l include -d 'Include matching files, even if a later --exclude matches them' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l exclude-from -d 'Read --exclude patterns from FILE, one per line (\'-\': standard input)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l include-from -d 'Read --include patterns from FILE, one per line (\'-\': standard input)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s f -l filter -d 'Add a rule in rsync\'s form: \'+ PATTERN\' includes, \'- PATTERN\' excludes, \'!\' clears all rules before it' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l bwlimit -d 'Limit the send rate, e.g. 500K, 20M, 1.5G per second (default unit: KiB; KB and MB count in thousands; 0: no limit)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l compress -d 'Compress the data that is sent: auto (if a sample shows that it helps), never, or zstd (always)' -r -f -a "auto\t''
never\t''
zstd\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l streams -d 'Number of parallel connections (helps on high-latency links)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l timeout -d 'Fail after SECONDS without traffic from the peer' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l progress -d 'Progress output: bar, or one JSON object per second (auto: bar on a terminal, json in a pod, else none; without a value: bar)' -r -f -a "auto\t''
bar\t''
json\t''
none\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s c -l checksum -d 'Compare file content instead of size and modification time'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l verify -d 'After the transfer, re-read both sides and compare digests'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l atomic -d 'Write changed files to a temporary file and rename it (needs extra space); default is to patch large files in place'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l no-owner -d 'Do not preserve owner and group'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l allow-empty-source -d 'Allow an empty source (refused by default: usually a missing mount)'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s n -l dry-run -d 'Show what would be done, change nothing'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l delete -d 'Delete files at the destination that are not in the source'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s z -d 'Same as --compress=zstd'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s i -l itemize -d 'List every change as it is made'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s v -l verbose -d 'Same as --itemize; -vv adds debug logs'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s P -d 'Same as --progress=bar'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l json -d 'Print the result as one JSON object'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s a -l archive
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s r -l recursive
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s l -l links
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s p -l perms
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s t -l times
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s g -l group
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s o -l owner
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s D -l specials
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s H -l hard-links
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s A -l acls
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s X -l xattrs
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s S -l sparse
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s x -l one-file-system
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l numeric-ids
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -l partial
complete -c pvferry -n "__fish_pvferry_using_subcommand copy" -s h -l human-readable
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l volume -d 'Volume at the server that receives the content' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l via -d 'Tunnel to send through: loopback ADDR:PORT or unix:PATH' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l connect -d 'Server to connect to directly over TLS: HOST:PORT' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l identity -d 'Directory with ca.crt, tls.crt and tls.key, for --connect' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l server-name -d 'TLS server name (SNI) [default: host of --connect]' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l marker-dir -d 'On exit, write the result to DIR/VOLUME.done (the completion marker)' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l termination-log -d 'Write the termination message to FILE [default: /dev/termination-log if it exists]' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l wait -d 'Fail if the tunnel, the server or the volume is not ready after SECONDS' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l attempts -d 'Maximum number of attempts: reconnect and resume after a connection is lost' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l max-delete -d 'Stop deleting after N entries and exit 25' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l exclude -d 'Exclude matching files (rsync patterns). The first matching rule wins; excluded files are not deleted either' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l include -d 'Include matching files, even if a later --exclude matches them' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l exclude-from -d 'Read --exclude patterns from FILE, one per line (\'-\': standard input)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l include-from -d 'Read --include patterns from FILE, one per line (\'-\': standard input)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s f -l filter -d 'Add a rule in rsync\'s form: \'+ PATTERN\' includes, \'- PATTERN\' excludes, \'!\' clears all rules before it' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l bwlimit -d 'Limit the send rate, e.g. 500K, 20M, 1.5G per second (default unit: KiB; KB and MB count in thousands; 0: no limit)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l compress -d 'Compress the data that is sent: auto (if a sample shows that it helps), never, or zstd (always)' -r -f -a "auto\t''
never\t''
zstd\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l streams -d 'Number of parallel connections (helps on high-latency links)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l timeout -d 'Fail after SECONDS without traffic from the peer' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l progress -d 'Progress output: bar, or one JSON object per second (auto: bar on a terminal, json in a pod, else none; without a value: bar)' -r -f -a "auto\t''
bar\t''
json\t''
none\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s c -l checksum -d 'Compare file content instead of size and modification time'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l verify -d 'After the transfer, re-read both sides and compare digests'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l atomic -d 'Write changed files to a temporary file and rename it (needs extra space); default is to patch large files in place'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l no-owner -d 'Do not preserve owner and group'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l allow-empty-source -d 'Allow an empty source (refused by default: usually a missing mount)'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s n -l dry-run -d 'Show what would be done, change nothing'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l delete -d 'Delete files at the destination that are not in the source'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s z -d 'Same as --compress=zstd'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s i -l itemize -d 'List every change as it is made'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s v -l verbose -d 'Same as --itemize; -vv adds debug logs'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s P -d 'Same as --progress=bar'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l json -d 'Print the result as one JSON object'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s a -l archive
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s r -l recursive
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s l -l links
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s p -l perms
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s t -l times
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s g -l group
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s o -l owner
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s D -l specials
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s H -l hard-links
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s A -l acls
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s X -l xattrs
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s S -l sparse
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s x -l one-file-system
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l numeric-ids
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -l partial
complete -c pvferry -n "__fish_pvferry_using_subcommand sync" -s h -l human-readable
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l listen -d 'Listen address for plaintext: loopback ADDR:PORT or unix:PATH' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l volume -d 'Listen on DIR/tunnel.sock for volume NAME only, with the identity in the subdirectory NAME of --identity. Its completion marker is expected in DIR. Can be repeated, with a different DIR for each volume' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l connect -d 'TLS server to forward to: HOST:PORT' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l identity -d 'Directory with ca.crt, tls.crt and tls.key (with --volume: one such subdirectory per volume); reloaded when they rotate' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l server-name -d 'TLS server name (SNI) [default: host of --connect]' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l exit-when -d 'Exit 0 once N completion markers exist in --marker-dir (or in the directories of --volume)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l marker-dir -d 'Directory of the completion markers, shared with the sync containers. Remove markers of earlier runs first' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l idle -d 'With --exit-when: exit 30 after SECONDS without a connection' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l termination-log -d 'On failure, write the termination message to FILE [default: /dev/termination-log if it exists]' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand tunnel" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l listen -d 'Listen address for TLS: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l identity -d 'Directory with ca.crt, tls.crt and tls.key; reloaded when they rotate' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l volume -d 'Name of a volume and the directory or block device that holds it; can be repeated' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l allow-delete -d 'Allow sync --delete for all volumes, or for volume NAME (refused by default)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l max-delete -d 'Allow at most N deletions per run in each volume, or in volume NAME; if sync sets a limit too, the lower one applies' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l allow-empty-source -d 'Allow sync --allow-empty-source for all volumes, or for volume NAME (refused by default)' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l no-delta -d 'Do not reveal hashes of existing files to the source, for all volumes or for volume NAME; changed files are received whole' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l exit-when -d 'Exit after N volumes have been received' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l termination-log -d 'Write the termination message to FILE [default: /dev/termination-log if it exists]' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l timeout -d 'End a session after SECONDS without traffic from the peer' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand serve" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand digest" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand digest" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand digest" -l json -d 'Print one JSON object with counts'
complete -c pvferry -n "__fish_pvferry_using_subcommand digest" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand verify" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand verify" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand verify" -l json -d 'Print the result as one JSON object'
complete -c pvferry -n "__fish_pvferry_using_subcommand verify" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -f -a "init" -d 'Create a certificate authority and one identity per role'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -f -a "issue" -d 'Issue an identity with an existing authority: for rotation, or for one volume'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and not __fish_seen_subcommand_from init issue help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -l migration -d 'ID of the migration; source and destination must use the same' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -l hours -d 'Validity in hours' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from init" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l role -d 'Role of the identity: source (sync, tunnel) or destination (serve)' -r -f -a "source\t''
destination\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l volume -d 'Restrict a source identity to this volume' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l out -d 'Directory to write ca.crt, tls.crt and tls.key to' -r -F
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l hours -d 'Validity in hours' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from issue" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "init" -d 'Create a certificate authority and one identity per role'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "issue" -d 'Issue an identity with an existing authority: for rotation, or for one volume'
complete -c pvferry -n "__fish_pvferry_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pvferry -n "__fish_pvferry_using_subcommand completions" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand completions" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand completions" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand man" -l log-format -d 'Log format on standard error' -r -f -a "text\t''
json\t''"
complete -c pvferry -n "__fish_pvferry_using_subcommand man" -l metrics -d 'Serve Prometheus metrics, /healthz and /readyz at this address: ADDR:PORT, or :PORT for all addresses' -r
complete -c pvferry -n "__fish_pvferry_using_subcommand man" -s h -l help -d 'Print help'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "copy" -d 'Copy a directory or block device locally'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "sync" -d 'Send a volume (runs in the source pod)'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "tunnel" -d 'Forward local plaintext connections to a server over mutual TLS'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "serve" -d 'Receive volumes (runs in the destination pod)'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "digest" -d 'Print a digest of a directory tree (names, metadata, content) or block device'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "verify" -d 'Compare two directory trees or block devices and list every difference'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "pki" -d 'Create keys and certificates for a migration'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "completions" -d 'Print a completion script'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "man" -d 'Print the manual page'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and not __fish_seen_subcommand_from copy sync tunnel serve digest verify pki completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "init" -d 'Create a certificate authority and one identity per role'
complete -c pvferry -n "__fish_pvferry_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "issue" -d 'Issue an identity with an existing authority: for rotation, or for one volume'
