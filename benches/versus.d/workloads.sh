# shellcheck shell=bash
# Workloads: what lies at the source, what the destination holds before a run, and what is to be reached.

# random_file MIB FILE
random_file() { head -c "$(($1 << 20))" /dev/urandom > "$2"; }

# small_files COUNT DIR: the same tree on every machine.
small_files() {
  perl -e '
    my ($count, $dir) = @ARGV; srand 7;
    my $pool = join "", map { pack "N", rand 2**32 } 1 .. 1 << 16;
    for my $i (0 .. $count - 1) {
      my $d = sprintf "%s/d%05d", $dir, $i / 100;
      mkdir $d or die "$d: $!" unless $i % 100;
      open my $f, ">", sprintf("%s/f%07d", $d, $i) or die $!;
      print $f substr $pool, rand(250_000), 100 + int rand 8900;
    }' "$1" "$2"
}

# hollow_files COUNT DIR: the same with holes for content, so that as many as one likes fit into memory.
hollow_files() {
  perl -e '
    my ($count, $dir) = @ARGV; srand 7;
    for my $i (0 .. $count - 1) {
      my $d = sprintf "%s/d%05d", $dir, $i / 100;
      mkdir $d or die "$d: $!" unless $i % 100;
      open my $f, ">", sprintf("%s/f%07d", $d, $i) or die $!;
      truncate $f, 100 + int rand 8900 or die $!;
    }' "$1" "$2"
}

make_first-copy-large() { for i in 1 2 3 4; do random_file $((mib / 2)) "$src/large$i"; done; }
make_first-copy-small() { small_files $((files / 5)) "$src"; }
make_nothing-changed() { small_files "$files" "$src"; cp -a "$src/." "$base"; }

make_pages-in-place() {
  random_file "$mib" "$base/file"
  cp "$base/file" "$src/file"
  perl -e '
    my ($path) = @ARGV; srand 7;
    open my $f, "+<", $path or die $!;
    my $pages = (-s $path) / 8192; my %dirty;
    $dirty{int rand $pages} = 1 while keys %dirty < $pages / 100;
    for my $page (sort { $a <=> $b } keys %dirty) {
      seek $f, $page * 8192, 0;
      print $f join "", map { pack "N", rand 2**32 } 1 .. 2048;
    }' "$src/file"
}

make_append() {
  random_file "$mib" "$base/file"
  cp "$base/file" "$src/file"
  random_file $((mib / 16)) "$work/tail"
  cat "$work/tail" >> "$src/file"
  rm "$work/tail"
}

make_shift() {
  random_file "$mib" "$base/file"
  perl -e '
    my ($from, $to) = @ARGV; srand 7;
    open my $in, "<", $from or die $!; open my $out, ">", $to or die $!;
    my $part = int((-s $from) / 20);
    for my $k (1 .. 20) {
      for (my $left = $part; $left > 0;) {
        my $got = read($in, my $buf, $left < 1 << 20 ? $left : 1 << 20) || die $!;
        print $out $buf;
        $left -= $got;
      }
      print $out pack "N*", map { rand 2**32 } 1 .. 25 if $k % 2;
    }
    print $out $_ while <$in>;' "$base/file" "$src/file"
}

make_rewritten() { random_file "$mib" "$base/file"; random_file "$mib" "$src/file"; }

make_sparse() {
  truncate -s $((4 * mib))M "$src/file"
  perl -e '
    my ($path, $data) = @ARGV;
    open my $f, "+<", $path or die $!; open my $random, "<", "/dev/urandom" or die $!;
    for my $i (0 .. $data - 1) {
      read $random, my $buf, 1 << 20; seek $f, $i * 20 << 20, 0; print $f $buf;
    }' "$src/file" $((mib / 5))
}

make_renamed() {
  mkdir "$src/new" "$base/old"
  for i in {1..8}; do random_file $((mib / 8)) "$src/new/large$i"; done
  cp "$src/new/"* "$base/old"
}

# Not as deep as it may be: the paths of rsync end at 4096 bytes, and its time grows with the square of the depth.
make_deep() {
  perl -e '
    my ($dir) = @ARGV; chdir $dir or die $!;
    for (1 .. 1000) {
      mkdir "d" or die $!; chdir "d" or die $!;
      open my $f, ">", "f" or die $!; print $f $_;
    }' "$src"
}

make_resumed() { random_file $((2 * mib)) "$src/file"; }
make_delay-unchanged() { small_files $((files * 3 / 10)) "$src"; cp -a "$src/." "$base"; }
make_delay-first-copy() { small_files $((files * 3 / 10)) "$src"; }
make_memory() { hollow_files $((files * 10)) "$src"; hollow_files $((files * 10)) "$base"; }

describe() {
  case $1 in
    first-copy-large) echo "first copy, 4 × $((mib / 2)) MiB of random bytes" ;;
    first-copy-small) echo "first copy, $((files / 5)) files of 0.1–9 KB" ;;
    nothing-changed) echo "nothing changed, $files files" ;;
    pages-in-place) echo "$mib MiB, 1 % of the 8 KiB pages rewritten" ;;
    append) echo "$((mib / 16)) MiB appended to $mib MiB" ;;
    shift) echo "$mib MiB, 100 bytes inserted at 10 places" ;;
    rewritten) echo "$mib MiB rewritten entirely, same name" ;;
    sparse) echo "first copy, $((4 * mib)) MiB of which $((mib / 5)) MiB are data" ;;
    renamed) echo "a directory of 8 × $((mib / 8)) MiB renamed" ;;
    deep) echo "first copy, 1000 nested directories with a file each" ;;
    resumed) echo "first copy of $((2 * mib)) MiB, killed at 60 %, resumed" ;;
    delay-unchanged) echo "$round_trip ms round trip, nothing changed, $((files * 3 / 10)) files" ;;
    delay-first-copy) echo "$round_trip ms round trip, first copy, $((files * 3 / 10)) files of 0.1–9 KB" ;;
    memory) echo "memory: nothing changed, $((files * 10)) files" ;;
  esac
}

# Sets of flags that may be the fastest of the peer; one trial each decides.
candidates() {
  case $1 in
    nothing-changed|memory|deep) ;;
    delay-unchanged) echo '--no-inc-recursive' ;;
    delay-first-copy) echo '-W'; echo '--no-inc-recursive'; echo '-W --no-inc-recursive' ;;
    sparse) echo '-S'; echo '-S -W' ;;
    append|resumed) echo '--inplace'; echo '-W --inplace'; echo '--append-verify' ;;
    *) echo '--inplace'; echo '-W'; echo '-W --inplace' ;;
  esac
}

# What pvferry is to reach: lines of what is judged, the sides that are held to it, and a number. `movers` and `best` are
# how many times faster than the peer with those flags, at least; the others are limits: `trips` round trips, `sent`
# bytes on the wire, `memory` MiB of the largest process.
goals() {
  case $1 in
    first-copy-large) echo 'best pod 3'; echo 'best direct 3.5' ;;
    first-copy-small) echo 'best pod,direct 2.5' ;;
    nothing-changed) echo 'best pod,direct 4' ;;
    pages-in-place) echo 'best pod,direct 6'; echo "sent pod,direct $((mib * (13 << 20) / 1000))" ;;
    append) echo 'best pod,direct 8' ;;
    shift) echo 'best pod,direct 3' ;;
    rewritten) echo 'movers pod,direct 15'; echo 'best pod,direct 2.5' ;;
    sparse) echo 'best pod,direct 50' ;;
    renamed) echo 'best pod,direct 20' ;;
    deep) echo 'best pod,direct 1' ;;
    resumed) echo 'movers pod,direct 8'; echo 'best pod,direct 1.5' ;;
    delay-unchanged) echo 'trips pod,direct 4' ;;
    delay-first-copy) echo 'trips pod,direct 5' ;;
    memory) echo 'memory pod,direct 64' ;;
  esac
}

# Room in MiB for the source, the destination and what rsync builds beside.
footprint() {
  case $1 in
    first-copy-small) echo $((files / 300)) ;;
    nothing-changed) echo $((files / 60)) ;;
    delay-*) echo $((files / 200)) ;;
    deep) echo 64 ;;
    memory) echo $((files / 25)) ;;
    first-copy-large|append|shift|pages-in-place|renamed|rewritten) echo $((9 * mib / 2)) ;;
    *) echo $((6 * mib)) ;;
  esac
}

make() {
  rm -rf "$src" "$base"
  mkdir "$src" "$base"
  "make_$1"
  # Whole seconds in the past: rsync takes times within one second for the same.
  find "$src" "$base" -exec touch -d 2026-01-01 {} +
  if [[ -e $base/file ]]; then touch -d 2025-01-01 "$base/file" "$base"; fi
}

# The destination as it is before a run: reset WORKLOAD SIDE FLAGS.
reset() {
  # Where nothing changes the last run has left it right.
  if [[ -e $dst/d00000 && $1 =~ ^(nothing-changed|delay-unchanged|memory)$ ]]; then return; fi
  # Emptied and not replaced: the sandbox of `serve` holds on to the directory itself.
  find "$dst" -mindepth 1 -delete
  cp -a --sparse=always "$base/." "$dst"
  if [[ $1 == resumed ]]; then interrupt "$2" "$3"; fi
  sync -f "$dst"
}

# limit WORKLOAD: what stands in the way of more, by profiles on 2 cores; docs/ARCHITECTURE.md has the figures.
limit() {
  case $1 in
    first-copy-large|sparse|resumed) echo "Half of it is the kernel's own work: pages for the new files take as long as \`cp\` takes. Then hashing at both ends (0.2 s a GiB each), TLS (0.1 s), the sockets. All of it shares the processors." ;;
    first-copy-small) echo "Some 30 µs of processor a file, two thirds of it in open, write, rename, chown and times at the destination." ;;
    nothing-changed) echo "Three quarters of it are getdents, statx and listxattrat in the kernel, at both ends, on the same two processors." ;;
    pages-in-place|append|renamed) echo "Both ends read and hash what is there (1 GiB in 0.3 s with both processors busy): that is the proof. Only hashes kept from an earlier run would save it, and would say what was written once and not what is there." ;;
    shift) echo "Content is copied into a new file, with pages of its own, and hashed once at each end; a move within the file would save the pages." ;;
    deep) echo "Landlock walks up to the root of the volume at each open, mkdir and rename." ;;
    rewritten) echo "As a first copy, after a look at the old content." ;;
    delay-*) echo "Connecting takes two round trips, the opening messages and the listing one each; without a tunnel the end takes one more." ;;
    memory) echo "What is on its way, at most 16 MiB a session where the receiver is the slower end." ;;
  esac
}
