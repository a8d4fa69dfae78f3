# shellcheck shell=bash
# Sides: the servers of rsync + stunnel and of pvferry, the commands that are measured, and the one that is killed.

# Ports that are free just now.
free_ports() {
  perl -MIO::Socket::INET -e '
    my @held = map { IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 1) or die $! } 1 .. shift;
    print join " ", map { $_->sockport } @held' "$1"
}

# server COMMAND...: starts it and remembers its process.
server() { "$@" >> "$work/servers.log" 2>&1 & servers+=($!); }

await_port() {
  for _ in {1..100}; do
    if (: < "/dev/tcp/127.0.0.1/$1") 2> /dev/null; then return; fi
    sleep 0.1
  done
  cat "$work/servers.log" >&2
  die "nothing listens on port $1"
}

# As transfer pods do: the daemon is on the loopback of its pod, both stunnels check the other's certificate.
start_peer() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=versus \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2> /dev/null
  {
    printf '%s\n' 'use chroot = no' 'reverse lookup = no' 'address = 127.0.0.1' "port = $p_rsync" "log file = $work/rsyncd.log"
    ((EUID)) || printf '%s\n' 'uid = root' 'gid = root'
    printf '%s\n' '[vol]' "path = $dst" 'read only = no' 'munge symlinks = no'
  } > "$work/rsyncd.conf"
  local common="foreground = yes
pid =
syslog = no
debug = warning
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[rsync]
verify = 2
cert = $work/cert.pem
key = $work/key.pem
CAfile = $work/cert.pem"
  printf '%s\n' "$common" "accept = 127.0.0.1:$p_stunnel" "connect = 127.0.0.1:$p_rsync" > "$work/stunnel-server.conf"
  printf '%s\n' "$common" 'client = yes' "accept = 127.0.0.1:$p_client" "connect = 127.0.0.1:$far_stunnel" > "$work/stunnel-client.conf"
  server rsync --daemon --no-detach --config="$work/rsyncd.conf"
  server stunnel "$work/stunnel-server.conf"
  server stunnel "$work/stunnel-client.conf"
}

start_pvferry() {
  [[ -e $work/pki ]] || "$pvferry" pki init "$work/pki" --migration versus > /dev/null
  server "$pvferry" serve --listen "127.0.0.1:$p_serve" --identity "$work/pki/destination" --volume "vol=$dst" --allow-delete
  server "$pvferry" tunnel --listen "unix:$work/tunnel.sock" --connect "127.0.0.1:$far_serve" --identity "$work/pki/source"
}

# start_servers WORKLOAD: with a long line in the place of the network where the workload is named after it.
start_servers() {
  local port line_stunnel line_serve
  read -r p_rsync p_stunnel p_client p_serve line_stunnel line_serve <<< "$(free_ports 6)"
  far_stunnel=$p_stunnel far_serve=$p_serve
  if [[ $1 == delay-* ]]; then far_stunnel=$line_stunnel far_serve=$line_serve; fi
  start_peer
  start_pvferry
  if [[ $1 == delay-* ]]; then
    server "$delay" "127.0.0.1:$far_stunnel" "127.0.0.1:$p_stunnel" "$round_trip"
    server "$delay" "127.0.0.1:$far_serve" "127.0.0.1:$p_serve" "$round_trip"
  fi
  for port in "$p_rsync" "$p_stunnel" "$p_client" "$p_serve" "$far_stunnel" "$far_serve"; do
    await_port "$port"
  done
  for _ in {1..100}; do
    if [[ -S $work/tunnel.sock ]]; then return; fi
    sleep 0.1
  done
  cat "$work/servers.log" >&2
  die 'the tunnel does not listen'
}

stop_servers() {
  ((${#servers[@]})) || return 0
  kill "${servers[@]}" 2> /dev/null || true
  wait "${servers[@]}" 2> /dev/null || true
  servers=()
}

# The processes of a side that go on between runs.
servers_of() {
  case $1 in
    movers|best) echo "${servers[@]:0:3}" ;;
    pod) echo "${servers[@]:3:2}" ;;
    direct) echo "${servers[3]}" ;;
  esac
}

# client SIDE FLAGS: leaves the command that is measured in `client`.
client() {
  local extra
  read -ra extra <<< "$2"
  case $1 in
    movers|best) client=(rsync "${mover_flags[@]}" "${extra[@]}" --stats --no-human-readable "$src/" "rsync://127.0.0.1:$p_client/vol/") ;;
    pod) client=("$pvferry" sync "$src" --volume vol --via "unix:$work/tunnel.sock" --delete --progress none --json) ;;
    direct) client=("$pvferry" sync "$src" --volume vol --connect "127.0.0.1:$far_serve" --identity "$work/pki/source"
              --delete --progress none --json) ;;
  esac
}

# interrupt SIDE FLAGS: a first copy of which the client is killed when the destination holds 60 % of the bytes, by
# length and by blocks, in files of whatever name. rsync gets --partial: without it nothing would be left. What is on its way
# then still arrives, and on a busy machine the kill may come late: again, until no more than 80 % are there. Leaves `held`.
interrupt() {
  local bytes client
  client "$1" "$2 --partial"
  bytes=$(stat -c %s "$src/file")
  for _ in {1..10}; do
    if kill_at $((bytes * 6 / 10)); then
      settle
      held=$(du -s -B1 "$dst" | awk -v all="$bytes" '{ printf "%.0f", 100 * $1 / all }')
      if ((held >= 50 && held <= 80)); then return; fi
    fi
    echo "$1: killed at another point, once more" >&2
    settle
    find "$dst" -mindepth 1 -delete
  done
  cat "$work/out" >&2
  die "$1 $2: not interrupted at about 60 %"
}

# kill_at BYTES: runs `client`, and kills it when the destination holds so many; fails where it ends before.
kill_at() {
  perl -MPOSIX=WNOHANG -MFile::Find -e '
    my ($dir, $bytes, $out, @client) = @ARGV;
    my $pid = fork // die $!;
    if (!$pid) { open STDOUT, ">", $out; open STDERR, ">&", *STDOUT; exec @client or die $! }
    until (held() >= $bytes) {
      exit 1 if waitpid $pid, WNOHANG;
      select undef, undef, undef, 0.0005;
    }
    kill "KILL", $pid;
    waitpid $pid, 0;
    sub held {
      my $sum = 0;
      find(sub {
        my ($size, $blocks) = (lstat)[7, 12];
        $sum += $size < 512 * $blocks ? $size : 512 * $blocks if defined $size && -f _;
      }, $dir);
      return $sum;
    }' "$dst" "$1" "$work/out" "${client[@]}"
}

# Waits until the servers are done with a client that has ended: the daemon has no child left, so that its time is
# counted, and nobody holds the lock that pvferry has on a volume.
settle() {
  local children
  for _ in {1..500}; do
    children=$(< "/proc/${servers[0]}/task/${servers[0]}/children")
    if [[ -z ${children// /} ]] && flock --nonblock "$dst" true; then return; fi
    sleep 0.02
  done
  die 'a server does not come to an end'
}
