#!/bin/bash
# Starts one Kafka node: waits for its identity, formats an empty disk if that is allowed, runs Java, and passes the
# end on to it. Needs nothing but bash, coreutils' mkdir, rm, sleep and timeout, and java. Every path and port comes from the environment.
set -euf -o pipefail
PATH="$PATH:/opt/java/openjdk/bin:/opt/java/bin"

say() { printf 'tidegate: %s\n' "$*"; }
# What the operator reads from the pod's status: a word for the reason, then what to do.
stop() {
  say "$*"
  printf '%s\n' "$*" >"${KAFKA_MESSAGE:-/dev/termination-log}" || true
  exit 1
}
trap 'exit 0' TERM INT
pause() { sleep 1 & wait $! || true; }

node=${KAFKA_NODE_ID:-${HOSTNAME##*-}}
data=$KAFKA_DATA
entry=$KAFKA_IDENTITY/node-$node
key=$KAFKA_TLS/node-$node.pem
java=(java)
# Splitting is wanted here; -f keeps the shell from expanding the star of the class path below.
flags=($KAFKA_JVM_FLAGS)
classes="$KAFKA_LIBS/*"

cluster='' directory='' role='' may='' replaces=''
identity() {
  cluster='' directory='' role='' may='' replaces=''
  [ -r "$entry" ] || return 0
  while IFS='=' read -r name value; do
    case $name in
      cluster-id) cluster=$value ;;
      directory-id) directory=$value ;;
      role) role=$value ;;
      may-format) may=$value ;;
      replaces) replaces=$value ;;
    esac
  done <"$entry"
}

# Whether the mounted certificates are those that this pod was made for; after a while those that are there will do.
certified() {
  local mounted=''
  [ -z "${KAFKA_CERTIFICATES:-}" ] && return 0
  [ -r "$KAFKA_TLS/fingerprint" ] && mounted=$(<"$KAFKA_TLS/fingerprint")
  [ "$mounted" = "$KAFKA_CERTIFICATES" ] && return 0
  [ "$waited" -ge "${KAFKA_CERTIFICATES_WAIT:-20}" ] || return 1
  say "node $node starts with certificates ${mounted:-of an unknown age}, not with $KAFKA_CERTIFICATES"
}

# The right to format is written before a pod that has it starts, so a short while is enough for it to be seen; an empty disk is
# told only by ending.
waited=0
while :; do
  identity
  if [ -n "$cluster" ] && [ -n "$directory" ] && [ -r "$key" ] && certified; then
    [ -e "$data/meta.properties" ] && break
    [ "$may" = true ] && break
    [ "$waited" -ge "${KAFKA_EMPTY_WAIT:-5}" ] && stop "DiskEmpty: the disk of node $node is empty, and Kafka cluster $cluster is formed"
  fi
  [ "$waited" = 0 ] && say "node $node waits for its identity and its certificate"
  waited=$((waited + 1))
  pause
done

mkdir -p "$KAFKA_RUN"
conf=$KAFKA_RUN/server.properties
roles=broker
listeners=CLIENT://$KAFKA_BIND:$KAFKA_CLIENT_PORT
advertised=CLIENT://$KAFKA_HOST:$KAFKA_CLIENT_PORT
if [ "$role" = voter ]; then
  roles=broker,controller
  listeners=$listeners,CONTROLLER://$KAFKA_BIND:$KAFKA_CONTROLLER_PORT
  advertised=$advertised,CONTROLLER://$KAFKA_HOST:$KAFKA_CONTROLLER_PORT
fi
{
  printf '%s\n' "$(<"$KAFKA_CONFIG/server.properties")"
  printf '%s\n' "process.roles=$roles" "node.id=$node" "listeners=$listeners" \
    "advertised.listeners=$advertised" "ssl.keystore.location=$key"
} >"$conf"

# An end in the middle of it leaves a disk with an id that nobody knows: then it begins again.
formatting=$data.formatting
if [ -e "$data/meta.properties" ] && [ ! -e "$formatting" ]; then
  while IFS='=' read -r name value; do
    case $name in
      cluster.id) [ "$value" = "$cluster" ] || stop "WrongDisk: the disk belongs to Kafka cluster $value, node $node to $cluster" ;;
      node.id) [ "$value" = "$node" ] || stop "WrongDisk: the disk belongs to node $value, this is node $node" ;;
    esac
  done <"$data/meta.properties"
else
  [ -e "$formatting" ] && rm -rf "$data"
  printf '%s\n' "$directory" >"$formatting"
  mkdir -p "$data"
  say "node $node formats its disk for Kafka cluster $cluster"
  how=()
  [ -r "$KAFKA_IDENTITY/metadata-version" ] && how+=(--release-version "$(<"$KAFKA_IDENTITY/metadata-version")")
  if [ "$role" = voter ] && [ -n "$replaces" ]; then
    # The others know who votes: this disk reads along until they let it in.
    how+=(--no-initial-controllers)
  elif [ "$role" = voter ]; then
    how+=(--initial-controllers "$(<"$KAFKA_IDENTITY/initial-controllers")")
  fi
  "${java[@]}" "${flags[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -XX:TieredStopAtLevel=1 -cp "$classes" \
    kafka.tools.StorageTool format -t "$cluster" -c "$conf" "${how[@]}" ||
    stop "FormatFailed: Kafka's storage tool refused; the log says why"
  # Without a list of voters the tool makes up an id.
  meta=$(<"$data/meta.properties")
  made=${meta#*directory.id=}
  made=${made%%$'\n'*}
  if [ "$made" != "$directory" ]; then
    printf '%s\n' "${meta/directory.id=$made/directory.id=$directory}" >"$data/meta.properties"
  fi
  rm "$formatting"
fi

# Whether enough voters listen for anything to be decided: this node, and those that answer on their controllers' port.
voters=()
while IFS='=' read -r name value; do
  [ "$name" = controller.quorum.bootstrap.servers ] && IFS=',' read -ra voters <<<"$value"
done <"$conf"
quorum() {
  local voter up=0
  for voter in "${voters[@]}"; do
    if [ "$voter" = "$KAFKA_HOST:$KAFKA_CONTROLLER_PORT" ] ||
      timeout 1 bash -c 'exec 3<>"/dev/tcp/${1%:*}/${1##*:}"' - "$voter" 2>/dev/null; then
      up=$((up + 1))
    fi
  done
  [ "$up" -gt $((${#voters[@]} / 2)) ]
}

"${java[@]}" "${flags[@]}" -cp "$classes" kafka.Kafka "$conf" &
broker=$!
leaving=''
trap 'leaving=true; kill -TERM "$broker" 2>/dev/null || true' TERM INT
lost=0
while kill -0 "$broker" 2>/dev/null; do
  if [ -z "$leaving" ]; then
    wait "$broker" || true
    continue
  fi
  pause
  # Kafka hands its partitions over before it ends, and waits for minutes where nobody is left to decide who takes them:
  # everything is going away together. What it has written is with the operating system.
  if quorum; then lost=0; else lost=$((lost + 1)); fi
  if [ "$lost" -ge 3 ]; then
    say "node $node ends at once: no majority of controllers is left to hand its partitions over to"
    kill -KILL "$broker" 2>/dev/null || true
  fi
done
code=0
wait "$broker" || code=$?
exit "$code"
