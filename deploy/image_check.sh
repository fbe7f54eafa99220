#!/usr/bin/env bash
# Builds the CPU image without a Docker engine and tries it as docker-compose.yml would run it: read-only root, tmpfs on
# /tmp, no capabilities, no new privileges, its own user, its own network. As root, on Debian or Ubuntu:
#
#   apt-get install --no-install-recommends buildah debootstrap && make image-check
#
# The base image is Debian's from debootstrap. pip in the build sees this machine's /etc/pip.conf and certificates;
# neither stays in the image. Everything is kept in $IMAGE_CHECK_DIR, so that a second run skips what is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=${IMAGE_CHECK_DIR:-/var/tmp/lungnodule-image-check}
suite=${DEBIAN_SUITE:-bookworm}
image=localhost/lungnodule:cpu
driver=${STORAGE_DRIVER:-overlay} # vfs works everywhere and copies everything
export BUILDAH_ISOLATION=chroot

say() { printf '== %s (%d s)\n' "$1" "$SECONDS"; }
image_store() { buildah --storage-driver "$driver" --root "$work/storage" --runroot "$work/run" "$@"; }

make_base() {
    image_store inspect --type image localhost/base >/dev/null 2>&1 && return
    say "base: debootstrap $suite"
    [ -e "$work/base/etc/debian_version" ] ||
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$work/base" >"$work/debootstrap.log"
    local container
    container=$(image_store from scratch)
    image_store copy --quiet "$container" "$work/base" / >/dev/null
    image_store commit --quiet --rm "$container" localhost/base >/dev/null
}

build_image() {
    say "build"
    local mounts=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
    [ -e /etc/pip.conf ] && mounts+=(--volume /etc/pip.conf:/etc/pip.conf:ro)
    image_store bud --quiet --format docker --target cpu --build-arg BASE_IMAGE=localhost/base \
        "${mounts[@]}" --tag "$image" . >/dev/null 2>"$work/build.log" || { cat "$work/build.log" >&2; exit 1; }
    image_store rmi --prune --force >/dev/null # what an earlier run built
}

# Prints one field of the image's configuration, a list as one line per element.
image_config() {
    image_store inspect --type image "$image" | python3 -c '
import json, sys
value = json.load(sys.stdin)["Docker"]["config"]
for key in sys.argv[1].split("."):
    value = value[key]
print("\n".join(value) if isinstance(value, list) else value)' "$1"
}

try_image() {
    say "try"
    local container root
    container=$(image_store from "$image")
    trap "image_store rm '$container' >/dev/null" EXIT
    root=$(image_store mount "$container")

    mapfile -t ENVIRONMENT < <(image_config Env)
    mapfile -t COMMAND < <(image_config Entrypoint; image_config Cmd)
    mapfile -t HEALTH < <(image_config Healthcheck.Test | tail -n +2)
    local state
    state=$(declare -p ENVIRONMENT COMMAND HEALTH)
    unshare --mount --net --pid --fork --kill-child --mount-proc \
        bash -euo pipefail -c "$state; $(declare -f as_composed try_inside); log='$work/service.log'; try_inside '$root' '$(image_config User)' '$(image_config WorkingDir)'"
}

# Becomes a command in $root as docker-compose.yml would run it: call it in a subshell.
as_composed() {
    exec env --ignore-environment "${ENVIRONMENT[@]}" chroot "$root" setpriv --reuid="${user%:*}" --regid="${user#*:}" \
        --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all --securebits=+noroot,+no_setuid_fixup \
        sh -c 'cd "$0" && exec "$@"' "$directory" "$@"
}

try_inside() {
    root=$1 user=$2 directory=$3
    ip link set lo up
    mount --bind "$root" "$root"
    mount -o remount,ro,bind "$root"
    mount -t tmpfs -o size=4g,mode=1777 tmpfs "$root/tmp"
    mount -t tmpfs -o size=1g,mode=0700,uid="${user%:*}",gid="${user#*:}" tmpfs "$root/var/lib/lungnodule" # the volume
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"

    (as_composed lungnodule --version)
    (as_composed python3 -c '
import importlib.util, os, shutil
assert os.getuid() == 10001, os.getuid()
present = [name for name in ("torch", "monai", "pip", "setuptools") if importlib.util.find_spec(name)]
tools = [name for name in ("gcc", "cc", "g++", "make", "curl", "wget") if shutil.which(name)]
assert not present and not tools, (present, tools)
for folder in ("/", "/opt/lungnodule", os.getcwd(), "/var/tmp"):
    try:
        open(os.path.join(folder, "written"), "w")
    except OSError:
        continue
    raise SystemExit(f"{folder} can be written")
print("non-root, read-only, without torch, package manager, compiler")')

    as_composed "${COMMAND[@]}" >"$log" 2>&1 &
    local service=$!
    for _ in $(seq 240); do
        (as_composed "${HEALTH[@]}") 2>/dev/null && break
        kill -0 "$service" 2>/dev/null || { cat "$log"; exit 1; }
        sleep 0.5
    done
    (as_composed "${HEALTH[@]}")
    echo "healthy"
    local key
    (as_composed lungnodule demo --url http://127.0.0.1:8000) >/dev/null 2>&1 && { echo "answers without a key"; exit 1; }
    key=$(as_composed lungnodule keys create image-check --roles submit 2>/dev/null)
    (as_composed env LUNGNODULE_API_KEY="$key" lungnodule demo --url http://127.0.0.1:8000) >/dev/null
    kill -TERM "$service"
    wait "$service"
    echo "stopped on SIGTERM with 0"
}

[ "$(id -u)" = 0 ] || { echo "image-check needs root (chroot, mounts)" >&2; exit 2; }
for tool in buildah debootstrap setpriv unshare ip; do
    command -v "$tool" >/dev/null || { echo "image-check needs $tool: apt-get install buildah debootstrap util-linux iproute2" >&2; exit 2; }
done
mkdir -p "$work"
make_base
build_image
say "image: $(image_store images --format '{{.Size}}' "$image")"
try_image
say "good"
