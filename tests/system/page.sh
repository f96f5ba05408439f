# The page for people in a headless browser: what it says, in virtual time, then how it is used, in real time (page.py).
# Pictures stay in target/system-tests/page, to be looked at.

# browse ARGUMENT...: the browser, which keeps its files in our folder and talks to nobody but the agent.
browse() {
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking \
        --user-data-dir="$folder/chromium" --enable-logging=stderr --virtual-time-budget=8000 "$@" 2>>"$folder/chromium.log"
}

# page_says TEXT QUERY: whether the text of the page, when it has settled, contains it.
page_says() {
    browse --dump-dom "http://127.0.0.1:$port_page/$2" >"$folder/dom" || return 1
    sed -E 's/<[^>]*>/ /g' "$folder/dom" | tr -s ' \n' ' ' >"$folder/text"
    grep -qF "$1" "$folder/text" || { cat "$folder/text"; return 1; }
}

start_page_agent() {
    printf '[admin]\nscope = "full"\n' >"$folder/page.toml"
    IOASD_CONFIG=$folder/page.toml start_agent page
}

page_starts() {
    hold "$folder/page/ioasd.sock" 3 &&
        held_at=$(sed -nE 's/^holding .* at (0x[0-9a-f]+)$/\1/p' "$folder/held") && [[ -n $held_at ]]
}

walk_is_shown() {
    page_says "$held_at is mapped: it leads to" "?domain=1&iova=$held_at" && grep -qE 'area 0x[0-9a-f]+ to 0x[0-9a-f]+, 3 MiB, rw, ready' "$folder/text" &&
        [[ $(grep -o '<tr class="end">' "$folder/dom" | wc -l) == 1 ]]
}

page_escapes() {
    page_says 'is not an address below 2^64' '?domain=1&iova=%3Cimg%20src%3Dx%3E' && ! grep -q '<img' "$folder/dom"
}

# A second client, with 10,000 areas and 2,500 more that share their pages.
many_areas_are_held() {
    hold "$folder/page/ioasd.sock" 40 10000 && many=$(get "$port_page" '/v1/ioas?context=2' | sed -nE 's/^ *"id": ([0-9]+),$/\1/p') && [[ -n $many ]]
}

map_of_many_areas() {
    page_says '0x0 to 0xffffffffffffffff, 12,500 areas' "#/ioas/$many"
}

# The third area: where it lies, whose pages it has, with whom it shares them, and the way there.
map_of_one_area() {
    page_says '0x208000 is mapped: it leads to' "#/ioas/$many?at=0x208000" && grep -qF 'shared with from to ioas' "$folder/text" &&
        grep -qF '0x10000208000' "$folder/text"
}

nothing_is_wrong_in_the_console() {
    ! grep -E 'Uncaught|Content Security Policy|is not a valid|Failed to load module' "$folder/chromium.log"
}

# A map over the one area of the first client, and one that fits.
page_explains() {
    page_says "It would be refused: range [$held_at" "#/ioas/1?length=4096&iova=$held_at" && grep -qF 'iova-occupied, errno 17' "$folder/text" &&
        page_says 'It would succeed, at 0x' '#/ioas/1?length=2MiB'
}

# used TEST [ARGUMENT...]: the page as somebody uses it, in real time.
used() {
    local test=$1
    shift
    python3 tests/system/page.py "$folder" "http://127.0.0.1:$port_page" "$test" "$@"
}

if need chromium chromium && need python3 python3; then
    check "an agent with a page starts" start_page_agent
    check "the page says that nobody is there" page_says 'Nobody has the agent open.' ''
    check "the page says that there is no address space" page_says 'There is none: no client has made one.' '#/ioas'
    check "a client holds memory" page_starts
    check "the page says what is held" page_says 'pinned 3 MiB' ''
    check "the page shows who has the agent open" page_says 'Context 1: hold' '#/contexts/1'
    check "the page shows accounts" page_says "user $(id -u) 3 MiB" '#/accounts'
    check "the page shows the host" page_says 'What no figure here says' '#/host'
    check "the page shows that nothing takes long" page_says 'Nothing takes long just now.' '#/operations'
    check "the page shows events" page_says 'opened by "hold"' ''
    check "the page walks an address" walk_is_shown
    check "the page says where a walk ends" page_says 'nothing is mapped at 0x7000000000: the entry of level' '?domain=1&iova=0x7000000000'
    check "the page shows wrong input as text" page_escapes
    check "the page explains whether a map would fit" page_explains
    check "a client holds 12,500 areas" many_areas_are_held
    check "the map shows all of 12,500 areas" map_of_many_areas
    check "the map shows one of them, and the way there" map_of_one_area
    check "nothing is wrong in the console" nothing_is_wrong_in_the_console
    check "a client that comes and goes is shown as it happens" used live "$holder_program" "$folder/page/ioasd.sock"
    check "every view and the map are reached by keyboard" used keyboard "$many"
    check "on a phone nothing is moved sideways but tables" used narrow "$many"
    check "12,500 areas are found and stepped through" used many "$many"
    check "pictures of every view" used shots "$many" "$target/system-tests/page"
else
    skip "the page in a browser" "chromium is not installed, and not root with apt-get"
fi
