# shellcheck shell=bash
# Sizes as `make run` takes them, for the scripts beside this one to source.

mib() { # SIZE as 512M, 1G, 1024K or bytes, in MiB; tools/bundle says what is wrong with others
    case "$1" in
    *[Gg]) echo $((${1%?} * 1024)) ;;
    *[Mm]) echo $((${1%?})) ;;
    *[Kk]) echo $((${1%?} / 1024)) ;;
    *) echo $(($1 >> 20)) ;;
    esac
}
