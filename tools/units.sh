# shellcheck shell=bash
# Sizes as `make run` takes them, for the scripts beside this one to source.

mib() { # SIZE as 512M, 512MiB, 1G, 1024K or bytes, in MiB; tools/bundle says what is wrong with others
    local size=${1%[Bb]}
    size=${size%[Ii]}
    case "$size" in
    *[Gg]) echo $((10#${size%?} * 1024)) ;;
    *[Mm]) echo $((10#${size%?})) ;;
    *[Kk]) echo $((10#${size%?} / 1024)) ;;
    *) echo $((10#$size >> 20)) ;;
    esac
}
