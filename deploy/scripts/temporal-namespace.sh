#!/bin/sh
# Create the namespace if it is missing, and return once the frontend serves it. Safe to run again:
# an existing namespace is left as it is, its retention too.
set -eu

: "${TEMPORAL_ADDRESS:?host:port of the frontend}" "${NAMESPACE:?}" "${RETENTION:?}"
attempts=${ATTEMPTS:-60}
pause=${PAUSE_SECONDS:-2}

# By address where the name resolves: behind some resolvers the CLI runs into its connect timeout while
# it waits for DNS TXT records of a name that only the container network knows.
host=${TEMPORAL_ADDRESS%:*}
resolved=$(getent hosts "$host" 2>/dev/null | awk 'NR == 1 { print $1 }' || true)
case $resolved in
    "") address=$TEMPORAL_ADDRESS ;;
    *:*) address="[$resolved]:${TEMPORAL_ADDRESS##*:}" ;;
    *) address="$resolved:${TEMPORAL_ADDRESS##*:}" ;;
esac
export TEMPORAL_ADDRESS="$address"

# until_true WHAT COMMAND...: run COMMAND until it succeeds; its last words are shown when it never does.
until_true() {
    what=$1
    shift
    attempt=1
    until said=$("$@" 2>&1); do
        if [ "$attempt" -ge "$attempts" ]; then
            echo "namespace: gave up waiting for $what: $said" >&2
            exit 1
        fi
        attempt=$((attempt + 1))
        sleep "$pause"
    done
}

until_true "the frontend at $address" temporal operator cluster health
if temporal operator namespace describe --namespace "$NAMESPACE" >/dev/null 2>&1; then
    echo "namespace: $NAMESPACE exists"
else
    temporal operator namespace create --namespace "$NAMESPACE" --retention "$RETENTION"
    echo "namespace: $NAMESPACE created, retention $RETENTION"
fi

# The frontend learns of a new namespace some seconds later.
until_true "namespace $NAMESPACE" temporal workflow list --namespace "$NAMESPACE" --limit 1
echo "namespace: $NAMESPACE is served"
