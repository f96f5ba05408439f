# A machine in the machine: systemd as process 1 of namespaces of its own over this machine's files (tests/system/boot), in
# which the Debian package is installed and used. Nothing of this machine is changed, and no virtual machine is needed.
# For the parts that need one: `boots NAME`, then `inside COMMAND...`, at the end `shut_down`.

build_package() {
    need_cargo_deb || return 1
    package=$(deploy/debian/build) && cp "$package" "$folder/old.deb"
}

boot() {
    unshare --pid --fork --kill-child --mount --mount-proc --ipc --uts --net bash tests/system/boot "$folder" >"$folder/boot.log" 2>&1 &
    outer=$!
    wait_for 20 pgrep --parent "$outer" --exact systemd >/dev/null || { cat "$folder/boot.log"; return 1; }
    init=$(pgrep --parent "$outer" --exact systemd)
    wait_for 30 inside systemctl is-active --quiet sockets.target
}

# `unshare` does not heed SIGTERM while it waits.
shut_down() {
    kill -KILL "$outer"
    wait "$outer" 2>/dev/null
    wait_for 10 no_init
    unshare --mount sh -c 'mount -t cgroup2 cgroup2 /mnt && find /mnt -depth -type d -path "*/ioasd-test-*" -exec rmdir {} +'
}

no_init() {
    [[ ! -e /proc/$init ]]
}

inside() {
    nsenter --target "$init" --mount --pid --ipc --uts --net -- "$@"
}

# as USER GROUP COMMAND...
as() {
    local user=$1 group=$2
    shift 2
    inside setpriv --reuid="$user" --regid=65534 --groups="$group" -- "$@"
}

property() {
    inside systemctl show --property="$1" --value ioasd.service
}

group() {
    inside getent group "$1" | cut -d: -f3
}

serving() {
    [[ $(property ActiveState) == active && $(property StatusText) == serving:* ]]
}

installed() {
    inside dpkg --install /mnt/old.deb && inside dpkg --verify ioasd && wait_for 20 serving
}

# get_inside PORT PATH: the body of an answer there.
get_inside() {
    inside bash -c "$(declare -f get); get $1 '$2'"
}

# boots NAME: boots it; if that cannot be, NAME is skipped.
boots() {
    if [[ $(id -u) != 0 ]] || ! need dpkg-deb dpkg || ! need nsenter util-linux || ! need pgrep procps || ! need ip iproute2; then
        skip "$1" "needs root on Debian"
        return 1
    elif ! need /lib/systemd/systemd systemd; then
        skip "$1" "systemd is not installed and could not be"
        return 1
    elif ! boot >"$folder/check.log" 2>&1; then
        skip "$1" "systemd does not start in namespaces here: $(tail -1 "$folder/check.log")"
        shut_down
        return 1
    fi
}
