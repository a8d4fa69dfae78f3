# shellcheck shell=bash
# Results: medians, what was reached of the goals, tables and the chart.

# summary.tsv: workload, side, median, least, most, median CPU, median wire, greatest count of round trips, round trips by
# the clock, median share held before, seconds of every run.
summarise() {
  touch "$work/near.tsv"
  perl -F'\t' -lane '
    BEGIN {
      $rtt = shift; open my $f, "<", shift or die $!;
      while (<$f>) {
        chomp; my ($w, $s, $t) = split /\t/; my $at = \$near{"$w\t$s"};
        $$at = $t if !defined $$at || $t < $$at;
      }
    }
    push @order, "$F[0]\t$F[1]" unless $rows{"$F[0]\t$F[1]"};
    push @{$rows{"$F[0]\t$F[1]"}}, [@F[2 .. 6]];
    END {
      for my $key (@order) {
        my @of = map { my $c = $_; [map { $_->[$c] } @{$rows{$key}}] } 0 .. 4;
        my @sorted = sort { $a <=> $b } @{$of[0]};
        my $trips = $of[3][0] eq "-" ? "-" : (sort { $b <=> $a } @{$of[3]})[0];
        my $clock = exists $near{$key} ? sprintf "%.1f", ($sorted[0] - $near{$key}) * 1000 / $rtt : "-";
        my $share = $of[4][0] eq "-" ? "-" : median(@{$of[4]});
        print join "\t", $key, median(@{$of[0]}), @sorted[0, -1], median(@{$of[1]}), median(@{$of[2]}),
          $trips, $clock, $share, "@{$of[0]}";
      }
    }
    sub median { my @s = sort { $a <=> $b } @_; ($s[$#s / 2] + $s[@s / 2]) / 2 }
    ' "$round_trip" "$work/near.tsv" "$work/raw.tsv" > "$work/summary.tsv"
}

# verdicts.tsv: workload, side, goal in words, yes or no.
judge() {
  local workload
  for workload in "${workloads[@]}"; do goals "$workload" | sed "s/^/$workload /"; done > "$work/goals"
  perl -e '
    my ($goals, $summary, $memory) = map { [map { chomp; $_ } do { open my $f, "<", $_ or die $!; <$f> }] } @ARGV;
    my (%row, %peak);
    for (@$summary) { my @f = split /\t/; $row{$f[0]}{$f[1]} = \@f }
    for (@$memory) {
      my @f = split /\t/;
      ($peak{$f[0]}{$f[1]}) = sort { $b <=> $a } $f[2] =~ /(\d+)/g;
    }
    for (@$goals) {
      my ($w, $kind, $sides, $number) = split / /;
      for my $side (split /,/, $sides) {
        my $own = $row{$w}{$side}; my ($goal, $reached);
        if ($kind eq "movers" || $kind eq "best") {
          my $peer = $row{$w}{$kind} // $row{$w}{movers};
          ($goal, $reached) = ("≥ $number× $kind", $peer->[2] >= $number * $own->[2]);
        } elsif ($kind eq "trips") {
          # The session counts kinds of exchanges; what waits besides shows in the clock only.
          ($goal, $reached) = ("≤ $number round trips", $own->[7] <= $number && $own->[8] < $number + 0.5);
        } elsif ($kind eq "sent") {
          ($goal, $reached) = (sprintf("≤ %.1f MB sent", $number / 1e6), $own->[6] <= $number);
        } else {
          ($goal, $reached) = ("≤ $number MiB", $peak{$w}{$side} <= $number);
        }
        print join("\t", $w, $side, $goal, $reached ? "yes" : "no"), "\n";
      }
    }' "$work/goals" "$work/summary.tsv" "$work/memory.tsv" > "$work/verdicts.tsv"
}

# An awk function, for the tables.
bytes='function bytes(n) {
  return n < 1e4 ? sprintf("%d B", n) : n < 1e7 ? sprintf("%.0f kB", n / 1e3) : n < 1e10 ? sprintf("%.0f MB", n / 1e6) : sprintf("%.1f GB", n / 1e9)
}'

# One row for each workload: medians, how many times faster than the peer in both its forms, bytes on the wire, goals.
overview() {
  local workload
  echo "| | rsync + stunnel | with its best flags | pvferry, three processes | pvferry, direct | wire: rsync | wire: pvferry | goal | reached |"
  echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |"
  for workload in "${workloads[@]}"; do
    awk -F'\t' -v w="$workload" -v what="$(describe "$workload")" '
      '"$bytes"'
      function against(side) {
        return sprintf("%.2f s (%.1f×, %.1f×)%s", median[side], median["movers"] / median[side], median["best"] / median[side], more(side)) }
      # What the workload is about, where that is not the time alone.
      function more(side) {
        return w == "memory" ? sprintf(", %d MiB", peak[side]) : clock[side] != "-" ? sprintf(", %s round trips", clock[side]) : "" }
      $1 != w { next }
      FILENAME ~ /memory/ {
        if ($2 == "best") flags = " `" $4 "`"
        for (i = split($3, word, /[ ,]+/); i > 0; i -= 2) if (word[i] > peak[$2] + 0) peak[$2] = word[i] + 0
        next
      }
      FILENAME ~ /summary/ { median[$2] = $3; wire[$2] = $7; clock[$2] = $9; next }
      { if (!(($3, "goal") in seen)) { seen[$3, "goal"] = 1; goal[++goals] = $3; of[$3] = $2 } else of[$3] = ""
        all[$2] = all[$2] == "no" ? "no" : $4 }
      END {
        if (!("best" in median)) { median["best"] = median["movers"]; clock["best"] = clock["movers"]; peak["best"] = peak["movers"] }
        for (i = 1; i <= goals; i++) text = text (i > 1 ? ", " : "") goal[i] (of[goal[i]] == "direct" ? " direct" : "")
        reached = all["pod"] == all["direct"] ? all["pod"] : all["pod"] == "yes" ? "three processes only" : "direct only"
        printf "| %s | %.2f s%s | %.2f s%s%s | %s | %s | %s | %s | %s | %s |\n", what,
          median["movers"], more("movers"), median["best"], more("best"), flags, against("pod"), against("direct"),
          bytes(wire["movers"]), bytes(wire["direct"]), text, reached
      }' "$work/memory.tsv" "$work/summary.tsv" "$work/verdicts.tsv"
  done
}

# The rows of one workload.
table() {
  awk -F'\t' -v w="$1" '
    '"$bytes"'
    $1 != w { next }
    FILENAME ~ /memory/ { memory[$2] = $3; if ($2 == "best") flags = $4; next }
    FILENAME ~ /verdicts/ { goal[$2] = goal[$2] (goal[$2] == "" ? "" : ", ") $3 ": " $4; next }
    { if ($2 == "movers" || $2 == "best") peer[$2] = $3; row[++n] = $0; trips = $9 != "-"; held = $10 != "-" }
    END {
      title["movers"] = "rsync + stunnel, flags of movers"; title["best"] = "rsync + stunnel, `" flags "` added"
      title["pod"] = "**pvferry** sync + tunnel + serve"; title["direct"] = "**pvferry** sync + serve"
      if (!("best" in peer)) peer["best"] = peer["movers"]
      print "| | median | min … max | × movers | × best | CPU | on the wire | peak memory, MiB |" \
        (trips ? " round trips: counted | by the clock |" : "") (held ? " held before |" : "") " goal: reached |"
      print "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |" (trips ? " ---: | ---: |" : "") (held ? " ---: |" : "") " --- |"
      for (i = 1; i <= n; i++) {
        split(row[i], f, "\t")
        printf "| %s | %.2f s | %.2f … %.2f | %.2f | %.2f | %.2f s | %s | %s |%s%s %s |\n", title[f[2]], f[3], f[4], f[5],
          peer["movers"] / f[3], peer["best"] / f[3], f[6], bytes(f[7]), memory[f[2]],
          trips ? sprintf(" %s | %s |", f[8], f[9]) : "", held ? sprintf(" %s %% |", f[10]) : "", goal[f[2]]
      }
    }' "$work/memory.tsv" "$work/verdicts.tsv" "$work/summary.tsv"
}

report() {
  local workload
  echo "# pvferry against rsync + stunnel, $(date +%F)"
  echo
  echo "    benches/versus$arguments"
  echo
  echo "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo), $(nproc) cores, $(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), Linux $(uname -r)."
  echo "Both ends on this machine, files on $kind. $(rsync --version | awk 'NR == 1 { print $1, $3 }'), $(stunnel -version 2>&1 | awk '/^stunnel/ { print $1, $2; exit }'), $("$pvferry" --version)."
  echo "Load before the first run: $load. Runs of each side: $runs$([[ " ${workloads[*]} " != *' memory '* ]] || echo ' (memory: 1)'), interleaved. $note"
  echo
  echo "The clock runs over the client and the flush of the destination. Trees were compared after every run. × is how many"
  echo "times faster than the peer, by medians; below 1 is slower. CPU is that of all processes of a side. Bytes on the wire are"
  echo "both directions before TLS. Peak memory is the VmHWM of the largest process of each kind, in a run of its own."
  echo "Round trips by the clock: how much longer the shortest run takes than the shortest without delay, divided by one round trip;"
  echo "connecting, by TCP and TLS, is two of them. Counted: by the session itself, from its first message on."
  echo "Movers' flags: \`${mover_flags[*]}\`; pvferry has \`--delete\` too, and keeps what those flags keep."
  echo
  echo "In brackets: how many times faster than rsync + stunnel with movers' flags, and with its best flags."
  echo
  overview
  echo
  echo "![how many times faster](${stem##*/}.svg)"
  for workload in "${workloads[@]}"; do
    printf '\n## %s\n\n%s\n\n' "$workload" "$(describe "$workload")"
    table "$workload"
    printf '\nWhat stands in the way of more: %s\n' "$(limit "$workload")"
  done
  printf '\n## Every run, in seconds\n\n'
  awk -F'\t' '{ print "    " $1, $2 ": " $11 }' "$work/summary.tsv"
}

# Bars on a logarithmic axis, from 1: to the right faster than the peer with movers' flags, to the left slower.
chart() {
  perl -F'\t' -lane '
    push @order, $F[0] unless $median{$F[0]}; $median{$F[0]}{$F[1]} = $F[2];
    END {
      my %colour = (best => "#9aa5b1", pod => "#2f6db5", direct => "#7db3e8");
      my %title = (best => "rsync + stunnel, best flags", pod => "pvferry, three processes", direct => "pvferry, direct");
      my ($left, $unit, $row) = (150, 70, 16);
      my ($low, $high) = (-1, 1);
      for my $w (@order) { for my $s (keys %colour) {
        my $x = $median{$w}{$s} or next; my $l = log($median{$w}{movers} / $x) / log 2;
        $low = int($l) - 1 if $l < $low; $high = int($l) + 1 if $l > $high;
      } }
      my ($y, @body) = (62);
      my $at = sub { $left + ($_[0] - $low) * $unit };
      for my $w (@order) {
        my @sides = grep { $median{$w}{$_} } qw(best pod direct);
        push @body, sprintf q{<text x="%d" y="%d" text-anchor="end">%s</text>}, $left - 10, $y + $row * @sides / 2 + 4, $w;
        for my $s (@sides) {
          my $x = $median{$w}{movers} / $median{$w}{$s}; my $l = log($x) / log 2;
          my ($a, $b) = $l < 0 ? ($at->($l), $at->(0)) : ($at->(0), $at->($l));
          push @body, sprintf q{<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>}, $a, $y, $b - $a < 1 ? 1 : $b - $a, $row - 3, $colour{$s};
          push @body, sprintf q{<text x="%.1f" y="%d" class="n">%s× (%.2f s)</text>},
            $b + 5, $y + 11, sprintf($x < 10 ? "%.1f" : "%.0f", $x), $median{$w}{$s};
          $y += $row;
        }
        $y += 12;
      }
      my $width = $at->($high) + 110;
      print qq{<svg xmlns="http://www.w3.org/2000/svg" width="$width" height="@{[$y + 24]}" font-family="sans-serif" font-size="12" fill="#222">};
      print q{<style>.n{font-size:10.5px;fill:#444;stroke:#fff;stroke-width:3px;paint-order:stroke}</style>};
      print qq{<rect width="100%" height="100%" fill="#fff"/>};
      print qq{<text x="12" y="20" font-size="14" font-weight="bold">Times faster than rsync + stunnel with the flags of data movers (= 1)</text>};
      my $x = 14;
      for my $s (qw(best pod direct)) {
        printf qq{<rect x="%d" y="32" width="11" height="11" fill="%s"/><text x="%d" y="42">%s</text>\n}, $x, $colour{$s}, $x + 16, $title{$s};
        $x += 30 + 7 * length $title{$s};
      }
      for my $p ($low .. $high) {
        printf qq{<line x1="%d" x2="%d" y1="54" y2="%d" stroke="%s"/><text x="%d" y="%d" text-anchor="middle" class="n">%s×</text>\n},
          $at->($p), $at->($p), $y, $p ? "#ddd" : "#222", $at->($p), $y + 14, 2 ** $p;
      }
      print for @body;
      print "</svg>";
    }' "$work/summary.tsv"
}
