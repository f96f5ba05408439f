# The admin API against its own OpenAPI document: schemathesis asks an agent with objects in it, over loopback and with the
# token, whatever the document allows and what it does not. First what only looks, since an eviction ends the client.

api_token=correct-horse-battery-staple

start_api_agent() {
    mkdir -p "$folder/api"
    (umask 377 && echo "$api_token" >"$folder/api.token")
    cat >"$folder/api.toml" <<TOML
[admin]
scope = "full"
token_file = "$folder/api.token"
[[tenant]]
name = "all"
limits = { pinned = { soft = "4MiB", hard = "1GiB" } }
TOML
    IOASD_CONFIG=$folder/api.toml start_agent api
}

# asked NAME OPTION...: every check of schemathesis, such as: no 5xx; no status, type or body that is not in the document; what
# is valid is accepted, and nothing else; nothing without the token. What was asked is kept in api/NAME.har.
asked() {
    local name=$1
    shift
    (cd "$folder/api" && schemathesis run "http://127.0.0.1:$port_api/openapi.json" --url "http://127.0.0.1:$port_api" \
        --header "Authorization: Bearer $api_token" --checks all --max-examples "${IOASD_API_EXAMPLES:-25}" \
        --seed "${IOASD_API_SEED:-1}" --no-color --report har --report-har-path "$folder/api/$name.har" "$@")
}

every_operation_was_answered() {
    get "$port_api" /openapi.json >"$folder/api/openapi.json" &&
        python tests/system/answered.py "$folder/api/openapi.json" "$folder/api/reads.har" "$folder/api/changes.har"
}

if ! need_python 'schemathesis==4.32.5'; then
    skip "the admin API against its document" "schemathesis could not be installed: $(tail -1 "$folder/pip.log")"
else
    check "an agent with a token starts" start_api_agent
    check "a client holds 50 areas" hold "$folder/api/ioasd.sock" 8 40
    check "what is asked is answered as the document says" asked reads --include-method GET
    check "what is changed is answered as the document says" asked changes --exclude-method GET
    check "every operation was answered with success" every_operation_was_answered
    check "the agent lives after all that" get "$port_api" /livez
fi
