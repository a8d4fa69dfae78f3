# shellcheck shell=bash disable=SC2154
# What a cluster is made of before it starts: certificates, kubeconfigs and the configuration of each program, all under
# $dir, with the names of lib.sh. Read by `up`, never run.

write_all() {
    mkdir -p "$dir"/{bin,cni,etcd,log,pki}
    write_certificates
    write_containerd
    write_cni
    write_kubelet
    write_proxy
}

# identity FILE SUBJECT [ALTERNATIVE NAMES]: a key and a certificate of the cluster's own authority.
identity() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "$2" \
        -CA "$dir/pki/ca.crt" -CAkey "$dir/pki/ca.key" -keyout "$dir/pki/$1.key" -out "$dir/pki/$1.crt" \
        -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
        -addext extendedKeyUsage=serverAuth,clientAuth ${3:+-addext "subjectAltName=$3"} 2>"$dir/log/openssl.log" ||
        die "openssl made no certificate of $2" "$dir/log/openssl.log"
}

# kubeconfig FILE IDENTITY: with the keys in it, so that it may be copied into a Secret of another cluster.
kubeconfig() {
    cat >"$dir/$1" <<END
apiVersion: v1
kind: Config
clusters:
- name: $name
  cluster:
    server: $server
    certificate-authority-data: $(base64 -w 0 <"$dir/pki/ca.crt")
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w 0 <"$dir/pki/$2.crt")
    client-key-data: $(base64 -w 0 <"$dir/pki/$2.key")
contexts:
- name: $name
  context: {cluster: $name, user: $2}
current-context: $name
END
}

write_certificates() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$name" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature \
        -keyout "$dir/pki/ca.key" -out "$dir/pki/ca.crt" 2>"$dir/log/openssl.log" ||
        die "openssl made no certificate authority" "$dir/log/openssl.log"

    identity apiserver /CN=kube-apiserver \
        "IP:$node_ip,IP:$service_ip,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
    identity apiserver-to-kubelet /O=system:masters/CN=apiserver-to-kubelet
    identity admin /O=system:masters/CN=admin
    identity controller-manager /CN=system:kube-controller-manager
    identity scheduler /CN=system:kube-scheduler
    identity kubelet "/O=system:nodes/CN=system:node:$name" "IP:$node_ip,DNS:$name"
    identity proxy /CN=system:kube-proxy

    kubeconfig kubeconfig admin
    local each
    for each in controller-manager scheduler kubelet proxy; do
        kubeconfig "$each.kubeconfig" "$each"
    done

    # Signs the tokens of service accounts.
    openssl ecparam -name prime256v1 -genkey -noout -out "$dir/pki/tokens.key"
    openssl pkey -in "$dir/pki/tokens.key" -pubout -out "$dir/pki/tokens.pub"
}

# What is left out has its usual place, which on a node is a folder of its own.
write_containerd() {
    cat >"$dir/containerd.toml" <<END
version = 2
root = "$dir/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # To protect a process from being killed where memory is short takes a right that containers with root often lack.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
END
}

# A routed link for each pod: without a bridge, what a Service translates comes back the way it went.
write_cni() {
    cat >"$dir/cni/10-pods.conflist" <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_net"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
END
}

write_kubelet() {
    cat >"$dir/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $dir/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $dir/pki/kubelet.crt
tlsPrivateKeyFile: $dir/pki/kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
# Images and pods stay however full the disk of this machine is: there is no registry to get an image from again.
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
# A negative value takes a right that containers with root often lack.
oomScoreAdj: 0
END
}

write_proxy() {
    cat >"$dir/proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $dir/proxy.kubeconfig}
hostnameOverride: $name
mode: iptables
clusterCIDR: $pod_net
healthzBindAddress: $node_ip:10256
# The size of the table of connections belongs to the whole machine.
conntrack: {maxPerCore: 0}
oomScoreAdj: 0
END
}
