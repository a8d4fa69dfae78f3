# shellcheck shell=bash
# Measuring: one run with its time, CPU, bytes and comparison; the peak memory of a side; all runs of a workload.

# CPU seconds that processes and their children that ended have used.
cpu_of() {
  local pid
  for pid in "$@"; do cat "/proc/$pid/stat"; done |
    awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); sum += $12 + $13 + $14 + $15 } END { printf "%.2f", sum / hz }'
}

# The bytes of the session in both directions, as its own end counts them, before TLS.
wire_of() {
  case $1 in
    movers|best) awk '/^Total bytes (sent|received):/ { sum += $4 } END { print sum }' "$work/out" ;;
    *) perl -ne 'print $1 + $2 if /"wire_sent":(\d+).*"wire_received":(\d+)/' "$work/out" ;;
  esac
}

# The round trips of a session, as its own end counts them; rsync does not.
trips_of() {
  case $1 in
    movers|best) echo - ;;
    *) perl -ne 'print $1 if /"round_trips":(\d+)/' "$work/out" ;;
  esac
}

compare() {
  "$pvferry" verify "$src" "$dst" || die "$1 $2: the trees differ"
  local differs
  differs=$(rsync -n "${mover_flags[@]}" --checksum --itemize-changes "$src/" "$dst/")
  [[ -z $differs ]] || die "$1 $2: rsync finds differences: $differs"
}

# run WORKLOAD SIDE FLAGS [WATCHED]: one run. Leaves `seconds`, `cpu`, `wire` and `trips`, `held` where it is resumed,
# and `memory` where it is watched.
run() {
  local before TIMEFORMAT='%R %U %S' pids real user system client held=-
  reset "$1" "$2" "$3"
  client "$2" "$3"
  read -ra pids <<< "$(servers_of "$2")"
  before=$(cpu_of "${pids[@]}")
  if [[ -n ${4-} ]]; then
    watch "$2" &
    watcher=$!
  fi
  { time { "${client[@]}" > "$work/out" 2> "$work/err" && sync -f "$dst"; }; } 2> "$work/time" ||
    { cat "$work/err" "$work/out" >&2; die "$1 $2 failed"; }
  if [[ -n $watcher ]]; then
    kill "$watcher"
    wait "$watcher" 2> /dev/null || true
    watcher=''
    memory=$(memory_of)
  fi
  settle
  read -r real user system < "$work/time"
  seconds=$real
  cpu=$(awk -v a="$before" -v b="$(cpu_of "${pids[@]}")" -v u="$user" -v s="$system" 'BEGIN { printf "%.2f", b - a + u + s }')
  wire=$(wire_of "$2")
  trips=$(trips_of "$2")
  share=$held
  compare "$1" "$2"
}

# watch SIDE: until it is ended, keeps the greatest VmHWM of the processes of a side by what they are: `sync 12345` in KiB.
watch() {
  local pid others=() own
  own=" $(servers_of "$1") "
  for pid in "${servers[@]}"; do [[ $own == *" $pid "* ]] || others+=("$pid"); done
  exec perl -e '
    my ($out, $pvferry, $shell, @others) = @ARGV; my %peak;
    $SIG{TERM} = sub {
      open my $f, ">", $out or die $!;
      printf $f "%s %d\n", $_, $peak{$_} for sort keys %peak;
      exit;
    };
    while (1) {
      my @below = ($shell);
      my %seen = map { $_ => 1 } @others;
      while (defined(my $pid = shift @below)) {
        next if $seen{$pid}++;
        push @below, split " ", slurp("/proc/$pid/task/$pid/children");
        my @words = split /\0/, slurp("/proc/$pid/cmdline");
        next unless @words;
        my $what = $words[0] eq $pvferry ? $words[1] : $words[0] =~ /(rsync|stunnel)[^\/]*$/ ? $1 : next;
        my ($size) = slurp("/proc/$pid/status") =~ /VmHWM:\s+(\d+)/ or next;
        $peak{$what} = $size if $size > ($peak{$what} // 0);
      }
      select undef, undef, undef, 0.02;
    }
    sub slurp { open my $f, "<", shift or return ""; local $/; my $text = <$f>; $text // "" }
    ' "$work/memory" "$pvferry" $$ "${others[@]}"
}

# memory_of: what `watch` saw, in MiB, as one line.
memory_of() { awk '{ printf "%s%s %.0f", (NR > 1 ? ", " : ""), $1, $2 / 1024 }' "$work/memory"; }

# The first run of a side, not counted. Leaves `memory`, and the flags of `best` in `best_flags`.
warm_up() {
  local flags fastest=''
  if [[ $2 == best ]]; then
    best_flags=''
    while read -r flags; do
      run "$1" best "$flags"
      if [[ -z $fastest ]] || awk -v a="$seconds" -v b="$fastest" 'BEGIN { exit !(a < b) }'; then
        fastest=$seconds best_flags=$flags
      fi
    done < <(candidates "$1")
  fi
  run "$1" "$2" "$(flags_of "$2")" watched
}

# Flags of `best` only: the others have none of their own.
flags_of() { if [[ $1 == best ]]; then echo "$best_flags"; fi; }

runs_of() { if [[ $1 == memory ]]; then echo 1; else echo "$runs"; fi; }

# The first touch of a page costs a virtual machine a fault of its hypervisor, and would fall on whoever runs first.
touch_memory() {
  [[ $kind == tmpfs ]] || return 0
  head -c "$(($1 << 20))" /dev/zero > "$work/touch"
  rm "$work/touch"
}

# measure WORKLOAD: rows in raw.tsv (workload, side, seconds, CPU, wire, round trips, share held before) and in memory.tsv
# (workload, side, memory, flags), and in near.tsv (workload, side, seconds) where the line was long.
measure() {
  local side i best_flags='' memory on=() count
  count=$(runs_of "$1")
  for side in "${sides[@]}"; do
    if [[ $side != best || -n $(candidates "$1") ]]; then on+=("$side"); fi
  done
  make "$1"
  rm -rf "$dst"
  mkdir "$dst"
  start_servers "$1"
  for side in "${on[@]}"; do
    warm_up "$1" "$side"
    printf '%s\t%s\t%s\t%s\n' "$1" "$side" "$memory" "$best_flags" >> "$work/memory.tsv"
  done
  for ((i = 1; i <= count; i++)); do
    for side in "${on[@]}"; do
      run "$1" "$side" "$(flags_of "$side")"
      printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$side" "$seconds" "$cpu" "$wire" "$trips" "$share" >> "$work/raw.tsv"
      echo "$1 $i/$count $side: $seconds s, $cpu CPU s" >&2
    done
  done
  stop_servers
  if [[ $1 == delay-* ]]; then measure_near "$1"; fi
  rm -rf "$dst"
}

# The same without delay, so that the clock tells what the round trips were: as often, because the difference is small beside
# what runs vary by.
measure_near() {
  local side i
  start_servers near
  for ((i = 1; i <= count; i++)); do
    for side in "${on[@]}"; do
      run "$1" "$side" "$(flags_of "$side")"
      printf '%s\t%s\t%s\n' "$1" "$side" "$seconds" >> "$work/near.tsv"
    done
  done
  stop_servers
}
