#!/bin/bash
# Starts one Kafka node: waits for its identity, formats an empty disk if that is allowed, and becomes Java.
# Needs nothing but bash, coreutils' mkdir and sleep, and java. Every path and port comes from the environment.
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

cluster='' directory='' role='' may=''
identity() {
  cluster='' directory='' role='' may=''
  [ -r "$entry" ] || return 0
  while IFS='=' read -r name value; do
    case $name in
      cluster-id) cluster=$value ;;
      directory-id) directory=$value ;;
      role) role=$value ;;
      may-format) may=$value ;;
    esac
  done <"$entry"
}

waited=0
while :; do
  identity
  if [ -n "$cluster" ] && [ -n "$directory" ] && [ -r "$key" ]; then
    [ -e "$data/meta.properties" ] && break
    [ "$may" = true ] && break
    [ "$waited" -ge "${KAFKA_EMPTY_WAIT:-60}" ] && stop "DiskEmpty: the disk of node $node is empty, and Kafka cluster $cluster is formed"
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

if [ -e "$data/meta.properties" ]; then
  while IFS='=' read -r name value; do
    case $name in
      cluster.id) [ "$value" = "$cluster" ] || stop "WrongDisk: the disk belongs to Kafka cluster $value, node $node to $cluster" ;;
      node.id) [ "$value" = "$node" ] || stop "WrongDisk: the disk belongs to node $value, this is node $node" ;;
    esac
  done <"$data/meta.properties"
else
  mkdir -p "$data"
  say "node $node formats its disk for Kafka cluster $cluster"
  how=()
  [ "$role" = voter ] && how=(--initial-controllers "$(<"$KAFKA_IDENTITY/initial-controllers")")
  "${java[@]}" "${flags[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -XX:TieredStopAtLevel=1 -cp "$classes" \
    kafka.tools.StorageTool format -t "$cluster" -c "$conf" ${KAFKA_FORMAT_FLAGS:-} "${how[@]}" ||
    stop "FormatFailed: Kafka's storage tool refused; the log says why"
fi

exec "${java[@]}" "${flags[@]}" -cp "$classes" kafka.Kafka "$conf"
