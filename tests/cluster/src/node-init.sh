#!/bin/bash
# The first process of a node, inside its namespaces: gives it a file system of its own where the machine's would be
# shared, then keeps containerd, kubelet and kube-proxy running as an init system would.
# usage: node-init.sh NAME ADDRESS NODE_DIR KUBERNETES_DIR PROGRAMS_DIR
set -eu
name=$1 address=$2 node=$3 kubernetes=$4 programs=$5

hostname "$name"
mkdir -p "$node"/{etc,etc.work,log,opt,run,tmp,var/lib/kubelet,var/log}
chmod 1777 "$node/tmp"

# Everything that the node needs of the machine is gathered in its /run before /var and the others are covered.
mount -t tmpfs -o mode=755 tmpfs "$node/run"
mkdir -p "$node"/run/{kubernetes,lock,node,programs}
mount --bind "$kubernetes" "$node/run/kubernetes"
mount --bind "$programs" "$node/run/programs"
mount --bind "$node" "$node/run/node"
mount --rbind "$node/run" /run

# What pods write to a folder of their host is this node's alone.
mount -t overlay -o lowerdir=/etc,upperdir=/run/node/etc,workdir=/run/node/etc.work overlay /etc
mount --bind /run/node/opt /opt
# Volumes that were moved to a disk of their own, for faults of it.
if [ -e /run/node/volumes.img ]; then
  mount -o loop,discard,noinit_itable /run/node/volumes.img /opt/local-path-provisioner
fi
mount --bind /run/node/tmp /tmp
mount --bind /run/node/var /var
# Mounts in pods and mounts for pods must see each other.
mount --bind /var/lib/kubelet /var/lib/kubelet
mount --make-rshared /var/lib/kubelet

# This network namespace's links, this control group namespace's groups.
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
if [ -s /run/node/cgroups ]; then
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  while read -r folder controllers; do
    mkdir "/sys/fs/cgroup/$folder"
    mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$folder"
    for controller in ${folder//,/ }; do
      [ -e "/sys/fs/cgroup/$controller" ] || ln -s "$folder" "/sys/fs/cgroup/$controller"
    done
  done < /run/node/cgroups
else
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi

# The cable is plugged in from outside; the default route comes last.
until ip route show default | grep -q .; do sleep 0.05; done
echo 1 > /proc/sys/net/ipv4/ip_forward
# Without it an answer between two pods of one node would pass by kube-proxy's translation.
[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables

# No pod has survived, so no address is in use.
rm -rf /var/lib/cni
mkdir -p /etc/cni/net.d /opt/cni/bin
cp /run/node/cni.conflist /etc/cni/net.d/10-tidegate.conflist
ln -sf /run/programs/usr/lib/cni/* /opt/cni/bin/

export PATH=/run/kubernetes:/run/programs/usr/bin:/run/programs/usr/sbin:$PATH
exec < /dev/null > /dev/null 2>&1
keep() {
  log=/run/node/log/$1.log
  shift
  : > "$log"
  while true; do
    "$@" >> "$log" 2>&1 || true
    echo "node-init: it has ended and is started again" >> "$log"
    sleep 1
  done
}
keep containerd containerd --config /run/node/containerd.toml &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.05; done
keep kubelet kubelet --config=/run/node/kubelet.yaml --kubeconfig=/run/node/kubelet.kubeconfig \
  --hostname-override="$name" --node-ip="$address" &
keep kube-proxy kube-proxy --kubeconfig=/run/node/proxy.kubeconfig --hostname-override="$name" \
  --cluster-cidr=10.244.0.0/16 --proxy-mode=iptables \
  --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 &

# What `extras.rs` brings for second networks. A node that has it not waits for it, without asking again and again.
second_networks() {
  ln -sf /run/node/multus/{multus,whereabouts} /opt/cni/bin/
  mkdir -p /etc/cni/net.d/whereabouts.d
  cp /run/node/multus/whereabouts.conf /etc/cni/net.d/whereabouts.d/
  keep dhcp bash -c 'rm -f /run/cni/dhcp.sock; mkdir -p /run/cni; exec /opt/cni/bin/dhcp daemon' &
  # Last, and at once: from here on every pod comes by it.
  cp /run/node/multus/00-multus.conf /etc/cni/net.d/.00-multus
  mv /etc/cni/net.d/.00-multus /etc/cni/net.d/00-multus.conf
}
if [ -e /run/node/multus/00-multus.conf ]; then
  second_networks
else
  rm -f /run/node/equip
  mkfifo /run/node/equip
  (read -r < /run/node/equip; rm -f /run/node/equip; second_networks; while true; do wait; done) &
fi
while true; do wait; done
