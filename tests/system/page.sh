# The page for people in a headless browser. Screenshots stay in target/system-tests/page, to be looked at.

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

# shot NAME SIZE VIEW FLAG...: a screenshot of a view.
shot() {
    local name=$1 size=$2 view=$3
    shift 3
    mkdir -p "$target/system-tests/page"
    browse --window-size="$size" --screenshot="$target/system-tests/page/$name.png" "$@" "http://127.0.0.1:$port_page/$view" &&
        [[ -s $target/system-tests/page/$name.png ]]
}

dark=--blink-settings=preferredColorScheme=0

if need chromium chromium; then
    check "an agent with a page starts" start_page_agent
    check "the page says that nobody is there" page_says 'Nobody has the agent open.' ''
    check "the page says that there is no address space" page_says 'There is none: no client has made one.' '#/ioas'
    check "a client holds memory" page_starts
    check "the page says what is held" page_says 'pinned 3 MiB' ''
    check "the page shows who has the agent open" page_says 'Context 1: hold' '#/contexts/1'
    check "the page shows accounts" page_says "user $(id -u) 3 MiB" '#/accounts'
    check "the page shows the host" page_says 'What no figure here says' '#/host'
    check "the page shows events" page_says 'opened by "hold"' ''
    check "the page walks an address" walk_is_shown
    check "the page says where a walk ends" page_says 'nothing is mapped at 0x7000000000: the entry of level' '?domain=1&iova=0x7000000000'
    check "the page shows wrong input as text" page_escapes
    check "the page explains whether a map would fit" page_explains
    check "a client holds 12,500 areas" many_areas_are_held
    check "the map shows all of 12,500 areas" map_of_many_areas
    check "the map shows one of them, and the way there" map_of_one_area
    check "nothing is wrong in the console" nothing_is_wrong_in_the_console
    check "a screenshot of the overview" shot overview 1200,1200 ''
    check "a screenshot of a walk" shot walk 1200,900 "#/walk?domain=1&iova=$held_at"
    check "a screenshot of a map" shot map 1200,900 "#/ioas/$many?at=0x208000"
    check "a screenshot of the whole map in the dark" shot map-dark 1200,900 "#/ioas/$many" "$dark"
    check "a screenshot of the accounts" shot accounts 1200,700 '#/accounts'
    check "a screenshot of the host" shot host 1200,900 '#/host'
    check "a screenshot on a phone" shot phone 360,1400 "#/ioas/$many?at=0x208000" "$dark"
else
    skip "the page in a browser" "chromium is not installed, and not root with apt-get"
fi
