assert_hardened() {
    headers=$(readelf --wide --file-header --program-headers --dynamic "$1")
    has() {
        printf '%s\n' "$headers" | grep -Eq "$1" && return
        echo "scripts/package: $program is not hardened: $2" >&2
        exit 1
    }
    program=$1
    has 'Type: +DYN' 'it is not position independent (PIE)'
    has 'GNU_RELRO' 'it has no RELRO segment'
    has 'BIND_NOW|FLAGS_1.*NOW' 'its relocations are not bound at start (BIND_NOW)'
    has 'GNU_STACK.* RW ' 'its stack is executable'
}
