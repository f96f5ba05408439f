# Clients in a memory control group of their own. What they map is their group's, also while the agent pins it; one that
# is killed for want of memory leaves nothing, neither with the agent nor in the group, and nobody else feels it.

# memory_group BYTES: makes a group with this limit, of either kind of hierarchy.
memory_group() {
    local root
    root=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ { print $2; exit }' /proc/mounts)
    group_limit=memory.limit_in_bytes group_used=memory.usage_in_bytes
    if [[ -z $root ]]; then
        root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
        group_limit=memory.max group_used=memory.current
        grep -qw memory "$root/cgroup.subtree_control" || return 1
    fi
    memory_group=$(mktemp -d "$root/ioasd-test-XXXXXX") && echo "$1" >"$memory_group/$group_limit"
}

# grouped ADJUSTMENT COMMAND...: runs it in the group; the higher, the sooner it is killed.
grouped() {
    bash -c 'echo $$ >"$0/cgroup.procs" && echo "$1" >/proc/self/oom_score_adj && shift && exec "$@"' "$memory_group" "$@"
}

# figure NAME NUMBER: whether a metric without labels has this value.
figure() {
    get "$port_memory" /metrics | grep -qE "^$1 $2"$'\r?$'
}

# group_uses TEST BYTES: compares what the group uses.
group_uses() {
    (($(cat "$memory_group/$group_used") $1 $2))
}

group_pays() {
    hold "$folder/memory/ioasd.sock" 4 || return 1
    sleep infinity | grouped 0 "$holder_program" "$folder/memory/ioasd.sock" 8 >"$folder/grouped" 2>&1 &
    grouped_holder=$!
    running+=("$grouped_holder")
    wait_for 20 grep -q '^holding' "$folder/grouped" && group_uses '>=' $((8 << 20)) && figure ioasd_charged_bytes $((12 << 20))
}

one_is_killed() {
    local status
    grouped 1000 "$holder_program" "$folder/memory/ioasd.sock" 64 </dev/null
    status=$?
    echo "ended with $status"
    ((status == 137)) && wait_for 10 figure ioasd_contexts 2 && figure ioasd_charged_bytes $((12 << 20)) && kill -0 "$grouped_holder"
}

all_is_given_back() {
    xargs kill -KILL <"$memory_group/cgroup.procs"
    wait_for 10 figure ioasd_contexts 1 && figure ioasd_charged_bytes $((4 << 20)) && wait_for 10 group_uses '<' $((1 << 20)) &&
        wait_for 10 rmdir "$memory_group"
}

if [[ $(id -u) != 0 ]] || ! memory_group $((24 << 20)) 2>"$folder/check.log"; then
    skip "clients in a memory control group" "needs root and a memory controller: $(tail -1 "$folder/check.log")"
else
    check "an agent starts" start_agent memory
    check "what a client maps is its group's, and pinned" group_pays
    check "a client that is killed for want of memory leaves nothing, the others keep theirs" one_is_killed
    check "with the last client gone the group has its memory back" all_is_given_back
    [[ ! -e $memory_group ]] || { xargs kill -KILL <"$memory_group/cgroup.procs"; wait_for 10 rmdir "$memory_group"; }
fi
