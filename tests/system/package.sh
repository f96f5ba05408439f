# The Debian package under real systemd: installed, used, hardened as it says, upgraded, removed, purged.

. tests/system/guest.sh

# The same package with a higher version, as an upgrade.
newer_package() {
    dpkg-deb -R "$folder/old.deb" "$folder/tree" && sed -i 's/^Version: .*/&+newer/' "$folder/tree/DEBIAN/control" &&
        dpkg-deb --root-owner-group -b "$folder/tree" "$folder/new.deb" >/dev/null
}

units_are_right() {
    local said
    said=$(inside systemd-analyze verify ioasd.service ioasd.socket ioasd-admin.socket 2>&1)
    echo "$said"
    ! grep -q ioasd <<<"$said"
}

little_is_exposed() {
    inside systemd-analyze security --threshold=16 ioasd.service
}

# status FIELD: of the agent's process.
status() {
    inside sed -nE "s/^$1:\s*(\S*).*/\1/p" "/proc/$(property MainPID)/status"
}

privileges_are() {
    echo "CapEff $(status CapEff) CapBnd $(status CapBnd) NoNewPrivs $(status NoNewPrivs) Seccomp $(status Seccomp) Uid $(status Uid)"
    [[ $(status CapEff) == "$1" && $(status CapBnd) == "$1" && $(status NoNewPrivs) == 1 && $(status Seccomp) == 2 && $(status Uid) != 0 ]]
}

# What the machine itself may lock is all that a service can be given without CAP_SYS_RESOURCE.
memory_may_be_locked() {
    inside grep -q '^Max locked memory *unlimited' "/proc/$(property MainPID)/limits"
}

# A client of group ioasd maps and holds memory; the agent shows it.
start_holder() {
    rm -f "$folder/inside.held"
    sleep infinity | as 65534 "$(group ioasd)" /mnt/hold /run/ioasd/ioasd.sock 4 >"$folder/inside.held" 2>&1 &
    inside_holder=$!
    running+=("$inside_holder")
    wait_for 20 grep -q '^holding' "$folder/inside.held"
}

holds() {
    [[ $(get_inside 9884 /metrics | sed -nE 's/^ioasd_charged_bytes ([0-9]+)\r?$/\1/p') == "$1" ]]
}

a_member_maps() {
    start_holder && wait_for 10 holds $((4 << 20))
}

others_stay_out() {
    ! as 65534 65534 /mnt/hold /run/ioasd/ioasd.sock 1 </dev/null && ! as 65534 "$(group ioasd)" /mnt/hold /run/ioasd/admin.sock 1 </dev/null
}

journal_has_fields() {
    inside journalctl --sync && inside journalctl --unit ioasd.service --output=json IOASD_SOCKET=/run/ioasd/ioasd.sock | grep -q '"MESSAGE":"serving"'
}

manual_pages_read() {
    inside bash -c 'zcat /usr/share/man/man1/ioasd-serve.1.gz' | grep -q 'ioasd' && inside bash -nc '. /usr/share/bash-completion/completions/ioasd'
}

upgrade_keeps_mappings() {
    local before
    before=$(property MainPID)
    inside sed -i '$a # by the operator' /etc/ioasd/ioasd.toml
    inside dpkg --force-confdef --force-confold --install /mnt/new.deb || return 1
    [[ $(property MainPID) == "$before" ]] && holds $((4 << 20)) && inside grep -q 'by the operator' /etc/ioasd/ioasd.toml
}

restart_ends_mappings_and_says_so() {
    inside systemctl restart ioasd.service || return 1
    wait_for 10 grep -q 'the agent hung up' "$folder/inside.held" && holds 0
}

killed_agent_comes_back() {
    local before
    before=$(property MainPID)
    ((before > 1)) && inside kill -KILL "$before" || return 1
    as 65534 "$(group ioasd)" /mnt/hold /run/ioasd/ioasd.sock 1 </dev/null || return 1
    wait_for 10 serving && [[ $(property MainPID) != "$before" ]]
}

# drop_in NAME TEXT: changes the unit and restarts the agent; an empty TEXT takes the example of the package.
drop_in() {
    inside mkdir -p /etc/systemd/system/ioasd.service.d
    if [[ -n ${2-} ]]; then
        inside tee "/etc/systemd/system/ioasd.service.d/$1" <<<"$2" >/dev/null
    else
        inside cp "/usr/share/doc/ioasd/examples/$1" /etc/systemd/system/ioasd.service.d/
    fi
    inside systemctl daemon-reload && inside systemctl restart ioasd.service
}

no_drop_in() {
    inside rm -rf /etc/systemd/system/ioasd.service.d && inside systemctl daemon-reload && inside systemctl restart ioasd.service
}

watchdog_ends_a_stuck_agent() {
    local before
    drop_in watchdog.conf $'[Service]\nWatchdogSec=2' || return 1
    before=$(property MainPID)
    sleep 5
    [[ $(property MainPID) == "$before" ]] || { echo "a healthy agent was ended"; return 1; }
    ((before > 1)) && inside kill -STOP "$before" || return 1
    wait_for 60 replaced "$before" && [[ $(property NRestarts) == 1 ]]
}

replaced() {
    [[ $(property MainPID) != 0 && $(property MainPID) != "$1" ]] && serving
}

variant() {
    drop_in "$1" && privileges_are "$2" && as 65534 "$(group ioasd)" /mnt/hold /run/ioasd/ioasd.sock 4 </dev/null
}

wrong_configuration_is_not_tried_again() {
    inside sed -i '$a [nonsense]' /etc/ioasd/ioasd.toml
    ! inside systemctl restart ioasd.service || return 1
    sleep 3
    [[ $(property ExecMainStatus) == 2 && $(property NRestarts) == 0 && $(property ActiveState) == failed ]] || return 1
    inside sed -i '$d' /etc/ioasd/ioasd.toml && inside systemctl restart ioasd.socket ioasd-admin.socket ioasd.service
}

removal_leaves_the_configuration_alone() {
    inside dpkg --remove ioasd && ! inside systemctl is-active ioasd.service ioasd.socket ioasd-admin.socket &&
        inside test ! -e /run/ioasd/ioasd.sock -a ! -e /usr/bin/ioasd -a -e /etc/ioasd/ioasd.toml
}

purge_leaves_nothing() {
    inside dpkg --purge ioasd && inside test ! -e /etc/ioasd/ioasd.toml -a ! -e /run/ioasd && ! inside systemctl cat ioasd.service
}

if boots "the package under systemd"; then
    check "the package is built" build_package
    check "a newer package is built" newer_package
    check "the package is installed, and the agent serves" installed
    check "systemd finds the units right" units_are_right
    check "systemd-analyze security: at most 1.6 is exposed" little_is_exposed
    check "the agent has no capability, a filter of system calls, and is not root" privileges_are 0000000000000000
    if [[ $(ulimit -H -l) == unlimited ]] || capsh --print 2>/dev/null | grep -q '^Bounding set.*cap_sys_resource'; then
        check "the agent may lock any amount of memory" memory_may_be_locked
    else
        skip "the agent may lock any amount of memory" "this machine has no CAP_SYS_RESOURCE: its own limit is $(ulimit -H -l) KiB"
    fi
    check "a member of group ioasd maps memory" a_member_maps
    check "others do not get in" others_stay_out
    check "events are in the journal with their fields" journal_has_fields
    check "manual pages and completions are there" manual_pages_read
    check "an upgrade keeps agent, mappings and the operator's configuration" upgrade_keeps_mappings
    check "a restart ends mappings, and the client is told" restart_ends_mappings_and_says_so
    check "an agent that was killed comes back; who connects meanwhile waits" killed_agent_comes_back
    check "the watchdog ends an agent that is stuck, and only that" watchdog_ends_a_stuck_agent
    check "variant files-only works without capability" variant files-only.conf 0000000000000000
    no_drop_in
    check "variant process-memory works with CAP_SYS_PTRACE alone" variant process-memory.conf 0000000000080000
    no_drop_in
    check "a wrong configuration is told once and not tried again" wrong_configuration_is_not_tried_again
    check "removal stops the agent and leaves the configuration alone" removal_leaves_the_configuration_alone
    check "purging leaves nothing behind" purge_leaves_nothing
    shut_down
fi
