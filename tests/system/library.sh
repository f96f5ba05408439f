# The library for C as its Debian packages lay it out: a program is built with pkg-config and works over an agent.

library_packages() {
    need_cargo_deb && deploy/debian/build-library >"$folder/packages" || return 1
    while read -r package; do
        dpkg-deb -x "$package" "$folder/root" || return 1
    done <"$folder/packages"
}

# Whoever builds with one version runs with the same.
packages_belong_together() {
    local version
    version=$(dpkg-deb -f "$(grep libioasd0_ "$folder/packages")" Version) || return 1
    dpkg-deb -f "$(grep libioasd-dev_ "$folder/packages")" Depends | grep -F "libioasd0 (= $version)"
}

a_program_is_built() {
    local flags
    flags=$(PKG_CONFIG_SYSROOT_DIR=$folder/root PKG_CONFIG_LIBDIR=$folder/root/usr/lib/x86_64-linux-gnu/pkgconfig \
        pkg-config --cflags --libs ioasd) || return 1
    # shellcheck disable=SC2086 # flags are words
    cc -O2 -o "$folder/device" "$folder/root/usr/share/doc/libioasd-dev/examples/device.c" $flags
}

the_program_works() {
    LD_LIBRARY_PATH=$folder/root/usr/lib/x86_64-linux-gnu "$folder/device" "$folder/library/ioasd.sock" 1
}

if ! need dpkg-deb dpkg || ! need pkg-config pkg-config || ! need cc gcc; then
    skip "the packages of the library for C" "needs dpkg-deb, pkg-config and cc"
else
    check "the library's packages are built" library_packages
    check "libioasd-dev needs the libioasd0 of its version" packages_belong_together
    check "a program is built as pkg-config says" a_program_is_built
    check "an agent for it" start_agent library
    check "the program works over the packaged library" the_program_works
fi
