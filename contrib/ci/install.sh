#!/bin/sh
# Puts both programs into a folder of a CI job, or says why it cannot:
#
#   install.sh FOLDER VERSION FROM
#
# FROM is `release` (the archive of that release, checked against its SHA256SUMS), `pypi` (the wheel of that version, by pip
# or uv), or a path: a folder with both programs, an archive, or a wheel. WANDB_CRED_RELEASES is the address below which
# releases are, WANDB_CRED_SHA256 the hash that the archive must have. The GitHub Action and the Buildkite plugin run this
# file; the GitLab component holds a copy of it, and a test compares the two.
set -eu
folder=$1 version=$2 from=$3
releases=${WANDB_CRED_RELEASES:-https://github.com/OWNER/wandb-cred/releases/download}

fail() {
    echo "wandb-cred: $*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# download URL FILE
download() {
    if has curl; then
        curl -fsSL --retry 3 --connect-timeout 20 --max-time 300 --proto-redir =https -o "$2" "$1"
    elif has wget; then
        wget -q -T 60 -O "$2" "$1"
    elif has python3; then
        python3 -c 'import shutil, sys, urllib.request as request
with request.urlopen(sys.argv[1], timeout=60) as answer, open(sys.argv[2], "wb") as file:
    shutil.copyfileobj(answer, file)' "$1" "$2"
    else
        fail "no curl, wget or python3 here to download it with; install one before, or name a path in install-from"
    fi
}

sha256() {
    if has sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# archive FILE HASH: with the hash if one is wanted.
unpack_archive() {
    if [ -n "$2" ]; then
        found=$(sha256 "$1")
        [ "$found" = "$2" ] || fail "$(basename "$1") has the SHA-256 $found, not $2; nothing was installed"
    fi
    tar -xzf "$1" -C "$folder" "wandb-cred" "wandb-credd" || fail "$1 does not hold both programs"
}

# unpack_wheel WHAT: a file, or a name and version for the index that pip is configured for.
unpack_wheel() {
    if has python3 && python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder/wheel" "$1"
    elif has uv; then
        uv pip install --quiet --no-deps --target "$folder/wheel" "$1"
    else
        fail "neither pip nor uv is here to install the wheel with"
    fi >&2 || fail "$1 could not be installed"
    mv "$folder/wheel/bin/wandb-cred" "$folder/wheel/bin/wandb-credd" "$folder/" || fail "$1 does not hold both programs"
    rm -rf "$folder/wheel"
}

case $from in
release)
    case $releases in
    https://* | http://127.0.0.1:* | http://localhost:*) ;;
    *) fail "releases come by https, not from $releases" ;;
    esac
    case $(uname -sm) in
    'Linux x86_64') platform=x86_64-unknown-linux-gnu ;;
    'Linux aarch64') platform=aarch64-unknown-linux-gnu ;;
    'Darwin arm64') platform=aarch64-apple-darwin ;;
    'Darwin x86_64') platform=x86_64-apple-darwin ;;
    *) fail "no release is made for $(uname -sm)" ;;
    esac
    archive=wandb-cred-$version-$platform.tar.gz
    at=$releases/v$version
    download "$at/$archive" "$folder/$archive" || fail "no $archive at $at: no such release, or none for this platform"
    hash=${WANDB_CRED_SHA256:-}
    if [ -z "$hash" ]; then
        download "$at/SHA256SUMS" "$folder/SHA256SUMS" || fail "no SHA256SUMS at $at"
        while read -r sum name; do
            [ "${name#\*}" = "$archive" ] && hash=$sum
        done <"$folder/SHA256SUMS"
        [ -n "$hash" ] || fail "SHA256SUMS at $at does not name $archive"
    fi
    unpack_archive "$folder/$archive" "$hash"
    rm -f "$folder/$archive" "$folder/SHA256SUMS"
    ;;
pypi) unpack_wheel "wandb-cred==$version" ;;
*.whl) unpack_wheel "$from" ;;
*.tar.gz) unpack_archive "$from" "${WANDB_CRED_SHA256:-}" ;;
*)
    [ -x "$from/wandb-cred" ] && [ -x "$from/wandb-credd" ] ||
        fail "install-from must be release, pypi, or a path: $from is no folder with both programs"
    cp "$from/wandb-cred" "$from/wandb-credd" "$folder/"
    ;;
esac
chmod 755 "$folder/wandb-cred" "$folder/wandb-credd"

for program in "wandb-cred" "wandb-credd"; do
    "$folder/$program" --version >/dev/null 2>&1 ||
        fail "$program does not run here ($(uname -sm)); on Linux it needs glibc 2.17 or later, which Alpine does not have"
done
